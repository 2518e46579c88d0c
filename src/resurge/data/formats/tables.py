"""CSV files that list image paths and labels."""

from __future__ import annotations

import csv
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

from resurge.data.findings import finding
from resurge.data.formats.format import Format
from resurge.data.label_source import LabelSource
from resurge.data.paths import PART_OF, read_file
from resurge.data.records import LabelRecord
from resurge.errors import UserError, suggest
from resurge.untrusted import from_cell

PATH_COLUMNS = ("path", "paths", "file", "filename", "file_name", "image", "image_path", "filepath")
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "target", "category")
SPLIT_COLUMNS = ("split", "set", "subset", "fold")

_WHOLE = re.compile(r"-?\d{1,18}")


class Tables(Format):
    """CSV with a header that names a path and a label column, and perhaps a split column. Separators are commas,
    semicolons or tabs. Paths are relative to the CSV's folder, or absolute."""

    name = "csv"
    annotations = ("labels",)
    expected = "a .csv file with the columns path and label, and perhaps split"

    def recognise(self, path: Path) -> bool:
        return path.suffix.lower() in (".csv", ".tsv")

    def read(self, path: Path) -> LabelSource:
        parts: dict[str, list[LabelRecord]] = defaultdict(list)
        for part, record in _rows(path):
            parts[part].append(record)
        everything = [record for records in parts.values() for record in records]
        classes, names = (_class_names(records) for records in (parts.get("train", parts.get("", [])), everything))
        findings = []
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


def _rows(file: Path) -> Iterator[tuple[str, LabelRecord]]:
    # A file's name need not be text; whatever else is not is complained of below.
    text = read_file(file).decode("utf-8-sig", "surrogateescape")
    if not text.strip():
        raise UserError(f"{file} is empty. Expected a header line such as path,label and one line per image.")
    # Old Macintoshes ended lines in a carriage return alone; elsewhere one may be part of a quoted name.
    rows_of = StringIO(text if "\n" in text else text.replace("\r", "\n"), newline="")
    separator = max(",;\t", key=rows_of.readline().count)
    rows_of.seek(0)
    reader = csv.reader(rows_of, delimiter=separator)
    try:
        table = [(reader.line_num, fields) for fields in reader]
    except csv.Error as error:
        raise UserError(f"{file} is not a readable CSV table: line {reader.line_num}: {error}.") from error
    header = [_text(name, file).strip().lower() for name in table[0][1]]
    path_at = _column(header, PATH_COLUMNS, file)
    label_at = _column(header, LABEL_COLUMNS, file)
    split_at = next((header.index(name) for name in SPLIT_COLUMNS if name in header), None)
    first_line: dict[str, int] = {}
    for line, fields in table[1:]:
        if not any(field.strip() for field in fields):
            continue
        if len(fields) < len(header):
            count = f"{len(fields)} field{'s' if len(fields) > 1 else ''}"
            raise UserError(f"{file}, line {line}: {count}, but the header names {len(header)}. Complete the line.")
        path = _path(from_cell(fields[path_at]), file)
        label = from_cell(_text(fields[label_at], file).strip())
        split = "" if split_at is None else fields[split_at].strip().lower()
        if split_at is not None and split not in PART_OF:
            raise UserError(f"{file}, line {line}: the split {split!r} is unknown; use train, val or test.")
        if not path or not label:
            raise UserError(f"{file}, line {line}: the {'label' if path else 'path'} is empty. Fill it in.")
        key = os.path.normpath(path)
        if key in first_line:
            raise UserError(f"{file}, line {line}: {path} stands already in line {first_line[key]}. Remove one.")
        first_line[key] = line
        yield PART_OF.get(split, ""), LabelRecord(path, label, line)
    if not first_line:
        raise UserError(f"{file} has a header but no rows. Add one line per image.")


def _class_names(records: list[LabelRecord]) -> tuple[str, ...]:
    """The labels that occur, sorted: by value when all of them are whole numbers, else alphabetically."""
    names = {record.label for record in records}
    if all(_WHOLE.fullmatch(name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _column(header: list[str], options: tuple[str, ...], file: Path) -> int:
    for name in options:
        if name in header:
            return header.index(name)
    near = suggest(options[0], header)
    raise UserError(
        f"{file} has no column {options[0]!r}; its header is {', '.join(header)!r}.{near} "
        "Expected a first line such as path,label or path,label,split."
    )


def _text(field: str, file: Path) -> str:
    if not field.isprintable() and any("\udc80" <= char <= "\udcff" for char in field):
        raise UserError(f"{file} is not a UTF-8 text file. Save the table as CSV in UTF-8.")
    return field


def _path(field: str, file: Path) -> str:
    """The path in a field; blanks about it go, unless they belong to the name of a file that is there."""
    bare = field.strip()
    return field if field != bare and bare and not _is_file(file.parent / bare) else bare


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or that no file can have
        return False
