"""The names of classes: as the user lists them, and as the class files of annotation tools have them.

A plain list names the classes in the order of their indices (classes.txt, labelme's class_names.txt, obj.names). Other
files give a value with each name (Roboflow's _classes.csv, nnU-Net's dataset.json) or a colour (CVAT's labelmap.txt,
CamVid's label_colors.txt, class_dict.csv).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

from resurge.data.findings import some
from resurge.data.paths import read_file, read_lines, text_of
from resurge.data.splits import IGNORE
from resurge.errors import UserError, suggest
from resurge.untrusted import parse_json, parse_yaml

CLASS_FILES = (
    "classes.txt", "class_names.txt", "labelmap.txt", "_classes.csv", "class_dict.csv", "label_colors.txt",
    "dataset.json", "labels.txt", "label.txt", "label_names.txt", "codes.txt", "code.txt", "obj.names",
    "_darknet.labels",
)  # fmt: skip
"""Files that name classes; the first one that is there counts."""

_IGNORING = ("ignore", "__ignore__")
"""What stands for a class where a value or colour is not to be counted; the latter also opens labelme's lists."""

_LABELMAP = re.compile(r"(?P<name>[^:]+):(?:(?P<r>\d+),\s*(?P<g>\d+),\s*(?P<b>\d+))?(?::[^:]*){0,2}")
_COLOURED = (
    re.compile(r"(?P<r>\d+)[\s,]+(?P<g>\d+)[\s,]+(?P<b>\d+)[\s,]+(?P<name>\S.*)"),
    re.compile(r"(?P<name>\S.*?)[\s,]+(?P<r>\d+)[\s,]+(?P<g>\d+)[\s,]+(?P<b>\d+)"),
)
_NUMBERED = re.compile(r"(?P<value>\d+)(?:\s*[:=,]\s*|\s+)(?P<name>\S.*)")
_GIVEN = re.compile(r"\s*(?:(?P<value>\d+)|#(?P<hex>[0-9a-fA-F]{6}))\s*=\s*(?P<name>\S.*?)\s*")
_NAME_COLUMNS = ("name", "class", "class_name", "label", "label_name", "category")
_VALUE_COLUMNS = ("pixel value", "pixel_value", "value", "index", "id", "class_id", "label_id")


class Row(NamedTuple):
    """A class in a file. `value` is what masks have for it, `colour` red * 65536 + green * 256 + blue."""

    name: str
    value: int | None = None
    colour: int | None = None


@dataclass(frozen=True)
class ClassTable:
    """The names of classes, in the order of their indices, and where they come from. `values` and `colours` give the
    index (or IGNORE) of a value or colour in masks; None where the source says none."""

    names: tuple[str, ...]
    where: str
    values: Mapping[int, int] | None = None
    colours: Mapping[int, int] | None = None


def find_classes(folders: Iterable[Path]) -> ClassTable | None:
    """The table of the first class file in any of the folders; None when there is none. Raises UserError when it has a
    name twice or cannot be read."""
    places = (folder / name for folder in folders for name in CLASS_FILES)
    return next((table for place in places if place.is_file() and (table := read_classes(place))), None)


def read_classes(file: Path) -> ClassTable | None:
    """The table of a class file; None where a file of its name has other content."""
    if file.suffix in (".yaml", ".yml"):
        return ClassTable(yaml_names(file), str(file))
    kinds = {".csv": _csv_rows, ".json": _json_rows}
    rows = list(kinds.get(file.suffix, _text_rows)(file))
    return _table(rows, str(file)) if any(row.name not in _IGNORING for row in rows) else None


