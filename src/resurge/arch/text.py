"""The fields of a spec as text, both ways.

    line   = [ name ] { " " field "=" value }
    value  = number | "(" number { "," number } ")" | word [ "(" [ argument { "," argument } ] ")" ]

A value is call syntax, which Python's own parser reads; nothing is evaluated. `_OWN` is the one place where a new
choice is entered to be used on the command line and in files; those of plugins join it in `WORDS`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import partial
from typing import get_type_hints

from resurge.arch import blocks, deformable, gates, shortcuts, stems, transforms
from resurge.arch.contracts import AXES
from resurge.errors import UserError, require_one_of, suggest
from resurge.plugins import Table

# A line or a file from a stranger must not exhaust the stack or fill the screen.
MAX_NESTING = 8
MAX_LENGTH = 1000

_OWN: dict[str, dict[str, type | str]] = {
    "stem": {"conv7x7": stems.Conv7x7, "deep": stems.Deep, "conv3x3": stems.Conv3x3},
    "block": {"basic": blocks.Basic, "bottleneck": blocks.Bottleneck},
    "transform": {
        "conv3x3": transforms.Conv3x3,
        "res2": transforms.Res2,
        "sk": transforms.SelectiveKernel,
        "split": transforms.SplitAttention,
        "avgdown": transforms.AvgDown,
        "deform": deformable.Deform,
    },
    "gate": {"none": gates.NoGate, "se": gates.SqueezeExcite},
    "shortcut": {"proj": shortcuts.Projection, "avg": shortcuts.AvgProjection, "zeropad": shortcuts.ZeroPad},
}


def _plugin_choice(axis: type, name: str, part: object) -> type:
    """Raises UserError for what is no choice, or has a field that cannot be written as text."""
    if not isinstance(part, type) or not is_dataclass(part) or not callable(getattr(part, "build", None)):
        raise UserError(f"is {part!r}; expected a frozen dataclass with a method `build`, as in resurge.arch.")
    hints = get_type_hints(part)
    for name in (field.name for field in fields(part)):
        if hints[name] not in (int, float, bool, str, axis):
            raise UserError(f"has the field {name} of type {hints[name]}; expected int, float, bool, str or a choice.")
    return part


WORDS: Mapping[str, Mapping[str, type]] = {
    axis: Table(axis, own, partial(_plugin_choice, AXES[axis])) for axis, own in _OWN.items()
}
"""The choices of each axis by their words."""
LISTS = ("depths", "planes")
NUMBERS = ("groups", "base_width")
FIELDS = (*LISTS, *NUMBERS, *AXES)


def _own_fields(choice: object) -> tuple[Field[object], ...]:
    return fields(choice) if is_dataclass(choice) else ()


# --------------------------------------------------------------------------------------------------- writing


def format_value(axis: str, value: object) -> str:
    """The value of a spec's field, or of an argument inside it, as text; an argument that is no choice has axis ""."""
    if isinstance(value, tuple):
        return "(" + ",".join(str(number) for number in value) + ")"
    if axis not in WORDS:
        return str(value).lower() if isinstance(value, bool) else str(value)
    arguments = []
    for field in _own_fields(value):
        inner = getattr(value, field.name)
        if inner != field.default:
            nested = _nested_axis(axis, inner)
            # a choice inside a choice needs no name: avgdown(split(radix=2))
            arguments.append(("" if nested else f"{field.name}=") + format_value(nested, inner))
    return _word(axis, value) + (f"({','.join(arguments)})" if arguments else "")


def plain_value(axis: str, value: object) -> object:
    """The same as plain JSON values: a choice is an object with its word as `kind`."""
    if isinstance(value, tuple):
        return list(value)
    if axis not in WORDS:
        return value
    inner = {field.name: getattr(value, field.name) for field in _own_fields(value)}
    return {"kind": _word(axis, value)} | {name: plain_value(_nested_axis(axis, v), v) for name, v in inner.items()}


def _nested_axis(axis: str, value: object) -> str:
    return axis if isinstance(value, AXES[axis]) else ""


def _word(axis: str, choice: object) -> str:
    for word in WORDS[axis]:  # one by one, so that no plugin is imported for the project's own choices
        with suppress(UserError):  # another plugin that cannot be used
            if type(choice) is WORDS[axis][word]:
                return word
    raise UserError(f"{choice!r} has no word; enter one in resurge.arch.text.WORDS[{axis!r}] to print and store it.")


# --------------------------------------------------------------------------------------------------- reading


