"""A `Spec` as one line of text, and as JSON, both ways.

    spec   = name-or-first-field { " " field "=" value }
    value  = number | "(" number { "," number } ")" | word [ "(" [ argument { "," argument } ] ")" ]

The line starts from the named model nearest to the spec: `resnet50 transform=split(radix=2) depths=(3,4,6,3)`.
`WORDS` is the one place a new choice is entered to be spoken of on the command line and in files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any

from resurge.arch import blocks, deformable, gates, shortcuts, stems, transforms
from resurge.arch.spec import AXES, Spec
from resurge.errors import UserError, suggest

# A line or a file from a stranger must not exhaust the stack or fill the screen.
MAX_NESTING = 8
MAX_LENGTH = 1000

WORDS: dict[str, dict[str, type]] = {
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


# --------------------------------------------------------------------------------------------------- writing


def format_spec(spec: Spec) -> str:
    """One line that `parse_spec` reads back: the nearest named model and what differs from it."""
    from resurge.arch.zoo import MODELS  # the zoo is made of Specs, and they print through here

    def different(parent: Spec) -> list[str]:
        return [field.name for field in fields(Spec) if getattr(parent, field.name) != getattr(spec, field.name)]

    name = min(MODELS, key=lambda candidate: len(different(MODELS[candidate])))
    changes = [f"{field}={_format_value(field, getattr(spec, field))}" for field in different(MODELS[name])]
    return " ".join([name, *changes])


def _format_value(axis: str, value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + ",".join(str(number) for number in value) + ")"
    if axis not in WORDS:
        return str(value).lower() if isinstance(value, bool) else str(value)
    arguments = []
    for field in fields(value):
        inner = getattr(value, field.name)
        if inner != field.default:
            nested = _nested_axis(axis, inner)
            # a choice inside a choice needs no name: avgdown(split(radix=2))
            arguments.append(("" if nested else f"{field.name}=") + _format_value(nested, inner))
    return _word(axis, value) + (f"({','.join(arguments)})" if arguments else "")


def _nested_axis(axis: str, value: Any) -> str:
    return axis if isinstance(value, AXES[axis]) else ""


def _word(axis: str, choice: Any) -> str:
    for word, kind in WORDS[axis].items():
        if type(choice) is kind:
            return word
    raise UserError(f"{choice!r} has no word; enter one in resurge.arch.text.WORDS[{axis!r}] to print and store it.")


# --------------------------------------------------------------------------------------------------- reading


def parse_spec(text: str) -> Spec:
    """The network that a line names: a model of the zoo, with or without changes, or every field spelled out.

    Raises:
        UserError: a name, field, word or value is unknown; the nearest real one is suggested.
    """
    from resurge.arch.zoo import get_named

    if len(text) > MAX_LENGTH:
        raise UserError(f"a spec has at most {MAX_LENGTH} characters; got {len(text)} that begin with {text[:60]!r}.")
    parts = _split_fields(text)
    parent: Spec | None = None
    if parts and "=" not in parts[0]:
        parent = get_named(parts.pop(0))
    changes: dict[str, Any] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals:
            raise UserError(f"expected field=value, got {part!r} in {text!r}.")
        if name in changes:
            raise UserError(f"the field {name!r} is given twice in {text!r}.")
        changes[name] = _read_field(name, value)
    if parent is not None:
        return parent.but(**changes) if changes else parent
    if "depths" not in changes:
        raise UserError(
            f"expected a model name or at least depths=(..), got {text!r}. `resurge models` lists the names."
        )
    return Spec(**changes)


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


def _short(value: object) -> str:
    """`value` as it goes into a message."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _read_field(name: str, value: str) -> Any:
    names = [field.name for field in fields(Spec)]
    if name not in names:
        raise UserError(f"a Spec has no field {name!r}; its fields are {', '.join(names)}.{suggest(name, names)}")
    if name in WORDS:
        return _read_choice(name, value)
    return _read_number(name, value)


def _read_number(name: str, value: str) -> int | tuple[int, ...]:
    try:
        if name in ("depths", "planes"):
            return tuple(int(number) for number in value.strip("()").split(",") if number)
        return int(value)
    except ValueError:
        kind = "whole numbers in parentheses, one a stage" if name in ("depths", "planes") else "a whole number"
        raise UserError(f"{name} takes {kind}; got {value!r}.") from None