def given_classes(given: Sequence[str], where: str = "--classes") -> ClassTable | None:
    """The table that the user lists: names, names with values (128=crack) or colours (#20b7fa=crack), or one file; None
    for nothing. Raises UserError when an entry is of another form, or the file is none of classes."""
    words = [word.strip() for word in given if word.strip()]
    if not words:
        return None
    if len(words) == 1 and (Path(words[0]).is_file() or Path(words[0]).suffix in (".txt", ".csv", ".json", ".yaml")):
        table = read_classes(Path(words[0]).expanduser())
        if table is None:
            raise UserError(f"{words[0]}, given with {where}, names no classes. Expected one name per line.")
        return table
    found = [_GIVEN.fullmatch(word) for word in words]
    if not any(found):
        wrong = next((word for word in words if "=" in word), None)
        if wrong is not None:
            raise UserError(f"{where} takes names, value=name or #rrggbb=name (0=background,128=crack); got {wrong!r}.")
        return _table([Row(word) for word in words], where)
    rows = [_given_row(match) for match in found if match]
    if len(rows) < len(words) or len({row.value is None for row in rows}) > 1:
        raise UserError(
            f"{where} takes a value (or a colour) with every name or with none, for example 0=background,128=crack; "
            f"got {','.join(words)[:80]}."
        )
    return _table(rows, where, may_join=True)


def written_out(given: tuple[str, ...]) -> tuple[str, ...]:
    """What the user lists without the file that it may name, so that it still holds when the file is gone."""
    table = given_classes(given) if len(given) == 1 else None
    if table is None:
        return given
    coded = table.values or table.colours
    if coded is None:
        bare = not any("=" in name for name in table.names)
        return table.names if bare else tuple(f"{index}={name}" for index, name in enumerate(table.names))
    sign = "" if table.values else "#"
    return tuple(
        f"{value if not sign else f'#{value:06x}'}={'ignore' if index == IGNORE else table.names[index]}"
        for value, index in coded.items()
    )


def require_distinct(names: Sequence[str], where: object) -> None:
    """Raises UserError when a name is there twice; `where` says where they come from."""
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise UserError(
            f"{where} has {', '.join(map(repr, twice[:3]))} more than once among its {len(names)} class names. "
            "Expected different ones, in the order of their indices; --rename old=new joins two classes."
        )


