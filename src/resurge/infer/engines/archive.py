"""A program of torch.export, rebuilt from what an export may contain before torch loads it.

`torch.export.load` trusts its file. It unpickles entries, evaluates the sizes as Python, imports the modules that the
structure of the inputs names, writes the names of values into Python source that it then runs, calls any function
inside `torch`, and lets the file choose how strictly it is checked. `vetted` therefore passes nothing through: it reads
the archive's fields against the list below and writes a new archive of them. Whatever is not on the list is refused;
what does not change the result (stack traces, example inputs, guards) is left out.
"""

from __future__ import annotations

import ast
import io
import json
import math
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from resurge.errors import UserError
from resurge.files import Json

OPERATORS = frozenset(Path(__file__).with_name("operators.txt").read_text(encoding="ascii").split())
"""Every operator that exports contain. tests/infer/test_operators.py exports networks that contain all of them (with
--slow the whole grammar, every head, form and precision) and names those to add to the file or to take away.
"""

STRINGS = frozenset({("torch.ops.aten.pad.default", "mode", mode) for mode in ("constant", "replicate")})
"""The only arguments that may be text: operator, argument, value."""
ASSERTION = ("torch.ops.aten._assert_scalar.default", "assert_msg")
"""Its text is a message, in place of which another is put."""

_FUNCTIONS = frozenset({"Add", "FloorDiv", "GreaterThan", "Max", "Min", "Mul"})
"""Of sizes. No powers: a short text would be a number that fills the memory."""
_ASSUMED = frozenset({"integer", "nonnegative", "positive"})

# The largest export of the model zoo, resnest269, has 450 MB in 900 entries, and a graph of 4 MB.
MOST_BYTES = 4 << 30
MOST_JSON = 64 << 20
MOST_LABEL = 64
MOST_ENTRIES = 20_000
MOST_EXPRESSION = 10_000

# Entries below the archive's one folder: weights and constants are raw bytes, described by a table each.
_TENSOR = re.compile(r"data/(weights/weight|constants/tensor)_\d+", re.ASCII)
_LABEL = re.compile(r"byteorder|archive_format|archive_version|version|\.data/(version|serialization_id)")
_EXAMPLES = "data/sample_inputs/model.pt"  # pickled
_GRAPH = "models/model.json"
_JSON = frozenset({_GRAPH, "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"})
_SYMBOL = r"[su]\d{1,6}"


class _ForeignError(ValueError):
    """Something that no export contains; the text says what."""


# ------------------------------------------------------------------------------------------- what plain values may be


class _OneOf(dict[str, object]):
    """A dictionary with exactly one of these keys, which says what kind of value it is."""


@dataclass(frozen=True)
class _Table:
    """A dictionary with any number of such keys and values."""

    key: object
    value: object


def _rebuilt(schema: object, value: object) -> Any:
    """A value of the JSON file, made anew of what the schema lists; anything else raises `_ForeignError`.

    A schema is a type: a value of exactly this type. A tuple: one of these values. A pattern: text that matches as a
    whole. A list: a list of such values. A dictionary: one with these keys; any other is left out, and one that is
    absent is for torch to miss. A function rebuilds the value itself.
    """
    if isinstance(schema, type):
        if type(value) is not schema:  # a bool is no int here
            raise _ForeignError(f"{_short(value)} where a value of type {schema.__name__} stands")
        return value
    if isinstance(schema, tuple):
        if not any(type(value) is type(each) and value == each for each in schema):
            raise _ForeignError(f"the value {_short(value)}")
        return value
    if isinstance(schema, re.Pattern):
        if not isinstance(value, str) or not schema.fullmatch(value):
            raise _ForeignError(f"the text {_short(value)}")
        return value
    if isinstance(schema, list):
        return [_rebuilt(schema[0], each) for each in _rebuilt(list, value)]
    if callable(schema):
        return schema(value)
    given = _rebuilt(dict, value)
    if isinstance(schema, _Table):
        return {_rebuilt(schema.key, name): _rebuilt(schema.value, each) for name, each in given.items()}
    assert isinstance(schema, dict)
    if isinstance(schema, _OneOf) and (len(given) != 1 or not given.keys() <= schema.keys()):
        raise _ForeignError(f"the value {_short(value)}")
    return {name: _rebuilt(each, given[name]) for name, each in schema.items() if name in given}


def _short(value: object) -> str:
    return repr(value)[:80]


# --------------------------------------------------------------------------------------------- the fields of a program

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)  # becomes the name of a variable in Python source
# Becomes an attribute of a module. Those of a network are in `model`; constants are beside it.
_TENSOR_NAME = re.compile(r"model(\.(?!__)\w+)+|lifted_tensor_\d+", re.ASCII)
_DEVICE = {"type": ("cpu",), "index": (None,)}
_STRIDED = (7,)
_ANY_TENSOR = {"name": _NAME}


def _real(value: object) -> object:
    return value if type(value) is float else _rebuilt(("Infinity", "-Infinity", "NaN"), value)


def _or_none(schema: object, value: object) -> object:
    return None if value is None else _rebuilt(schema, value)


