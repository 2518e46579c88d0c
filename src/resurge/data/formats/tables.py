"""CSV files that list image paths and labels."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from resurge.data.findings import Finding, finding
from resurge.data.formats.format import Format
from resurge.data.label_source import LabelSource
from resurge.data.paths import PART_OF, beginning, is_file, listed_name, read_file, text_of
from resurge.data.records import LabelRecord
from resurge.errors import UserError, suggest
from resurge.quantities import number_of
from resurge.untrusted import from_cell

PATH_COLUMNS = ("path", "paths", "file", "filename", "file_name", "image", "image_path", "filepath", "image_name",
                "image_file", "img", "img_path", "imageid", "image_id")  # fmt: skip
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "target", "category", "choice", "classname", "labelname")
SPLIT_COLUMNS = ("split", "set", "subset", "fold")

_CORNERS = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"), ("x_min", "y_min", "x_max", "y_max"),
            ("left", "top", "right", "bottom"))  # fmt: skip
_NO_CLASS = ("", "unnamed: 0", "id", "index", "width", "height")
_WHOLE = re.compile(r"-?\d{1,18}")
_WHOLE_FLOAT = re.compile(r"(-?\d{1,18})\.0*")
_MARKS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
_ONE_LABEL = (
    "several labels per image are not supported yet. Leave one for each image, or write a table for each label with "
    "yes or no"
)


@dataclass(frozen=True)
class Sheet:
    """A table in a file: the names of its columns as they stand and in lower case, its rows with the numbers of their
    lines, none empty, and what was noticed in reading."""

    file: Path
    names: list[str]
    rows: list[tuple[int, list[str]]]
    findings: list[Finding]

    @property
    def header(self) -> list[str]:
        return [name.lower() for name in self.names]

    def column(self, options: tuple[str, ...]) -> int | None:
        """The place of the first of these columns that is there."""
        return next((self.header.index(name) for name in options if name in self.header), None)

    def corners(self) -> tuple[int, ...] | None:
        """The places of the columns left, top, right and bottom of boxes, if there are such."""
        found = next((names for names in _CORNERS if all(name in self.header for name in names)), None)
        return None if found is None else tuple(map(self.header.index, found))

    def part(self, line: int, fields: list[str], at: int | None) -> str:
        """The part in the split column of a row; "" without one. Raises UserError for another word."""
        split = "" if at is None else fields[at].strip().lower()
        if at is not None and split not in PART_OF:
            raise UserError(f"{self.file}, line {line}: the split {split!r} is unknown; use train, val or test.")
        return PART_OF.get(split, "")


class Tables(Format):
    """CSV with a header that names a path and a label column, or a column of 0 and 1 for each class, and perhaps a
    split column. Separators are commas, semicolons or tabs. Paths are relative to the CSV's folder, or absolute."""

    name = "csv"
    annotations = ("labels",)
    expected = "a .csv file with the columns path and label, and perhaps split"

    def recognise(self, path: Path) -> bool:
        return path.suffix.lower() in (".csv", ".tsv")

    def read(self, path: Path) -> LabelSource:
        sheet = read_sheet(path)
        if corners := sheet.corners():
            named = ", ".join(sheet.names[at] for at in corners)
            raise UserError(f"{path} lists boxes ({named}), not one class per image.")
        parts: dict[str, list[LabelRecord]] = defaultdict(list)
        rows = _plain(sheet, list(_rows(sheet)))
        for part, record in rows:
            parts[part].append(record)
        everything = [record for _, record in rows]
        classes, names = (_class_names(records) for records in (parts.get("train", parts.get("", [])), everything))
        findings = sheet.findings
        if all(map(_WHOLE.fullmatch, names)) and any(name.startswith("-") for name in names):
            wrong = next(record for record in everything if record.label.startswith("-"))
            message = f"{path}, line {wrong.line}: the label {wrong.label} is out of range"
            stop = f"{message}. Labels are 0 or more, or names."
            findings.append(finding("bad-label", (wrong.name,), message, stop=stop))
        return LabelSource(
            format=self.name, root=path.parent, classes=classes,
            parts={part: tuple(rows) for part, rows in parts.items()},
            how=f"the lines of {path.name}" if "" in parts else f"the split column of {path.name}",
            findings=tuple(findings), title=path.stem, table=path, part_classes=dict.fromkeys(parts, names),
        )  # fmt: skip