def yaml_names(file: Path) -> tuple[str, ...]:
    """The `names` of a YOLO description, as they are written: `no`, `010` and `1e3` are names too. Raises UserError
    when they are no list, have gaps or a name twice, or are not as many as `nc` says."""
    try:
        document = parse_yaml(text_of(read_file(file)), yaml.BaseLoader)
    except ValueError as error:
        raise UserError(f"{file} is no readable YAML. Expected a list of names.") from error
    fields = document if isinstance(document, dict) else {}
    names, stated = fields.get("names"), fields.get("nc")
    if isinstance(names, dict):
        if sorted(names) != sorted(map(str, range(len(names)))):
            raise UserError(f"{file}: names must number the classes 0, 1, 2, … without gaps; it has {list(names)[:8]}.")
        names = [names[str(index)] for index in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{file}: names must be a list of class names, or numbers with a name each.")
    require_distinct(names, file)
    if stated and stated != str(len(names)):
        shown = ", ".join(names[:6])
        raise UserError(f"{file} says nc: {stated}, but names {len(names)} classes ({shown}). Correct one of the two.")
    return tuple(names)


def new_names(names: Sequence[str], renamed: Mapping[str, str], strict: bool = True) -> dict[str, str]:
    """What each class is called in the end. Raises UserError for a class to rename that is not there, unless not
    `strict`: other data of a training may lack it."""
    for old in renamed:
        if strict and old not in names:
            raise UserError(f"rename: there is no class {old!r}; there are {some(names, 6)}.{suggest(old, names)}")
    return {name: renamed.get(name, name) for name in names}


# ---------------------------------------------------------------------------------------------------------- the files


def _table(rows: Sequence[Row], where: str, may_join: bool = False) -> ClassTable:
    coded = any(row.value is not None or row.colour is not None for row in rows)
    ignored = {row for at, row in enumerate(rows) if row.name in (_IGNORING if coded else _IGNORING[1:])}
    names = [row.name for row in rows if row not in ignored]
    if may_join:
        names = list(dict.fromkeys(names))
    require_distinct(names, where)
    index = {name: at for at, name in enumerate(names)} | {row.name: IGNORE for row in ignored}
    values = {row.value: index[row.name] for row in rows if row.value is not None}
    colours = {row.colour: index[row.name] for row in rows if row.colour is not None}
    if len(values) < sum(row.value is not None for row in rows) or len(colours) < sum(
        row.colour is not None for row in rows
    ):
        raise UserError(f"{where} gives two classes the same value or colour. Expected one class for each.")
    return ClassTable(tuple(names), where, values or None, colours or None)


def _given_row(match: re.Match[str]) -> Row:
    value = match["value"]
    return Row(match["name"], int(value)) if value else Row(match["name"], colour=int(match["hex"], 16))


def _text_rows(file: Path) -> Iterator[Row]:
    lines = read_lines(file)
    plain = [line for line in lines if not line.startswith("#")]
    labelmap = [_LABELMAP.fullmatch(line) for line in plain]
    if plain and all(labelmap) and (len(plain) < len(lines) or any(match["r"] for match in labelmap if match)):
        return (_row(match) for match in labelmap if match)
    for pattern in (*_COLOURED, _NUMBERED):
        found = [match for line in plain if (match := pattern.fullmatch(line))]
        if len(found) == len(plain) > 1 and (pattern is not _NUMBERED or _counts_up(found)):
            return (_row(match) for match in found)
    return (Row(line) for line in lines)


def _counts_up(found: Sequence[re.Match[str]]) -> bool:
    """Whether lines are numbered, and not just have a number in front, such as "2 euro"."""
    numbers = [int(match["value"]) for match in found]
    return numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _row(match: re.Match[str]) -> Row:
    parts = match.groupdict()
    value = int(parts["value"]) if parts.get("value") else None
    return Row(parts["name"].strip(), value, _packed([parts[c] for c in "rgb"]) if parts.get("r") else None)


def _packed(channels: Sequence[str]) -> int:
    """A colour as one number. Raises UserError when a channel is no number from 0 to 255."""
    try:
        return int.from_bytes(bytes(map(int, channels)), "big")
    except ValueError as error:
        raise UserError(f"{', '.join(channels)} is no colour: expected three numbers from 0 to 255.") from error


def _csv_rows(file: Path) -> Iterator[Row]:
    lines = csv.reader(text_of(read_file(file)).splitlines(), skipinitialspace=True)
    rows = [[cell.strip() for cell in line] for line in lines if any(cell.strip() for cell in line)]
    header = [cell.lower() for cell in rows[0]] if rows else []
    at = {name: header.index(name) for name in (*_NAME_COLUMNS, *_VALUE_COLUMNS, "r", "g", "b") if name in header}
    name = next((at[column] for column in _NAME_COLUMNS if column in at), None)
    value = next((at[column] for column in _VALUE_COLUMNS if column in at), None)
    if name is None or "filename" in header:  # a table of images, not of classes
        return
    for row in rows[1:]:
        try:
            number = None if value is None else int(row[value])
            colour = _packed([row[at[c]] for c in "rgb"]) if "r" in at else None
            yield Row(row[name], number, colour)
        except (ValueError, IndexError, KeyError) as error:
            raise UserError(f"{file}: {row} is no class with its {header}. Correct the line.") from error


def _json_rows(file: Path) -> Iterator[Row]:
    try:
        document = parse_json(read_file(file))
    except ValueError:
        return
    labels = document.get("labels") if isinstance(document, dict) else None
    if isinstance(labels, dict):
        for one, other in labels.items():
            name, value = (other, one) if str(one).isdigit() and isinstance(other, str) else (one, other)
            if not str(value).isdigit():
                return  # regions of several values
            yield Row(str(name), int(str(value)))
    elif isinstance(labels, list) and all(isinstance(label, str) for label in labels):
        yield from map(Row, labels)
