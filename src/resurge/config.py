"""Typed dataclass fields with limits, read from YAML, from `field=value` and from the command line. No torch here.

A *section* is a frozen dataclass whose fields are made by :func:`option`. This module checks sections, builds them from
plain data and turns them into plain data; what the fields mean is in :mod:`resurge.recipe` and in the settings of the
tasks.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import yaml

from resurge.errors import UserError, suggest
from resurge.untrusted import parse_yaml

MOST_PIXELS = 4096
"""On the side of what a network sees: a feature map of twice that would fill a machine's memory."""
LONGEST_SIDE = 4 * MOST_PIXELS
"""Of an image whose shorter side has `MOST_PIXELS` at most."""

TRUE, FALSE, NONE = ("true", "yes", "on"), ("false", "no", "off"), ("none", "null", "~")  # as YAML has them, and none


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """`low <= value <= high`, `above < value < below`; of a text, one of `choices`. For a list, each of its values."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()

    def problem(self, value: object) -> str | None:
        """What a value has to be and is not: "at least 1, not 0"; None when it is within the limits."""
        if self.choices and value not in self.choices:
            near = suggest(str(value), self.choices)
            return f"one of {', '.join(self.choices)}, not {value!r}" + (near and f".{near}")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                continue
            for limit, words, fits in (
                (self.low, "at least", operator.ge),
                (self.high, "at most", operator.le),
                (self.above, "above", operator.gt),
                (self.below, "below", operator.lt),
            ):
                if limit is not None and not fits(number, limit):
                    return f"{words} {limit:g}, not {number:g}"
        return None


def option(default: object, help: str, **limits: float | tuple[str, ...]) -> Any:  # typed by the field's annotation
    """A dataclass field with its help line and :class:`Limits`."""
    within = Limits(**limits)  # type: ignore[arg-type]
    return dataclasses.field(default=default, metadata={"help": help, "limits": within})


Hint = Any  # a type as an annotation: typing has no name for that which covers unions


def members(hint: Hint) -> tuple[Hint, ...]:
    """The types of a union, `NoneType` among them; any other type alone."""
    return typing.get_args(hint) if _origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _origin(hint: Hint) -> object:
    return typing.get_origin(hint)


def type_name(hint: Hint) -> str:
    """How a message calls a type: "number", "list of whole numbers", "text or null"."""
    if len(members(hint)) > 1:
        return " or ".join(map(type_name, members(hint)))
    if _origin(hint) is tuple:
        return f"list of {type_name(typing.get_args(hint)[0])}s"
    return {int: "whole number", float: "number", bool: "true/false", str: "text", type(None): "null"}[hint]


class Unfit(ValueError):
    """A value is not of the type that is wanted."""


def coerce(value: object, hint: Hint) -> object:
    """`value` as the type `hint`: a bool, int, float, str, tuple of one of these, None, or a union of them.

    Text is read as all of these: `1e-4` (which YAML takes for text), `true`, `none`, `1,2` or `[1, 2]`.

    Raises:
        Unfit: it cannot be.
    """
    if type(None) in members(hint) and (value is None or (isinstance(value, str) and value.lower() in NONE)):
        return None
    for member in members(hint):
        try:
            return _coerce_one(value, member)
        except Unfit:
            continue
    raise Unfit


def _coerce_one(value: object, kind: Hint) -> object:
    if _origin(kind) is tuple:
        if isinstance(value, str):
            inner = value.strip()
            # of texts, (other) is one with brackets of its own
            pairs = ("[]",) if typing.get_args(kind)[0] is str else ("[]", "()")
            inner = inner[1:-1].strip() if inner[:1] + inner[-1:] in pairs else inner
            value = inner.split(",") if inner else ()
        items = value if isinstance(value, (list, tuple)) else (value,)
        return tuple(coerce(item, typing.get_args(kind)[0]) for item in items)
    if kind is str:
        # an unquoted `null`, `no` or 50 where text belongs: YAML has already turned it into something else
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise Unfit
        return str(value)
    if kind is bool:
        if isinstance(value, str) and value.lower() in TRUE + FALSE:
            return value.lower() in TRUE
        if not isinstance(value, bool):
            raise Unfit
        return value
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or kind not in (int, float):
        raise Unfit
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise Unfit from None
    # a float beyond 2**53 is a whole number by rounding alone
    if not math.isfinite(number) or (kind is int and (number != int(number) or abs(number) > 2**53)):
        raise Unfit
    return kind(number)


class Section:
    """A frozen dataclass of options. Its values are brought to their declared type and checked when it is made.

    Raises:
        UserError: names the field, what it takes and what came.
    """

    __dataclass_fields__: typing.ClassVar[dict[str, dataclasses.Field[object]]]

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Section):
                continue
            try:
                value = coerce(value, hints[field.name])
            except Unfit:
                raise UserError(f"{field.name} takes a {type_name(hints[field.name])}, not {value!r}.") from None
            object.__setattr__(self, field.name, value)
            if value is not None and (problem := field.metadata["limits"].problem(value)):
                raise UserError(f"{field.name} must be {problem}" + ("" if problem.endswith("?") else "."))


class FieldInfo(NamedTuple):
    """A field of a section or of a section in it."""

    path: str
    hint: Hint
    default: object
    help: str


def fields(kind: type[Section], group: str = "") -> Iterator[FieldInfo]:
    """Every option of a section and of the sections in it, by dotted path."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        path, hint = f"{group}{field.name}", hints[field.name]
        if isinstance(hint, type) and issubclass(hint, Section):
            yield from fields(hint, f"{path}.")
        else:
            yield FieldInfo(path, hint, field.default, field.metadata["help"])