def _expression(text: object) -> object:
    """Numbers and symbols of sizes, and functions of them, which sympy may evaluate."""
    try:
        if not isinstance(text, str) or len(text) > MOST_EXPRESSION:
            raise ValueError
        tree = ast.parse(text, mode="eval").body
        if not _is_size(tree):
            raise ValueError
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise _ForeignError(f"the expression {_short(text)}") from None
    return text


def _is_size(node: ast.expr) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return False
    if node.func.id == "Symbol":  # Symbol('s0', positive=True, integer=True)
        return re.fullmatch(_SYMBOL, str(_constant(*node.args)), re.ASCII) is not None and all(
            each.arg in _ASSUMED and _constant(each.value) is True for each in node.keywords
        )
    if node.func.id == "Integer":
        (number,) = node.args
        if isinstance(number, ast.UnaryOp) and isinstance(number.op, ast.USub):
            number = number.operand
        return type(_constant(number)) is int and not node.keywords
    return node.func.id in _FUNCTIONS and not node.keywords and all(map(_is_size, node.args))


def _constant(node: ast.expr) -> object:
    return node.value if isinstance(node, ast.Constant) else None


_NUMBER = _OneOf(as_int=int)
_SIZE = _OneOf(as_int=int, as_expr={"expr_str": _expression, "hint": partial(_or_none, _NUMBER)})


def _description(size: _OneOf) -> dict[str, object]:
    return {
        "dtype": int,
        "sizes": [size],
        "requires_grad": bool,
        "device": _DEVICE,
        "strides": [size],
        "storage_offset": size,
        "layout": _STRIDED,
    }


_SIZE_ARGUMENT = _OneOf(as_name=_NAME, as_int=int)
_ARGUMENT = _OneOf(
    as_none=(True,),
    as_tensor=_ANY_TENSOR,
    as_tensors=[_ANY_TENSOR],
    as_int=int,
    as_ints=[int],
    as_float=_real,
    as_floats=[_real],
    as_bool=bool,
    as_sym_bool=_OneOf(as_name=_NAME),
    as_sym_int=_SIZE_ARGUMENT,
    as_sym_ints=[_SIZE_ARGUMENT],
    as_scalar_type=int,
    as_layout=_STRIDED,
    as_device=_DEVICE,
)
_NAMED = _OneOf(as_name=_NAME)
_RESULT = _OneOf(as_tensor=_ANY_TENSOR, as_tensors=[_ANY_TENSOR], as_sym_int=_NAMED, as_sym_bool=_NAMED)
_TENSOR_VALUE = _OneOf(as_tensor=_ANY_TENSOR)


def _node(value: object) -> Json:
    node = _rebuilt(dict, value)
    target = _rebuilt(str, node["target"])
    if target not in OPERATORS:
        raise _ForeignError(f"a call of {_short(target)}")

    def argument(value: object) -> Json:
        given = _rebuilt(dict, value)
        named: Json = _rebuilt({"name": _NAME, "kind": (1, 2)}, given)
        text = _rebuilt(dict, given["arg"]).get("as_string")
        if text is None:
            return named | {"arg": _rebuilt(_ARGUMENT, given["arg"])}
        if (target, named["name"]) == ASSERTION:
            text = "a number of objects is below zero"
        elif (target, named["name"], text) not in STRINGS:
            raise _ForeignError(f"the text {_short(text)} for {target}")
        return named | {"arg": {"as_string": text}}

    inputs = _rebuilt([argument], node["inputs"])
    rebuilt: Json = _rebuilt({"name": _NAME, "outputs": [_RESULT]}, node)
    return rebuilt | {"target": target, "inputs": inputs, "metadata": {}}


_GRAPH_FIELDS = {
    "inputs": [_TENSOR_VALUE],
    "outputs": [_TENSOR_VALUE],
    "nodes": [_node],
    "tensor_values": _Table(_NAME, _description(_SIZE)),
    "sym_int_values": _Table(_NAME, _SIZE),
    "sym_bool_values": _Table(_NAME, _OneOf(as_expr={"expr_str": _expression})),
    "sym_float_values": ({},),
    "custom_obj_values": ({},),
    "is_single_tensor_return": (False,),
}
_INPUT = _OneOf(
    parameter={"arg": _ANY_TENSOR, "parameter_name": _TENSOR_NAME},
    buffer={"arg": _ANY_TENSOR, "buffer_name": _TENSOR_NAME, "persistent": bool},
    tensor_constant={"arg": _ANY_TENSOR, "tensor_constant_name": _TENSOR_NAME},
    user_input={"arg": _TENSOR_VALUE},
)
_SIGNATURE = {"input_specs": [_INPUT], "output_specs": [_OneOf(user_output={"arg": _TENSOR_VALUE})]}
_WHOLE_OR_NONE = partial(_or_none, int)
_SETTINGS = {
    "opset_version": _Table(re.compile(r"\w+", re.ASCII), int),
    "range_constraints": _Table(re.compile(_SYMBOL, re.ASCII), {"min_val": _WHOLE_OR_NONE, "max_val": _WHOLE_OR_NONE}),
    "schema_version": {"major": int, "minor": int},
    "torch_version": re.compile(r"[\w.+-]{1,64}", re.ASCII),
}
_PAYLOAD = {
    "path_name": re.compile(r"(weight|tensor)_\d+", re.ASCII),
    "is_param": bool,
    "use_pickle": (False,),
    "tensor_meta": _description(_NUMBER),
}


