"""KITTI's boxes (Geiger, Lenz, Urtasun 2012): image_2/*.png with label_2/*.txt, a line per object.

Of the fields of a line, divided by blanks, the first is the class, and the fifth to eighth are left, top, right and
bottom in pixels counted from 0. Regions called DontCare, in which nothing counts, are left out. An empty file is an
image without objects.
"""

from __future__ import annotations

from pathlib import Path

from resurge.data.formats.format import Format
from resurge.data.object_source import ObjectSource, counted_classes
from resurge.data.paths import read_lines
from resurge.data.records import Fault, RawObject, Record
from resurge.errors import UserError

IMAGES, LABELS, IGNORED = "image_2", "label_2", "DontCare"


class Kitti(Format):
    name = "kitti"
    annotations = ("boxes",)
    expected = f"KITTI: {IMAGES}/*.png with {LABELS}/*.txt"

    def recognise(self, path: Path) -> bool:
        return (path / IMAGES).is_dir() and (path / LABELS).is_dir()

    def read(self, path: Path) -> ObjectSource:
        files = sorted((path / LABELS).glob("*.txt"))
        if not files:
            raise UserError(f"{path / LABELS} has no .txt files. Put one per image there.")
        records = tuple(Record(f"{IMAGES}/{file.stem}.png", _objects(file), source=file) for file in files)
        parts = {"": records}
        return ObjectSource(
            format=self.name, root=path, classes=counted_classes(parts), parts=parts, how=f"the files in {LABELS}/"
        )


def _objects(file: Path) -> tuple[RawObject, ...]:
    lines = (line.split() for line in read_lines(file))
    return tuple(_object(fields, key) for key, fields in enumerate(lines) if fields[0] != IGNORED)


def _object(fields: list[str], key: int) -> RawObject:
    where = f"line {key + 1}"
    try:
        x1, y1, x2, y2 = map(float, fields[4:8])
    except ValueError:
        return RawObject(where, key, fields[0], fault=Fault("bad-object", "its corners are no numbers"))
    fault = Fault("empty-box", "the box has no area") if x2 <= x1 or y2 <= y1 else None
    return RawObject(where, key, fields[0], (x1, y1, x2, y2), fault=fault)


FORMAT = Kitti()
