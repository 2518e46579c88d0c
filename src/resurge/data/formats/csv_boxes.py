"""CSV files of boxes: one line per object, with the path of its image, its class and the corners of its box.

Corners are pixels counted from 0, the right and lower edge excluded, or shares of the image's width and height, as Open
Images has them (Kuznetsova et al. 2020, arXiv:1811.00982). A line without a class and corners names an image without
objects. RetinaNet's tables (path, x1, y1, x2, y2, class) have no header.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from resurge.data.findings import Finding, finding, other_names
from resurge.data.fit import Size, size_of
from resurge.data.formats.format import Format
from resurge.data.formats.tables import LABEL_COLUMNS, PATH_COLUMNS, SPLIT_COLUMNS, Sheet, first_line, read_sheet
from resurge.data.images import ending, is_image_name
from resurge.data.mending import Mending
from resurge.data.object_source import ObjectSource, counted_classes
from resurge.data.paths import (
    PARTS,
    below,
    find_images,
    folder_of,
    found_names,
    listed_name,
    one_for_each_part,
    read_file,
    text_of,
    usual_folder,
)
from resurge.data.pictures import read_headers
from resurge.data.records import Fault, RawObject, Record
from resurge.errors import UserError

_RETINANET = ["path", "x1", "y1", "x2", "y2", "class"]
_CLASS_NAMES = "class-descriptions*.csv"


class CsvBoxes(Format):
    """A CSV file of boxes, or a folder with one, or with one per part: in its folder, or named after it."""

    name = "csv_boxes"
    annotations = ("boxes",)
    expected = "a .csv file of boxes: filename,xmin,ymin,xmax,ymax,class, and perhaps split, a line per object"

    def recognise(self, path: Path) -> bool:
        return bool(_tables(path))

    def read(self, path: Path) -> ObjectSource:
        root = path if path.is_dir() else path.parent
        tables = _tables(path)
        findings: list[Finding] = []
        parts: dict[str, tuple[Record, ...]] = {}
        for part, file in tables.items():
            sheet = read_sheet(file, _names_of)
            findings += sheet.findings
            for name, records in _records(sheet, root, part, findings).items():
                parts[name] = (*parts.get(name, ()), *records)
        files = " and ".join(file.name for file in tables.values())
        how = f"the {'split column' if '' in tables and '' not in parts else 'lines'} of {files}"
        return ObjectSource(
            format=self.name, root=root, classes=counted_classes(parts), parts=parts, how=how, findings=tuple(findings)
        )

    def write(self, mending: Mending) -> None:
        """Write the tables again without what cannot be used, with boxes cut and sizes corrected."""
        for file, records in mending.by_file().items():
            text = _mended(mending, read_sheet(file, _names_of), records)
            mending.file(mending.inside(file)).write_text(text, encoding="utf-8", newline="")
            for names in file.parent.glob(_CLASS_NAMES):
                mending.file(mending.inside(names)).write_bytes(read_file(names))


def _tables(path: Path) -> dict[str, Path]:
    """The tables of boxes by part; {} when there are none."""
    if not path.is_dir():
        return {"": path} if path.is_file() and path.suffix.lower() in (".csv", ".tsv") and _has_boxes(path) else {}
    found = one_for_each_part(filter(_has_boxes, sorted(path.glob("*.[ct]sv"))), "tables of boxes")
    for part, names in PARTS.items() if not found else ():
        inside = folder_of(path, (names,))
        table = next(filter(_has_boxes, sorted((path / inside).glob("*.[ct]sv"))), None) if inside else None
        if table is not None:
            found[part] = table
    return found


def _has_boxes(file: Path) -> bool:
    """Whether the first line of a table is that of a table of boxes."""
    try:
        sheet = first_line(file, _names_of)
    except UserError:
        return False
    return sheet.corners() is not None and sheet.column(PATH_COLUMNS) is not None


def _names_of(first: list[str]) -> list[str] | None:
    """The columns of RetinaNet's tables, by their first row."""
    if len(first) != len(_RETINANET) or not is_image_name(listed_name(first[0]).rsplit("/", 1)[-1]):
        return None
    corners = first[1:5]
    return _RETINANET if not any(corners) or all(map(_is_number, corners)) else None


def _is_number(text: str) -> bool:
    try:
        return bool(text.strip()) and float(text) < float("inf")
    except ValueError:
        return False


def _records(sheet: Sheet, root: Path, part: str, findings: list[Finding]) -> dict[str, list[Record]]:
    """The images of a table by part, in the order in which they come."""
    path_at, label_at, split_at, corners = _columns(sheet, part)
    listed = [fields[path_at].strip() for _, fields in sheet.rows]
    names = _files(sheet.file, root, part, listed, findings)
    stated = {name: _stated(sheet, fields) for name, (_, fields) in reversed(list(zip(names, sheet.rows, strict=True)))}
    labels = _class_descriptions(sheet.file)
    group_at = sheet.column(("isgroupof", "iscrowd"))
    shares = _are_shares(sheet, corners)
    sizes = {name: header.upright_size for name, header in read_headers(root, names).items()} if shares else {}
    if shares:
        findings.append(finding("shares", (), f"the boxes of {sheet.file.name} are shares of their images"))
    objects: dict[tuple[str, str], list[RawObject]] = defaultdict(list)
    keys: dict[tuple[str, str], int] = {}
    for key, (name, (line, fields)) in enumerate(zip(names, sheet.rows, strict=True)):
        at = (part or sheet.part(line, fields, split_at), name)
        keys.setdefault(at, key)
        texts = [fields[corner].strip() for corner in corners]
        label = "" if label_at is None else fields[label_at].strip()
        if label or any(texts):
            crowd = group_at is not None and fields[group_at].strip() == "1"
            scale = sizes.get(name) if shares else (1, 1)
            objects[at].append(_object(f"line {line}", key, labels.get(label, label), texts, scale, crowd))
    found: dict[str, list[Record]] = defaultdict(list)
    for (where, name), key in keys.items():
        size = None if shares else stated[name]
        found[where].append(Record(name, tuple(objects[where, name]), size, None, sheet.file, key, shares=shares))
    return found