def _program(value: object) -> Json:
    """The program without its guards (the operators check what they check) and without notes for developers."""
    module = _rebuilt(dict, value)["graph_module"]
    signature = _rebuilt(_SIGNATURE, module["signature"])
    given = sum("user_input" in each for each in signature["input_specs"])
    found = len(signature["output_specs"])
    (call,) = (each["signature"] for each in module["module_call_graph"] if each["fqn"] == "")
    spec = {
        "inputs": [],
        "outputs": [],
        "in_spec": _structure(call["in_spec"], _tuple(_tuple(*given * [_LEAF]), _NO_KEYWORDS)),
        "out_spec": _structure(call["out_spec"], _LEAF, _tuple(*found * [_LEAF])),
        "forward_arg_names": _rebuilt([_NAME], call["forward_arg_names"]),
    }
    rebuilt = {
        "graph": _rebuilt(_GRAPH_FIELDS, module["graph"]),
        "signature": signature,
        "module_call_graph": [{"fqn": "", "signature": spec}],
    }
    settings: Json = _rebuilt(_SETTINGS, value)
    return settings | {"graph_module": rebuilt, "verifiers": ["TRAINING"], "guards_code": []}


def _tuple(*children: Json) -> Json:
    return {"type": "builtins.tuple", "context": "null", "children_spec": list(children)}


_LEAF: Json = {"type": None, "context": None, "children_spec": []}
_NO_KEYWORDS: Json = {"type": "builtins.dict", "context": "[]", "children_spec": []}


def _structure(text: str, *allowed: Json) -> str:
    """How inputs or outputs are nested. Of other types than these it may name modules, which torch imports."""
    for each in allowed:
        if json.loads(text) == [1, each]:
            return json.dumps([1, each])
    raise _ForeignError(f"the structure {_short(text)}")


# ------------------------------------------------------------------------------------------------------- the archive


def vetted(path: Path) -> io.BytesIO:
    """The program of a file, rebuilt, for `torch.export.load`.

    Raises:
        UserError: the file is damaged, or holds something that no export contains.
    """
    copy = io.BytesIO()
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            entries = _entries(archive, os.fstat(file.fileno()).st_size)
            with zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as written:
                for name in entries:
                    written.writestr(f"archive/{name}", _content(archive, name, entries))
    except _ForeignError as error:
        raise UserError(
            f"{path} holds {error}, which no export of resurge does and which could run code on this machine. Use it "
            "only with what made it, or export the run again."
        ) from None
    except (
        OSError, zipfile.BadZipFile, ValueError, LookupError, TypeError, RecursionError, NotImplementedError
    ) as error:  # fmt: skip
        raise UserError(f"{path} is damaged or was cut short ({error}). Export it again.") from None
    copy.seek(0)
    return copy


def _entries(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The entries by their name below the archive's folder. None is read before all are known to be of a sane size."""
    listed = archive.infolist()
    if len(listed) > MOST_ENTRIES:
        raise _ForeignError(f"{len(listed):,} entries")
    if size > MOST_BYTES:
        raise _ForeignError(f"{size:,} bytes")
    if (
        any(each.compress_type != zipfile.ZIP_STORED for each in listed)
        or sum(each.file_size for each in listed) > size
    ):
        raise _ForeignError("compressed entries")
    entries = {each.filename.partition("/")[2]: each for each in listed}
    if len(entries) != len(listed):
        raise _ForeignError("two entries of one name")
    for name, entry in entries.items():
        most = MOST_JSON if name in _JSON else MOST_LABEL if _LABEL.fullmatch(name) else size
        if entry.file_size > most:
            raise _ForeignError(f"{entry.file_size:,} bytes in {name}")
    absent = _JSON - set(entries)
    if absent:
        raise KeyError(*absent)
    return entries


def _content(archive: zipfile.ZipFile, name: str, entries: Mapping[str, zipfile.ZipInfo]) -> bytes:
    """What the new archive has under this name."""
    if name == _EXAMPLES:
        return b""
    if name not in _JSON and not _TENSOR.fullmatch(name) and not _LABEL.fullmatch(name):
        raise _ForeignError(f"the entry {name!r}")
    content = archive.read(entries[name])
    if name not in _JSON:
        return content
    plain = json.loads(content)
    if name == _GRAPH:
        return json.dumps(_program(plain)).encode()
    table = _rebuilt({"config": _Table(_TENSOR_NAME, _PAYLOAD)}, plain)
    for each in table["config"].values():
        # no tensor has more numbers than its file has bytes; where that is empty torch would make it up
        count = math.prod(side["as_int"] for side in each["tensor_meta"]["sizes"])
        if count > entries[name.rpartition("/")[0] + "/" + each["path_name"]].file_size:
            raise _ForeignError(f"a tensor of {count:,} numbers in {each['path_name']}")
    return json.dumps(table).encode()
