"""A program of torch.export, looked through before torch loads it.

`torch.export.load` trusts its file: it unpickles what the file marks as pickled, evaluates the file's expressions of
sizes with sympy and its guards as Python, and takes any function inside `torch` for an operator. `vetted` lets through
what an export of a convolutional network is made of, raw tensors and calls of torch's operators, and nothing else.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from resurge.errors import UserError

# Entries below the archive's one folder. Weights and constants are raw bytes unless their table says otherwise.
_RAW = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|byteorder|archive_format|archive_version|\.data/[a-z_]+"
)
_TABLES = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_GRAPH = "models/model.json"
_EXAMPLES = "data/sample_inputs/model.pt"  # pickled, but the restricted unpickler reads it

_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|torchvision|resurge)\.\w+(\.\w+)?|torch\.sym_\w+|_operator\.[a-z]\w*|math\.[a-z]\w*"
)
_NAME = re.compile(r"[A-Za-z_]\w*")
_SYMBOL = re.compile(r"[su]\d+")
_FUNCTIONS = frozenset(
    {
        "Add",
        "Mul",
        "Pow",
        "Rational",
        "Max",
        "Min",
        "Mod",
        "PythonMod",
        "FloorDiv",
        "CleanDiv",
        "CeilDiv",
        "floor",
        "ceiling",
    }
)
_FUNCTIONS |= {"Eq", "Ne", "Le", "Lt", "Ge", "Gt", "And", "Or", "Not", "True", "False", "Integer", "oo", "int_oo"}
_FUNCTIONS |= {"GreaterThan", "LessThan", "StrictGreaterThan", "StrictLessThan", "Equality", "Unequality"}
_FUNCTIONS |= {"ToFloat", "TruncToInt", "FloorToInt", "CeilToInt", "IntTrueDiv", "FloatTrueDiv", "PowByNatural"}
_DECLARED = re.compile(r"Symbol\('([su]\d+)'(, \w+=(True|False))*\)")
_EXPRESSION = re.compile(r"[\w\s+\-*/%(),<>=!&|~.]*")


def vetted(path: Path) -> io.BytesIO:
    """The file, read once, without its guards, for `torch.export.load`.

    Raises:
        UserError: it is damaged, or holds something that could run code of its own.
    """
    try:
        data = path.read_bytes()
        archive = zipfile.ZipFile(io.BytesIO(data))
        entries = {name.partition("/")[2]: name for name in archive.namelist()}
        if len(entries) != len(archive.namelist()):
            raise _refuse(path, "two entries of one name")
        graph = json.loads(archive.read(entries[_GRAPH]))
        for entry, name in entries.items():
            if entry in _TABLES:
                _check_table(path, json.loads(archive.read(name)))
            elif entry == _EXAMPLES:
                torch.load(io.BytesIO(archive.read(name)), weights_only=True)
            elif entry != _GRAPH and not _RAW.fullmatch(entry):
                raise _refuse(path, f"the entry {name!r}")
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is damaged or was cut short ({error}). Export it again.") from None
    except UserError:
        raise
    except Exception as error:  # the restricted unpickler's own
        raise _refuse(path, f"pickled inputs that are not plain tensors ({type(error).__name__})") from None
    for key, text in _strings(graph):
        if key == "target" and not _OPERATOR.fullmatch(text):
            raise _refuse(path, f"a call of {text!r}")
        if key in ("expr_str", "range_constraints") and not _is_arithmetic(text):
            raise _refuse(path, f"the expression {text!r}")
    graph["guards_code"] = []  # Python source; what it checks, the operators check too
    return _with_graph(archive, entries[_GRAPH], graph)


def _check_table(path: Path, table: Any) -> None:
    for meta in table["config"].values():
        if meta["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", meta["path_name"]):
            raise _refuse(path, f"the pickled or foreign tensor {meta['path_name']!r}")


def _strings(plain: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in plain data, under the nearest key; of range_constraints the keys, which are expressions too."""
    if isinstance(plain, dict):
        for name, value in plain.items():
            if key == "range_constraints":
                yield key, name
            yield from _strings(value, name)
    elif isinstance(plain, list):
        for value in plain:
            yield from _strings(value, key)
    elif isinstance(plain, str):
        yield key, plain


def _is_arithmetic(text: str) -> bool:
    """Whether a text is numbers, symbols of sizes, operators and known functions, which sympy may evaluate."""
    text = _DECLARED.sub(r"\1", text)
    if not _EXPRESSION.fullmatch(text) or re.search(r"\.\D|\.$", text):
        return False
    return all(_SYMBOL.fullmatch(name) or name in _FUNCTIONS for name in _NAME.findall(text))


def _with_graph(archive: zipfile.ZipFile, name: str, graph: Any) -> io.BytesIO:
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as written:
        for each in archive.namelist():
            written.writestr(each, json.dumps(graph) if each == name else archive.read(each))
    copy.seek(0)
    return copy


def _refuse(path: Path, what: str) -> UserError:
    return UserError(
        f"{path} holds {what}, which no export of resurge does and which could run code on this machine. Use it only "
        "with what made it, or export the run again."
    )