def paths(kind: type[Section]) -> dict[str, str]:
    """Every name a field answers to -> its dotted path: both `lr` and `optimization.lr` give `optimization.lr`."""
    return {name: path for path, *_ in fields(kind) for name in (path.rpartition(".")[2], path)}


def load_yaml(text: str, kind: type[Section]) -> object:
    """The content of YAML with fields of a section; names in lists stay as they are written: no, 010, 1e3. Raises
    ValueError as `parse_yaml`."""
    return _as_written(parse_yaml(text), parse_yaml(text, yaml.BaseLoader), _name_lists(kind))


def _name_lists(kind: type[Section]) -> set[str]:
    lists = {path for path, hint, *_ in fields(kind) if hint == tuple[str, ...]}
    return {name for name, path in paths(kind).items() if path in lists}


def _as_written(plain: object, text: object, names: set[str], at: str = "") -> object:
    if at in names and plain is not None:
        return text
    if isinstance(plain, Mapping) and isinstance(text, Mapping):
        return {
            key: _as_written(value, text.get(key), names, f"{at}.{key}".lstrip(".")) for key, value in plain.items()
        }
    return plain


def read(section: Section, path: str) -> object:
    """The value of a field by its dotted path."""
    return operator.attrgetter(path)(section)


def to_plain(section: Section) -> dict[str, object]:
    """Nested dictionaries and lists, ready for YAML or JSON."""

    def plain(pairs: list[tuple[str, object]]) -> dict[str, object]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in pairs}

    return dataclasses.asdict(section, dict_factory=plain)


S = TypeVar("S", bound=Section)


def replaced(section: S, changes: Mapping[str, object], where: str) -> S:
    """A copy of a section with `changes` (field name, dotted path or whole sub-section -> plain value).

    Raises:
        UserError: an unknown field (with the nearest real one), or a value that does not fit; begins with `where`.
    """
    names = paths(type(section))
    flat: dict[str, object] = {}
    for key, value in changes.items():
        if not isinstance(getattr(section, str(key), None), Section):
            flat[str(key)] = value
        elif isinstance(value, Mapping):
            flat |= {f"{key}.{name}": part for name, part in value.items()}
        else:
            raise UserError(f"{where}: {key} is a group of fields, so it takes `field: value` lines, not {value!r}.")
    groups: dict[str, dict[str, object]] = {"": {}}
    for name, value in flat.items():
        if name not in names:
            near = suggest(name, names) or suggest(name.rsplit(".", 1)[-1], names)
            raise UserError(f"{where}: there is no field {name!r}.{near}")
        group, _, leaf = names[name].rpartition(".")
        groups.setdefault(group, {})[leaf] = value
    try:
        top = groups.pop("")
        inner = {group: dataclasses.replace(getattr(section, group), **part) for group, part in groups.items()}
        return dataclasses.replace(section, **top, **inner)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def read_assignment(text: str, kind: type[Section]) -> tuple[str, object]:
    """`"lr=0.1"` -> `("lr", 0.1)`; the value is read as YAML, so lists are `[1, 2]` and nothing is `null`. Names
    in lists of the section `kind` stay as they are written.

    Raises:
        UserError: there is no `=`.
    """
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        raise UserError(f"a recipe field is set as field=value (for example lr=0.1), not {text!r}.")
    name = name.strip()
    try:
        plain = parse_yaml(value)
        if plain is not None and name in _name_lists(kind):
            plain = parse_yaml(value, yaml.BaseLoader)
        return name, plain
    except ValueError:
        # a spec's one-line text may hold characters that mean something to YAML; it is text all the same
        return name, value
