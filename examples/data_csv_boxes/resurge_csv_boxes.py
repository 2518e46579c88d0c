"""Boxes in a CSV file: a folder with `boxes.csv` of the columns image, x1, y1, x2, y2, label and perhaps split.

A line is one object: the path of its image below the folder, left, top, right and bottom in pixels counted from 0, the
right and lower edge excluded, and its class. A line without numbers and class names an image without objects.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

from resurge.data.formats.format import Format
from resurge.data.object_source import ObjectSource, counted_classes
from resurge.data.records import Fault, RawObject, Record
from resurge.errors import UserError

FILE = "boxes.csv"
CORNERS = ("x1", "y1", "x2", "y2")


class CsvBoxes(Format):
    name = "csv_boxes"
    annotations = ("boxes",)
    expected = f"a folder with {FILE}, a line per object"

    def recognise(self, path: Path) -> bool:
        return (path / FILE).is_file()

    def read(self, path: Path) -> ObjectSource:
        file = path / FILE
        objects: dict[str, dict[str, list[RawObject]]] = defaultdict(lambda: defaultdict(list))
        try:
            with file.open(encoding="utf-8", newline="") as lines:
                rows = csv.DictReader(lines)
                missing = [name for name in ("image", *CORNERS, "label") if name not in (rows.fieldnames or ())]
                if missing:
                    raise UserError(f"{file} lacks the columns {', '.join(missing)}. Add them to its first line.")
                for key, row in enumerate(rows):
                    found = objects[row.get("split") or ""][row["image"]]
                    if row["label"]:
                        found.append(_object(row, key, rows.line_num))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{file} cannot be read: {error}. Write it as CSV in UTF-8.") from error
        parts = {
            part: tuple(Record(name, tuple(found), source=file) for name, found in images.items())
            for part, images in objects.items()
        }
        how = f"the split column of {FILE}" if "" not in parts else f"the lines of {FILE}"
        return ObjectSource(format=self.name, root=path, classes=counted_classes(parts), parts=parts, how=how)


def _object(row: dict[str, str], key: int, line: int) -> RawObject:
    try:
        x1, y1, x2, y2 = (float(row[corner]) for corner in CORNERS)
    except (TypeError, ValueError):
        return RawObject(f"line {line}", key, row["label"], fault=Fault("bad-object", "its corners are no numbers"))
    fault = Fault("empty-box", "the box has no area") if x2 <= x1 or y2 <= y1 else None
    return RawObject(f"line {line}", key, row["label"], (x1, y1, x2, y2), fault=fault)


FORMAT = CsvBoxes()