def _columns(sheet: Sheet, part: str) -> tuple[int, int, int | None, tuple[int, ...]]:
    """The places of the path, the label, the split and the four corners."""
    path_at, label_at, corners = sheet.column(PATH_COLUMNS), sheet.column((*LABEL_COLUMNS, "name")), sheet.corners()
    if path_at is None or label_at is None or corners is None:
        raise UserError(
            f"{sheet.file} names no class for its boxes; its header is {', '.join(sheet.names)!r}. Expected a first "
            "line such as filename,xmin,ymin,xmax,ymax,class."
        )
    return path_at, label_at, None if part else sheet.column(SPLIT_COLUMNS), corners


def _files(file: Path, root: Path, part: str, listed: Sequence[str], findings: list[Finding]) -> list[str]:
    """The image of each row below `root`: as it is listed, in the first of the usual folders that has it, or else by
    the ending of its path; Open Images leaves the ending of the name away."""
    base = usual_folder(root, file.parent, part, [*listed, *map(listed_name, listed)]) or file.parent
    names = {name: below(root, base / name) for name in dict.fromkeys(listed)}
    if not any(ending(name) for name in names):
        by_stem = {Path(name).stem: name for name in reversed(find_images(root, "")[0])}
        names = {name: by_stem.get(name, full) for name, full in names.items()}
    others = found_names(root, names.values())
    findings += other_names(others)
    return [others.get(names[name], names[name]) for name in listed]


def _stated(sheet: Sheet, fields: list[str]) -> Size | None:
    """(width, height) of the image of a row, where the table has it."""
    at = (sheet.column((name,)) for name in ("width", "height"))
    return size_of(*("" if column is None else fields[column] for column in at))


def _class_descriptions(file: Path) -> dict[str, str]:
    """Names by label, as Open Images has them in a file of their own."""
    table = next(iter(sorted(file.parent.glob(_CLASS_NAMES))), None)
    rows = csv.reader(StringIO(text_of(read_file(table)))) if table else ()
    return {fields[0]: fields[1] for fields in rows if len(fields) > 1}


def _are_shares(sheet: Sheet, corners: tuple[int, ...]) -> bool:
    """Whether corners are shares: no number is above 1, and most are not whole."""
    texts = [fields[at] for _, fields in sheet.rows for at in corners]
    values = [float(text) for text in texts if _is_number(text)]
    return bool(values) and max(values) <= 1 and sum(value not in (0, 1) for value in values) * 2 > len(values)


def _object(
    where: str, key: int, label: str, texts: list[str], scale: tuple[int, int] | None, crowd: bool
) -> RawObject:
    """An object with its corners multiplied by (width, height), None when the image cannot be read."""
    if not all(map(_is_number, texts)):
        return RawObject(where, key, label, fault=Fault("bad-object", "its corners are no numbers"))
    if scale is None:
        return RawObject(where, key, label, fault=Fault("bad-object", "its image cannot be read"))
    (x1, y1, x2, y2), (width, height) = map(float, texts), scale
    fault = Fault("unknown-category", "it has no class") if not label else None
    if x2 <= x1 or y2 <= y1:
        fault = Fault("empty-box", f"the box has no area ({', '.join(texts)})")
    return RawObject(where, key, label, (x1 * width, y1 * height, x2 * width, y2 * height), crowd, fault=fault)


def _mended(mending: Mending, sheet: Sheet, records: list[tuple[str, Record]]) -> str:
    """The text of a mended table."""
    corners = sheet.corners() or ()
    sides = [sheet.column((name,)) for name in ("width", "height")]
    shares = _are_shares(sheet, corners)
    name = mending.inside(sheet.file)
    counted = mending.changes[name]
    rows: dict[int, list[str]] = {}
    for part, record in records:
        if not mending.keeps(record, part, counted, listed=True):
            continue
        size = mending.data.size(record.name)
        stated = next((s for s in (_stated(sheet, sheet.rows[thing.key][1]) for thing in record.objects) if s), size)
        if stated != size:
            counted["image size(s) corrected"] += 1
        if not record.objects:
            rows[record.key] = sheet.rows[record.key][1]
        for thing in record.objects:
            box = mending.box(thing, size, counted)
            if box is None or size is None:
                continue
            fields = list(sheet.rows[thing.key][1])
            if box != thing.box or thing.changed:
                values = [value / side for value, side in zip(box, size * 2, strict=True)] if shares else box
                for at, value in zip(corners, values, strict=True):
                    fields[at] = f"{value:.6g}"
            for column, side in zip(sides, size, strict=True):
                if column is not None:
                    fields[column] = str(side)
            rows[thing.key] = fields
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if sheet.names is not _RETINANET:  # which has no header
        writer.writerow(sheet.names)
    writer.writerows(rows[key] for key in sorted(rows))
    return text.getvalue()
