"""Typed, ranged dataclass fields that are read from YAML and from `field=value`. No torch here.

A *section* is a frozen dataclass whose fields are made by :func:`option`. This file knows how to check a section, to
build one from plain data and to turn one into plain data; what the fields mean is in :mod:`resurge.recipe` and
:mod:`resurge.tasks.settings`.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

import yaml

from resurge.errors import UserError, suggest


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with its help line and limits: `low <= value <= high`, `above < value < below`."""
    limits = {"low": low, "high": high, "above": above, "below": below, "choices": choices}
    return dataclasses.field(default=default, metadata={"help": help, **limits})


def type_name(hint: Any) -> str:
    """How a message or the documentation calls a type: "number", "list of whole numbers", "text or null"."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if member is type(None) else type_name(member) for member in typing.get_args(hint))
    if origin is tuple:
        return f"list of {type_name(typing.get_args(hint)[0])}s"
    return {int: "whole number", float: "number", bool: "true/false", str: "text"}[hint]


class _Unfit(Exception):
    """The value is not of the type; turned into a UserError where the field's name is known."""


def coerce(value: Any, hint: Any) -> Any:
    """`value` as the type `hint`, or :class:`_Unfit`. YAML reads 1e-4 as text, so numbers are taken from text too."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if type(None) in arguments:
            if value is None or (isinstance(value, str) and value.lower() in ("none", "null")):
                return None
            arguments = tuple(member for member in arguments if member is not type(None))
        for member in arguments:
            try:
                return coerce(value, member)
            except _Unfit:
                continue
        raise _Unfit
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            value = [value]
        return tuple(coerce(item, arguments[0]) for item in value)
    if hint is bool:
        if isinstance(value, bool):
            return value
        raise _Unfit
    if hint is str:
        if isinstance(value, str):
            return value
        # an unquoted `null`, `no` or 50 where text belongs: YAML has already turned it into something else
        if isinstance(value, bool) or value is None:
            raise _Unfit
        return str(value)
    if isinstance(value, bool):
        raise _Unfit
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise _Unfit from None
    if not math.isfinite(number):
        raise _Unfit
    if hint is int:
        if number != int(number):
            raise _Unfit
        return int(number)
    return number


def _check_limits(name: str, value: Any, metadata: Mapping[str, Any]) -> None:
    if metadata["choices"] and value not in metadata["choices"]:
        raise UserError(
            f"{name} must be one of {', '.join(metadata['choices'])}, not {value!r}."
            + suggest(str(value), metadata["choices"])
        )
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            continue
        for key, words, fits in (
            ("low", "at least", lambda limit, number=number: number >= limit),
            ("high", "at most", lambda limit, number=number: number <= limit),
            ("above", "above", lambda limit, number=number: number > limit),
            ("below", "below", lambda limit, number=number: number < limit),
        ):
            if metadata[key] is not None and not fits(metadata[key]):
                raise UserError(f"{name} must be {words} {metadata[key]:g}, not {number:g}.")


def check(section: Any) -> None:
    """Check every option of a section; for `__post_init__`. Values are brought to their declared type.

    Raises:
        UserError: names the field, what it takes and what came.
    """
    hints = typing.get_type_hints(type(section))
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            continue
        try:
            value = coerce(value, hints[field.name])
        except _Unfit:
            raise UserError(f"{field.name} takes a {type_name(hints[field.name])}, not {value!r}.") from None
        object.__setattr__(section, field.name, value)
        if value is not None and field.metadata:
            _check_limits(field.name, value, field.metadata)


class Section:
    """What all sections share: their values are checked when they are made."""

    def __post_init__(self) -> None:
        check(self)


def to_plain(section: Any) -> dict[str, Any]:
    """Nested dictionaries and lists, ready for YAML or JSON."""
    plain = {}
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            value = to_plain(value)
        plain[field.name] = list(value) if isinstance(value, tuple) else value
    return plain


def paths(kind: Any) -> dict[str, str]:
    """Every name a field answers to -> its dotted path: both `lr` and `optimization.lr` give `optimization.lr`."""
    found = {}
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            for inner in dataclasses.fields(hints[field.name]):
                found[inner.name] = found[f"{field.name}.{inner.name}"] = f"{field.name}.{inner.name}"
        else:
            found[field.name] = field.name
    return found


def replaced(section: Any, changes: Mapping[str, Any], where: str) -> Any:
    """A copy of a section with `changes` (field name, dotted path or whole sub-section -> plain value).

    Raises:
        UserError: an unknown field (with the nearest real one), or a value that does not fit.
    """
    names = paths(type(section))
    sections = {
        field.name for field in dataclasses.fields(section) if dataclasses.is_dataclass(getattr(section, field.name))
    }
    flat: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        if key in sections:
            if not isinstance(value, Mapping):
                raise UserError(
                    f"{where}: {key} is a group of fields, so it takes `field: value` lines, not {value!r}."
                )
            inner = {f"{key}.{name}": part for name, part in value.items()}
        else:
            inner = {str(key): value}
        for name, part in inner.items():
            if name not in names:
                near = suggest(name, names) or suggest(name.rsplit(".", 1)[-1], names)
                raise UserError(f"{where}: there is no field {name!r}.{near}")
            group, _, leaf = names[name].rpartition(".")
            flat.setdefault(group, {})[leaf] = part
    try:
        top = flat.pop("", {})
        inner_sections = {
            group: dataclasses.replace(getattr(section, group), **fields) for group, fields in flat.items()
        }
        return dataclasses.replace(section, **top, **inner_sections)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def read_assignment(text: str) -> tuple[str, Any]:
    """`"lr=0.1"` -> `("lr", 0.1)`; the value is read as YAML, so lists are `[1, 2]` and nothing is `null`.

    Raises:
        UserError: there is no `=`, or the value is not YAML.
    """
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        raise UserError(f"a recipe field is set as field=value (for example lr=0.1), not {text!r}.")
    try:
        return name.strip(), yaml.safe_load(value) if value.strip() else None
    except yaml.YAMLError:
        # a spec's one-line text may hold characters that mean something to YAML; it is text all the same
        return name.strip(), value