def read_sheet(file: Path, names_of: Callable[[list[str]], list[str] | None] = lambda fields: None) -> Sheet:
    """The table in a CSV file in UTF-8 or UTF-16, or in Windows-1252, which is said. `names_of` gives names of the
    columns for a first row that has none. Raises UserError when it cannot be read, has no rows, or one is short."""
    data = read_file(file)
    try:
        text = text_of(data, "strict")  # a file's name need not be text; whatever else is not is complained of below
    except UnicodeDecodeError as error:
        raise _no_text(file) from error
    table, findings = _split(file, text), []
    strange = [field for _, fields in table for field in fields if _is_strange(field)]
    if strange and not any(is_file(file.parent / field.strip()) for field in strange):
        try:
            table = _split(file, data.decode("cp1252"))
        except UnicodeDecodeError as error:
            raise _no_text(file) from error
        message = f"{file.name} is no UTF-8; it was read as Windows-1252"
        findings.append(finding("encoding", (file.name,), message))
    named = names_of(table[0][1])
    names, rows = (named, table) if named else ([_text(name, file).strip() for name in table[0][1]], table[1:])
    rows = [(line, fields) for line, fields in rows if any(field.strip() for field in fields)]
    for line, fields in rows:
        if len(fields) < len(names):
            count = number_of(len(fields), "field")
            raise UserError(f"{file}, line {line}: {count}, but the header names {len(names)}. Complete the line.")
    if not rows:
        raise UserError(f"{file} has a header but no rows. Add one line per image.")
    return Sheet(file, names, rows, findings)


def first_line(file: Path, names_of: Callable[[list[str]], list[str] | None] = lambda fields: None) -> Sheet:
    """The names of the columns alone, without a word about what cannot be read."""
    data = beginning(file)
    text = text_of(data)
    fields = next(iter(_split(file, text)), (0, [""]))[1] if text.strip() else [""]
    return Sheet(file, names_of(fields) or [name.strip() for name in fields], [], [])


def _split(file: Path, text: str) -> list[tuple[int, list[str]]]:
    """The rows with the numbers of their lines."""
    if not text.strip():
        raise UserError(f"{file} is empty. Expected a header line such as path,label and one line per image.")
    # Old Macintoshes ended lines in a carriage return alone; elsewhere one may be part of a quoted name.
    rows_of = StringIO(text if "\n" in text else text.replace("\r", "\n"), newline="")
    separator = max(",;\t", key=rows_of.readline().count)
    rows_of.seek(0)
    reader = csv.reader(rows_of, delimiter=separator)
    try:
        return [(reader.line_num, fields) for fields in reader]
    except csv.Error as error:
        raise UserError(f"{file} is not a readable CSV table: line {reader.line_num}: {error}.") from error


def _rows(sheet: Sheet) -> Iterator[tuple[str, LabelRecord]]:
    file = sheet.file
    path_at = _required(sheet, PATH_COLUMNS)
    split_at = sheet.column(SPLIT_COLUMNS)
    if split_at is not None and sheet.header[split_at] == "fold":
        folds = sorted({fields[split_at].strip() for _, fields in sheet.rows})
        if all(map(_WHOLE.fullmatch, folds)):
            message = f"{file.name} numbers folds ({', '.join(folds[:5])}); they are not used"
            sheet.findings.append(finding("folds", (), message))
            split_at = None
    label_of = _labels(sheet, {path_at, split_at})
    first: dict[str, LabelRecord] = {}
    for line, fields in sheet.rows:
        path, label = _path(from_cell(fields[path_at]), file), label_of(line, fields)
        part = sheet.part(line, fields, split_at)
        if not path or not label:
            raise UserError(f"{file}, line {line}: the {'label' if path else 'path'} is empty. Fill it in.")
        record = LabelRecord(path, label, line)
        known = first.setdefault(os.path.normpath(listed_name(path)), record)
        if known is not record:
            there = f"{file}, line {line}: {path} stands already in line {known.line}"
            if known.label != label:
                raise UserError(f"{there}, with the label {known.label!r} instead of {label!r}; {_ONE_LABEL}.")
            raise UserError(f"{there}. Remove one.")
        yield part, record


