"""CSV files that list image paths and labels."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

from resurge.data.bundle import FileImages, Split
from resurge.data.folders import TEST_NAMES, TRAIN_NAMES, VAL_NAMES
from resurge.data.images import MAX_PIXELS
from resurge.errors import UserError, suggest

PATH_COLUMNS = ("path", "paths", "file", "filename", "file_name", "image", "image_path", "filepath")
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "target", "category")
SPLIT_COLUMNS = ("split", "set", "subset", "fold")

_SPLITS = {name: split for split, names in (("train", TRAIN_NAMES), ("val", VAL_NAMES), ("test", TEST_NAMES))
           for name in names}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the table; `split` is "train", "val", "test" or "" when the table does not say."""

    path: str
    label: str
    split: str
    line: int


def read_table(file: Path) -> tuple[Row, ...]:
    """The rows of a CSV with a header that names a path and a label column, and perhaps a split column.

    Separators are commas, semicolons or tabs. Paths are relative to the CSV's folder, or absolute.

    Raises:
        UserError: the file cannot be read, a column is missing, a field is empty, a split has an unknown name, a
            path stands there twice, or a listed file does not exist; the message names the line.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"there is no file {file}. Check the path.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not a UTF-8 text file. Save the table as CSV in UTF-8.") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}. Change its permissions.") from error
    lines = text.splitlines()
    if not lines:
        raise UserError(f"{file} is empty. Expected a header line such as path,label and one line an image.")
    separator = max(",;\t", key=lines[0].count)
    try:
        table = list(csv.reader(lines, delimiter=separator))
    except csv.Error as error:
        raise UserError(f"{file} is not a readable CSV table: {error}.") from error
    header = [name.strip().lower() for name in table[0]]
    path_at = _column(header, PATH_COLUMNS, file)
    label_at = _column(header, LABEL_COLUMNS, file)
    split_at = next((header.index(name) for name in SPLIT_COLUMNS if name in header), None)
    rows: list[Row] = []
    first_line: dict[str, int] = {}
    for line, fields in enumerate(table[1:], start=2):
        if not any(field.strip() for field in fields):
            continue
        if len(fields) < len(header):
            raise UserError(f"{file}, line {line}: {len(fields)} fields, but the header names {len(header)}.")
        row = Row(fields[path_at].strip(), fields[label_at].strip(),
                  "" if split_at is None else _split(fields[split_at], file, line), line)  # fmt: skip
        if not row.path or not row.label:
            raise UserError(f"{file}, line {line}: the {'label' if row.path else 'path'} is empty. Fill it in.")
        key = os.path.normpath(row.path)
        if key in first_line:
            raise UserError(f"{file}, line {line}: {row.path} stands already in line {first_line[key]}. Remove one.")
        first_line[key] = line
        rows.append(row)
    if not rows:
        raise UserError(f"{file} has a header but no rows. Add one line an image.")
    missing = [row for row in rows if not (file.parent / row.path).is_file()]
    if missing:
        raise UserError(
            f"{file}, line {missing[0].line}: there is no file {file.parent / missing[0].path} "
            f"({len(missing)} of {len(rows)} listed files are missing). Paths are relative to the folder of the table."
        )
    return tuple(rows)


def class_names(rows: tuple[Row, ...]) -> tuple[str, ...]:
    """The labels that occur, sorted: by value when all of them are whole numbers, else alphabetically.

    Raises:
        UserError: whole numbers are used as labels, and one is negative.
    """
    names = {row.label for row in rows}
    if all(name.lstrip("-").isdecimal() for name in names):
        for row in rows:
            if int(row.label) < 0:
                raise UserError(f"line {row.line}: the label {row.label} is out of range. Labels are 0 or more.")
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def to_split(file: Path, rows: tuple[Row, ...], classes: tuple[str, ...], max_pixels: int = MAX_PIXELS) -> Split:
    """The images of `rows` with labels that are indices into `classes`.

    Raises:
        UserError: a label is none of `classes`; the message names the line.
    """
    index = {name: i for i, name in enumerate(classes)}
    for row in rows:
        if row.label not in index:
            raise UserError(
                f"{file}, line {row.line}: the label {row.label!r} does not occur in training "
                f"({', '.join(classes[:6])}{', …' if len(classes) > 6 else ''}).{suggest(row.label, classes)}"
            )
    names = tuple(row.path for row in rows)
    return Split(names, tuple(index[row.label] for row in rows), FileImages(file.parent, names, max_pixels))


def _column(header: list[str], options: tuple[str, ...], file: Path) -> int:
    for name in options:
        if name in header:
            return header.index(name)
    near = suggest(options[0], header)
    raise UserError(
        f"{file} has no column {options[0]!r}; its header is {', '.join(header)!r}.{near} "
        "Expected a first line such as path,label or path,label,split."
    )


def _split(text: str, file: Path, line: int) -> str:
    name = text.strip().lower()
    if name not in _SPLITS:
        raise UserError(f"{file}, line {line}: the split {text!r} is unknown; use train, val or test.")
    return _SPLITS[name]
