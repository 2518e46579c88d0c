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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from resurge.errors import UserError

OPERATORS = (
    "_operator.add",
    "_operator.floordiv",
    "_operator.ge",
    "_operator.mul",
    "_operator.sub",
    "torch.ops.aten.__and__.Tensor",
    "torch.ops.aten._assert_scalar.default",
    "torch.ops.aten._assert_tensor_metadata.default",
    "torch.ops.aten.add.Tensor",
    "torch.ops.aten.add_.Tensor",
    "torch.ops.aten.amax.default",
    "torch.ops.aten.arange.default",
    "torch.ops.aten.avg_pool2d.default",
    "torch.ops.aten.cat.default",
    "torch.ops.aten.chunk.default",
    "torch.ops.aten.clamp.default",
    "torch.ops.aten.conv2d.default",
    "torch.ops.aten.conv_transpose2d.input",
    "torch.ops.aten.detach_.default",
    "torch.ops.aten.div.Tensor",
    "torch.ops.aten.eq.Tensor",
    "torch.ops.aten.exp.default",
    "torch.ops.aten.expand.default",
    "torch.ops.aten.expand_as.default",
    "torch.ops.aten.flatten.using_ints",
    "torch.ops.aten.flip.default",
    "torch.ops.aten.floor.default",
    "torch.ops.aten.floor_divide.default",
    "torch.ops.aten.gather.default",
    "torch.ops.aten.ge.Scalar",
    "torch.ops.aten.ge.Tensor",
    "torch.ops.aten.group_norm.default",
    "torch.ops.aten.gt.Scalar",
    "torch.ops.aten.index.Tensor",
    "torch.ops.aten.index_put.default",
    "torch.ops.aten.lift_fresh_copy.default",
    "torch.ops.aten.linear.default",
    "torch.ops.aten.log2.default",
    "torch.ops.aten.lt.Tensor",
    "torch.ops.aten.matmul.default",
    "torch.ops.aten.max.dim",
    "torch.ops.aten.max_pool2d.default",
    "torch.ops.aten.mean.dim",
    "torch.ops.aten.minimum.default",
    "torch.ops.aten.mul.Tensor",
    "torch.ops.aten.new_zeros.default",
    "torch.ops.aten.nonzero.default",
    "torch.ops.aten.numpy_T.default",
    "torch.ops.aten.pad.default",
    "torch.ops.aten.permute.default",
    "torch.ops.aten.reciprocal.default",
    "torch.ops.aten.relu.default",
    "torch.ops.aten.relu_.default",
    "torch.ops.aten.remainder.Scalar",
    "torch.ops.aten.repeat.default",
    "torch.ops.aten.repeat_interleave.self_int",
    "torch.ops.aten.reshape.default",
    "torch.ops.aten.select.int",
    "torch.ops.aten.sigmoid.default",
    "torch.ops.aten.slice.Tensor",
    "torch.ops.aten.softmax.int",
    "torch.ops.aten.split.Tensor",
    "torch.ops.aten.sqrt.default",
    "torch.ops.aten.stack.default",
    "torch.ops.aten.sub.Tensor",
    "torch.ops.aten.sum.dim_IntList",
    "torch.ops.aten.sym_size.int",
    "torch.ops.aten.to.dtype",
    "torch.ops.aten.topk.default",
    "torch.ops.aten.unflatten.int",
    "torch.ops.aten.unsqueeze.default",
    "torch.ops.aten.upsample_bilinear2d.vec",
    "torch.ops.aten.upsample_nearest2d.vec",
    "torch.ops.aten.view.default",
    "torch.ops.aten.where.ScalarOther",
    "torch.ops.resurge.pooled.default",
    "torch.ops.resurge.suppress.default",
    "torch.ops.torchvision.deform_conv2d.default",
    "torch.sym_min",
)
"""Every operator that exports contain, sorted. tests/infer/test_operators.py exports networks that contain all of them
(with --slow the whole grammar, every head, form and precision) and names those to add here or to take away.
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


# ------------------------------------------------------------------------------------------- readers of plain values
# Each takes a value of the JSON file and returns it rebuilt, or raises `_ForeignError`.

Reader = Callable[[Any], Any]


def _of(kind: type) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not kind:  # a bool is no int here
            raise _ForeignError(f"{_short(value)} where a value of type {kind.__name__} stands")
        return value

    return read


def _just(*allowed: Any) -> Reader:
    def read(value: Any) -> Any:
        if not any(type(value) is type(each) and value == each for each in allowed):
            raise _ForeignError(f"the value {_short(value)}")
        return value

    return read


def _text(pattern: str, what: str) -> Reader:
    compiled = re.compile(pattern, re.ASCII)

    def read(value: Any) -> Any:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise _ForeignError(f"the {what} {_short(value)}")
        return value

    return read


def _or_none(reader: Reader) -> Reader:
    return lambda value: None if value is None else reader(value)


def _each(reader: Reader) -> Reader:
    def read(value: Any) -> Any:
        return [reader(each) for each in _of(list)(value)]

    return read


def _table(key: Reader, reader: Reader) -> Reader:
    def read(value: Any) -> Any:
        return {key(name): reader(each) for name, each in _of(dict)(value).items()}

    return read


def _record(**readers: Reader) -> Reader:
    """A dictionary with these keys; any other is left out, and one that is absent is for torch to miss."""

    def read(value: Any) -> Any:
        _of(dict)(value)
        return {name: reader(value[name]) for name, reader in readers.items() if name in value}

    return read


def _one_of(**readers: Reader) -> Reader:
    """A dictionary with exactly one key, which says what kind of value it is."""

    def read(value: Any) -> Any:
        if len(_of(dict)(value)) != 1:
            raise _ForeignError(f"{_short(value)} where one value stands")
        ((kind, content),) = value.items()
        if kind not in readers:
            raise _ForeignError(f"a value of the kind {_short(kind)}")
        return {kind: readers[kind](content)}

    return read


def _short(value: Any) -> str:
    return repr(value)[:80]


# --------------------------------------------------------------------------------------------- the fields of a program

_whole, _truth = _of(int), _of(bool)
_name = _text(r"[A-Za-z_]\w*", "name")  # becomes the name of a variable in Python source
# Becomes an attribute of a module. Those of a network are in `model`; constants are beside it.
_tensor_name = _text(r"model(\.(?!__)\w+)+|lifted_tensor_\d+", "tensor")
_device = _record(type=_just("cpu"), index=_just(None))
_strided = _just(7)
_tensor = _record(name=_name)


def _real(value: Any) -> Any:
    return value if type(value) is float else _just("Infinity", "-Infinity", "NaN")(value)


def _expression(text: Any) -> Any:
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


_number = _one_of(as_int=_whole)
_size = _one_of(as_int=_whole, as_expr=_record(expr_str=_expression, hint=_or_none(_number)))


def _description(size: Reader) -> Reader:
    return _record(
        dtype=_whole,
        sizes=_each(size),
        requires_grad=_truth,
        device=_device,
        strides=_each(size),
        storage_offset=size,
        layout=_strided,
    )


_size_argument = _one_of(as_name=_name, as_int=_whole)
_argument = _one_of(
    as_none=_just(True),
    as_tensor=_tensor,
    as_tensors=_each(_tensor),
    as_int=_whole,
    as_ints=_each(_whole),
    as_float=_real,
    as_floats=_each(_real),
    as_bool=_truth,
    as_sym_bool=_one_of(as_name=_name),
    as_sym_int=_size_argument,
    as_sym_ints=_each(_size_argument),
    as_scalar_type=_whole,
    as_layout=_strided,
    as_device=_device,
)
_result = _one_of(
    as_tensor=_tensor, as_tensors=_each(_tensor), as_sym_int=_one_of(as_name=_name), as_sym_bool=_one_of(as_name=_name)
)
_values = _each(_one_of(as_tensor=_tensor))
_value = _record(arg=_one_of(as_tensor=_tensor))


def _node(value: Any) -> Any:
    target = _of(dict)(value)["target"]
    if target not in OPERATORS:
        raise _ForeignError(f"a call of {_short(target)}")

    def argument(given: Any) -> Any:
        named = _record(name=_name, kind=_just(1, 2))(given)
        text = _of(dict)(given["arg"]).get("as_string")
        if text is None:
            return named | {"arg": _argument(given["arg"])}
        if (target, named["name"]) == ASSERTION:
            text = "a number of objects is below zero"
        elif (target, named["name"], text) not in STRINGS:
            raise _ForeignError(f"the text {_short(text)} for {target}")
        return named | {"arg": {"as_string": text}}

    rebuilt = _record(name=_name, outputs=_each(_result))(value)
    return rebuilt | {"target": target, "inputs": _each(argument)(value["inputs"]), "metadata": {}}


_graph = _record(
    inputs=_values,
    outputs=_values,
    nodes=_each(_node),
    tensor_values=_table(_name, _description(_size)),
    sym_int_values=_table(_name, _size),
    sym_bool_values=_table(_name, _one_of(as_expr=_record(expr_str=_expression))),
    sym_float_values=_just({}),
    custom_obj_values=_just({}),
    is_single_tensor_return=_just(False),
)
_signature = _record(
    input_specs=_each(
        _one_of(
            parameter=_record(arg=_tensor, parameter_name=_tensor_name),
            buffer=_record(arg=_tensor, buffer_name=_tensor_name, persistent=_truth),
            tensor_constant=_record(arg=_tensor, tensor_constant_name=_tensor_name),
            user_input=_value,
        )
    ),
    output_specs=_each(_one_of(user_output=_value)),
)
_settings = _record(
    opset_version=_table(_text(r"\w+", "name"), _whole),
    range_constraints=_table(_text(_SYMBOL, "symbol"), _record(min_val=_or_none(_whole), max_val=_or_none(_whole))),
    schema_version=_record(major=_whole, minor=_whole),
    torch_version=_text(r"[\w.+-]{1,64}", "version"),
)
_payloads = _record(
    config=_table(
        _tensor_name,
        _record(
            path_name=_text(r"(weight|tensor)_\d+", "file"),
            is_param=_truth,
            use_pickle=_just(False),
            tensor_meta=_description(_number),
        ),
    )
)


def _program(value: Any) -> Any:
    """The program without its guards (the operators check what they check) and without notes for developers."""
    module = value["graph_module"]
    signature = _signature(module["signature"])
    given = sum("user_input" in each for each in signature["input_specs"])
    found = len(signature["output_specs"])
    (call,) = (each["signature"] for each in module["module_call_graph"] if each["fqn"] == "")
    spec = {
        "inputs": [],
        "outputs": [],
        "in_spec": _structure(call["in_spec"], _tuple(_tuple(*given * [_LEAF]), _NO_KEYWORDS)),
        "out_spec": _structure(call["out_spec"], _LEAF, _tuple(*found * [_LEAF])),
        "forward_arg_names": _each(_name)(call["forward_arg_names"]),
    }
    rebuilt = {
        "graph": _graph(module["graph"]),
        "signature": signature,
        "module_call_graph": [{"fqn": "", "signature": spec}],
    }
    return _settings(value) | {"graph_module": rebuilt, "verifiers": ["TRAINING"], "guards_code": []}


def _tuple(*children: Any) -> Any:
    return {"type": "builtins.tuple", "context": "null", "children_spec": list(children)}


_LEAF: Any = {"type": None, "context": None, "children_spec": []}
_NO_KEYWORDS: Any = {"type": "builtins.dict", "context": "[]", "children_spec": []}


def _structure(text: Any, *allowed: Any) -> str:
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
    except (OSError, zipfile.BadZipFile, ValueError, LookupError, TypeError, RecursionError) as error:
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
    table = _payloads(plain)
    for each in table["config"].values():
        # no tensor has more numbers than its file has bytes; where that is empty torch would make it up
        count = math.prod(side["as_int"] for side in each["tensor_meta"]["sizes"])
        if count > entries[name.rpartition("/")[0] + "/" + each["path_name"]].file_size:
            raise _ForeignError(f"a tensor of {count:,} numbers in {each['path_name']}")
    return json.dumps(table).encode()