def _read_choice(axis: str, value: str) -> Any:
    match = re.fullmatch(r"(\w+)(?:\((.*)\))?", value)
    if not match:
        raise UserError(f"expected a choice like {next(iter(WORDS[axis]))!r} for {axis}, got {value!r}.")
    kind = _kind(axis, match[1])
    arguments: dict[str, Any] = {}
    for position, argument in enumerate(_split_arguments(match[2] or "")):
        name, equals, inner = argument.partition("=")
        # `deep(32)`, `avgdown(split(radix=2))`: an argument without a name is the next field
        if not equals or "(" in name:
            own = [field.name for field in fields(kind)]
            if position >= len(own):
                raise UserError(f"{match[1]} takes at most {len(own)} arguments; got {value!r}.")
            name, inner = own[position], argument
        if name in arguments:
            raise UserError(f"the argument {name!r} is given twice in {value!r}.")
        arguments[name] = inner
    return _build_choice(axis, match[1], arguments)


def _split_arguments(text: str) -> Iterator[str]:
    depth, start = 0, 0
    for i, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            yield text[start:i]
            start = i + 1
    if text[start:]:
        yield text[start:]


def _kind(axis: str, word: str) -> Any:
    if word not in WORDS[axis]:
        known = ", ".join(WORDS[axis])
        raise UserError(f"{axis} has no choice {word!r}; its choices are {known}.{suggest(word, WORDS[axis])}")
    return WORDS[axis][word]


def _build_choice(axis: str, word: str, arguments: Mapping[str, Any]) -> Any:
    kind = _kind(axis, word)
    own = {field.name: field for field in fields(kind)}
    values: dict[str, Any] = {}
    for name, value in arguments.items():
        if name not in own:
            known = ", ".join(own) or "no arguments"
            raise UserError(f"{axis}={word} has no argument {name!r}; it takes {known}.{suggest(name, own)}")
        values[name] = _coerce(axis, f"{axis}={word}: {name}", str(own[name].type), value)
    missing = [name for name, field in own.items() if field.default is MISSING and name not in values]
    if missing:
        raise UserError(f"{axis}={word} needs {', '.join(missing)}; write {word}({missing[0]}=...).")
    return kind(**values)


def _coerce(axis: str, where: str, kind: str, value: Any) -> Any:
    """`value` (text, or a JSON value) as a field of type `kind`."""
    if kind == AXES[axis].__name__:
        return _read_choice(axis, value) if isinstance(value, str) else _choice_from_json(axis, value)
    if kind == "bool":
        if isinstance(value, bool) or value in ("true", "false"):
            return value in (True, "true")
        raise UserError(f"{where} must be true or false; got {_short(value)}.")
    if kind == "int":
        try:
            number = int(value) if isinstance(value, str) else value
        except ValueError:
            number = None
        if type(number) is not int:
            raise UserError(f"{where} must be a whole number; got {_short(value)}.")
        return number
    return value


# ------------------------------------------------------------------------------------------------------ JSON


def spec_to_json(spec: Spec) -> dict[str, Any]:
    """All of a spec as plain JSON values, independent of the table of named models."""
    return {field.name: _to_json(field.name, getattr(spec, field.name)) for field in fields(Spec)}


def _to_json(axis: str, value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if axis not in WORDS:
        return value
    inner = {field.name: getattr(value, field.name) for field in fields(value)}
    return {"kind": _word(axis, value)} | {name: _to_json(_nested_axis(axis, v), v) for name, v in inner.items()}


def spec_from_json(data: Mapping[str, Any]) -> Spec:
    """The spec that `spec_to_json` wrote.

    Raises:
        UserError: a field or choice is unknown, or a value has the wrong type.
    """
    if not isinstance(data, Mapping) or "depths" not in data:
        raise UserError(f"expected a spec as a JSON object with depths; got {_short(data)}.")
    _check_nesting(data)
    names = [field.name for field in fields(Spec)]
    values: dict[str, Any] = {}
    for name, value in data.items():
        if name not in names:
            raise UserError(f"a Spec has no field {name!r}; its fields are {', '.join(names)}.{suggest(name, names)}")
        if name in WORDS:
            values[name] = _choice_from_json(name, value)
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
    return Spec(**values)


def _check_nesting(data: Mapping[str, Any]) -> None:
    level: list[Any] = [data]
    for _ in range(MAX_NESTING):
        level = [value for item in level if isinstance(item, Mapping) for value in item.values()]
    if any(isinstance(item, Mapping) for item in level):
        raise UserError(f"a spec has no more than {MAX_NESTING} objects inside each other.")


def _choice_from_json(axis: str, data: Any) -> Any:
    if not isinstance(data, Mapping) or not isinstance(data.get("kind"), str):
        raise UserError(f"expected {axis} as a JSON object with a kind; got {_short(data)}.")
    return _build_choice(axis, data["kind"], {name: value for name, value in data.items() if name != "kind"})