def _labels(sheet: Sheet, others: set[int | None]) -> Callable[[int, list[str]], str]:
    """What gives the label of a row: the label column, or the one column of several that is 1."""
    at = sheet.column(LABEL_COLUMNS)
    if at is not None:
        return lambda line, fields: from_cell(_text(fields[at], sheet.file).strip())
    columns = [at for at, name in enumerate(sheet.header) if at not in others and name not in _NO_CLASS]
    if len(columns) < 2 or any(fields[at].strip().lower() not in _MARKS for _, fields in sheet.rows for at in columns):
        _required(sheet, LABEL_COLUMNS)
    sheet.findings.append(finding("one-hot", (), f"the columns of {sheet.file.name} mark the classes with 1"))

    def marked(line: int, fields: list[str]) -> str:
        found = [sheet.names[at] for at in columns if _MARKS[fields[at].strip().lower()]]
        if len(found) > 1:
            raise UserError(f"{sheet.file}, line {line}: it marks {' and '.join(found)}; {_ONE_LABEL}.")
        return found[0] if found else ""

    return marked


def _plain(sheet: Sheet, rows: list[tuple[str, LabelRecord]]) -> list[tuple[str, LabelRecord]]:
    """The rows with whole numbers for labels such as 1.0, which pandas writes. Raises UserError when a label is a list
    of labels."""
    counted = Counter(record.label for _, record in rows)
    several = next((record for _, record in rows if _is_list(record.label, counted)), None)
    if several is not None:
        raise UserError(f"{sheet.file}, line {several.line}: {several.label!r} are several labels; {_ONE_LABEL}.")
    numbers = {label: match.group(1) for label in counted if (match := _WHOLE_FLOAT.fullmatch(label))}
    if len(numbers) < len(counted):
        return rows
    message = (
        f"the labels of {sheet.file.name} are written with decimals: {rows[0][1].label} is {numbers[rows[0][1].label]}"
    )
    sheet.findings.append(finding("float-labels", (), message))
    return [(part, LabelRecord(record.name, numbers[record.label], record.line)) for part, record in rows]


def _is_list(label: str, counted: Counter[str]) -> bool:
    """Whether a label is a list of labels: in brackets, or with a separator between labels that occur elsewhere."""
    if (label[0], label[-1]) in (("[", "]"), ("{", "}")):
        return True
    for separator in "|;,":
        pieces = [piece.strip() for piece in label.split(separator)]
        if len(pieces) > 1 and all(pieces):
            if any(piece in counted for piece in pieces):
                return True
            others = {piece for other in counted if other != label for piece in other.split(separator)}
            if separator == "|" and any(piece in others for piece in pieces):
                return True
    return False


def _class_names(records: list[LabelRecord]) -> tuple[str, ...]:
    """The labels that occur, sorted: by value when all of them are whole numbers, else alphabetically."""
    names = {record.label for record in records}
    if all(_WHOLE.fullmatch(name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _required(sheet: Sheet, options: tuple[str, ...]) -> int:
    at = sheet.column(options)
    if at is not None:
        return at
    raise UserError(
        f"{sheet.file} has no column {options[0]!r}; its header is {', '.join(sheet.header)!r}."
        f"{suggest(options[0], sheet.header)} Expected a first line such as path,label or path,label,split."
    )


def _is_strange(field: str) -> bool:
    return not field.isprintable() and any("\udc80" <= char <= "\udcff" for char in field)


def _no_text(file: Path) -> UserError:
    return UserError(f"{file} is not a UTF-8 text file. Save the table as CSV in UTF-8.")


def _text(field: str, file: Path) -> str:
    if _is_strange(field):
        raise _no_text(file)
    return field


def _path(field: str, file: Path) -> str:
    """The path in a field; blanks about it go, unless they belong to the name of a file that is there."""
    bare = field.strip()
    return field if field != bare and bare and not is_file(file.parent / bare) else bare
