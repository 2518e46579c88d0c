"""CSV files that list image paths and labels."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from resurge.data.bundle import FileImages, Split
from resurge.data.folders import TEST_NAMES, TRAIN_NAMES, VAL_NAMES
from resurge.data.images import MAX_PIXELS
from resurge.errors import UserError, suggest

PATH_COLUMNS = ("path", "paths", "file", "filename", "file_name", "image", "image_path", "filepath")
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "target", "category")
SPLIT_COLUMNS = ("split", "set", "subset", "fold")

_WHOLE = re.compile(r"-?\d{1,18}")
_SPLITS = {name: split for split, names in (("train", TRAIN_NAMES), ("val", VAL_NAMES), ("test", TEST_NAMES))
           for name in names}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the table; `split` is "train", "val", "test" or "" when the table does not say."""

    path: str
    label: str
    split: str
    line: int


def read_table(file: Path, *, check_files: bool = True) -> tuple[Row, ...]:
    """The rows of a CSV with a header that names a path and a label column, and perhaps a split column.

    Separators are commas, semicolons or tabs. Paths are relative to the CSV's folder, or absolute.

    Raises:
        UserError: the file cannot be read, a column is missing, a field is empty, a split has an unknown name, a
            path stands there twice, or, with `check_files`, a listed file does not exist; the message names the line.
    """
    try:
        # A file's name need not be text; whatever else is not is complained of below.
        text = file.read_bytes().decode("utf-8-sig", "surrogateescape")
    except FileNotFoundError as error:
        raise UserError(f"there is no file {file}. Check the path.") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{file} cannot be read: {reason}. Give a .csv file that you may read.") from error
    if not text.strip():
        raise UserError(f"{file} is empty. Expected a header line such as path,label and one line an image.")
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
    rows: list[Row] = []
    first_line: dict[str, int] = {}
    for line, fields in table[1:]:
        if not any(field.strip() for field in fields):
            continue
        if len(fields) < len(header):
            count = f"{len(fields)} field{'s' if len(fields) > 1 else ''}"
            raise UserError(f"{file}, line {line}: {count}, but the header names {len(header)}. Complete the line.")
        row = Row(_path(fields[path_at], file), _text(fields[label_at], file).strip(),
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
    if check_files:
        require_files(file, rows)
    return tuple(rows)


def require_files(file: Path, rows: Sequence[Row]) -> None:
    """Raises UserError when a file that the table `file` lists in `rows` does not exist; the message names the line."""
    missing = [row for row in rows if not _is_file(file.parent / row.path)]
    if missing:
        raise UserError(
            f"{file}, line {missing[0].line}: there is no file {file.parent / missing[0].path} "
            f"({len(missing)} of {len(rows)} listed files are missing). Paths are relative to the folder of the table."
        )


def class_names(file: Path, rows: tuple[Row, ...]) -> tuple[str, ...]:
    """The labels that occur, sorted: by value when all of them are whole numbers, else alphabetically.

    Raises:
        UserError: whole numbers are used as labels, and one is negative.
    """
    names = {row.label for row in rows}
    if all(_WHOLE.fullmatch(name) for name in names):
        for row in rows:
            if int(row.label) < 0:
                raise UserError(
                    f"{file}, line {row.line}: the label {row.label} is out of range. Labels are 0 or more, or names."
                )
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


def _split(text: str, file: Path, line: int) -> str:
    name = text.strip().lower()
    if name not in _SPLITS:
        raise UserError(f"{file}, line {line}: the split {text!r} is unknown; use train, val or test.")
    return _SPLITS[name]