def read_line(text: str) -> tuple[str | None, dict[str, object]]:
    """The name that a line begins with, if it does, and the values of the fields that it sets.

    Raises:
        UserError: a field, word or value is unknown; the nearest real one is suggested.
    """
    if len(text) > MAX_LENGTH:
        raise UserError(f"a spec has at most {MAX_LENGTH} characters; got {len(text)} that begin with {text[:60]!r}.")
    parts = _split_fields(text)
    name = parts.pop(0) if parts and "=" not in parts[0] else None
    changes: dict[str, object] = {}
    for part in parts:
        field, equals, value = part.partition("=")
        if not equals:
            raise UserError(f"expected field=value, got {part!r} in {text!r}.")
        if field in changes:
            raise UserError(f"the field {field!r} is given twice in {text!r}.")
        changes[field] = _read_field(field, value)
    return name, changes


def _split_fields(text: str) -> list[str]:
    """Split at white space outside parentheses; inside it means nothing beside a comma, "=" or a parenthesis."""
    text = re.sub(r" ?([(,=]) ?| (?=\))", r"\1", " ".join(text.split()))
    parts = [""]
    depth = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if depth < 0 or depth > MAX_NESTING:
            raise UserError(f"the parentheses do not match, or nest more than {MAX_NESTING} deep, in {text!r}.")
        if character == " " and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    if depth:
        raise UserError(f"a parenthesis is not closed in {text!r}.")
    return [part for part in parts if part]


def _read_field(name: str, value: str) -> object:
    require_one_of("spec field", name, FIELDS)
    try:
        node = ast.parse(value, mode="eval").body
    except (SyntaxError, ValueError):  # an empty value, a stray sign, a null byte
        node = ast.Constant(None)
    if name in WORDS:
        return _read_choice(name, node, value)
    elements = node.elts if isinstance(node, ast.Tuple) else [node]
    numbers = tuple(each.value for each in elements if isinstance(each, ast.Constant) and type(each.value) is int)
    if len(numbers) == len(elements) and (name in LISTS or len(numbers) == 1):
        return numbers if name in LISTS else numbers[0]
    kind = "whole numbers in parentheses, one per stage" if name in LISTS else "a whole number"
    raise UserError(f"{name} takes {kind}; got {value!r}.")


def _read_choice(axis: str, node: ast.expr, text: str) -> object:
    call = ast.Call(node, [], []) if isinstance(node, ast.Name) else node
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise UserError(f"expected a choice like {next(iter(WORDS[axis]))!r} for {axis}, got {text!r}.")
    word = call.func.id
    if word not in WORDS[axis]:
        known = ", ".join(WORDS[axis])
        hint = suggest(word, WORDS[axis]) or " Or is a plugin not installed here?"
        raise UserError(f"{axis} has no choice {word!r}; its choices are {known}.{hint}")
    kind = WORDS[axis][word]
    own = {field.name: field for field in _own_fields(kind)}
    hints = get_type_hints(kind)
    values: dict[str, object] = {}
    for name, argument in _named_arguments(call, list(own), text):
        if name not in own:
            known = ", ".join(own) or "no arguments"
            raise UserError(f"{axis}={word} has no argument {name!r}; it takes {known}.{suggest(name, own)}")
        if name in values:
            raise UserError(f"the argument {name!r} is given twice in {text!r}.")
        values[name] = _read_argument(axis, f"{axis}={word}: {name}", hints[name], argument)
    missing = [name for name, field in own.items() if field.default is MISSING and name not in values]
    if missing:
        raise UserError(f"{axis}={word} needs {', '.join(missing)}; write {word}({missing[0]}=...).")
    choice: object = kind(**values)
    return choice


def _named_arguments(call: ast.Call, names: list[str], text: str) -> Iterator[tuple[str, ast.expr]]:
    """The arguments with the fields they set: `deep(32)`, `avgdown(split(radix=2))`: without a name, the next one."""
    if len(call.args) > len(names):
        raise UserError(f"{ast.unparse(call.func)} takes at most {len(names)} arguments; got {text!r}.")
    yield from zip(names, call.args, strict=False)
    for keyword in call.keywords:
        yield keyword.arg or "**", keyword.value


def _read_argument(axis: str, where: str, kind: type, node: ast.expr) -> object:
    text = ast.unparse(node)
    if kind is AXES[axis]:
        return _read_choice(axis, node, text)
    if kind is bool:
        if text not in ("true", "false"):
            raise UserError(f"{where} must be true or false; got {text!r}.")
        return text == "true"
    if kind is int:
        if not isinstance(node, ast.Constant) or type(node.value) is not int:
            raise UserError(f"{where} must be a whole number; got {text!r}.")
        return node.value
    if kind is float:
        try:
            return float(text)
        except ValueError:
            raise UserError(f"{where} must be a number; got {text!r}.") from None
    return text
