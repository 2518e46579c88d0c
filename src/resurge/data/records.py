"""What the readers of object data sets find in the annotations, before anything is left out.

Training is fed from `to_split`, which leaves out what cannot be used and says so; `checks` reports the same records.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resurge.data.bundle import FileImages
from resurge.data.findings import Finding
from resurge.data.images import MAX_PIXELS, UnreadableImage, read_header
from resurge.data.regions import Polygons, RunLengths
from resurge.data.scenes import Objects, ObjectSplit
from resurge.errors import UserError, suggest

Box = tuple[float, float, float, float]

BEYOND = 1.5
"""Pixels that a box may stand out of its image without a word: rounding, and VOC's counting from 1 taken for 0."""

_SHOWN = 3


@dataclass(frozen=True)
class Fault:
    """Why an object cannot be used, or not as it stands: a kind of `checks`, and a sentence."""

    kind: str
    message: str


@dataclass(frozen=True)
class RawObject:
    """One object as the annotations have it. `where` names it ("annotation 12", "object 3", "line 4"), `key` is its
    place in the file; `label` is its class; `box` (x1, y1, x2, y2) in pixels counted from 0, the right and lower edge
    excluded, not clipped; `fault` is what the reader found wrong with it."""

    where: str
    key: int
    label: str
    box: Box
    crowd: bool = False
    region: Polygons | RunLengths | None = None
    area: float | None = None
    fault: Fault | None = None


@dataclass(frozen=True)
class Record:
    """One image as the annotations have it. `name` is its path below the data folder (or absolute), `number` the id
    that COCO gave it, else None; `size` is (width, height), None when unknown; `source` is the annotation file, None
    where there is none, and `key` the image's place in it."""

    name: str
    objects: tuple[RawObject, ...]
    size: tuple[int, int] | None = None
    number: int | None = None
    source: Path | None = None
    key: int = 0


@dataclass(frozen=True)
class ObjectSource:
    """A data set of images with objects. `parts` maps train, val and test, or "" for what is not split, to images;
    `findings` are about annotation files, not about single objects; `how` says where the parts come from; `broken`
    are annotation files that could not be read (only when the reader was asked to go on)."""

    format: str
    root: Path
    classes: tuple[str, ...]
    parts: dict[str, tuple[Record, ...]]
    how: str
    findings: tuple[Finding, ...] = ()
    has_masks: bool = False
    broken: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        return self.root.resolve().name


def examine(thing: RawObject, size: tuple[int, int] | None) -> tuple[Box | None, Fault | None]:
    """The box to train with, inside the image, or None; and what is wrong with the object, or None."""
    if thing.fault is not None:
        return None, thing.fault
    x1, y1, x2, y2 = thing.box
    shown = f"{_number(x1)}, {_number(y1)} to {_number(x2)}, {_number(y2)}"
    if not all(math.isfinite(value) for value in thing.box):
        return None, Fault("bad-object", f"the box is no box ({shown})")
    if x2 <= x1 or y2 <= y1:
        return None, Fault("empty-box", f"the box has no area ({shown})")
    if size is None:
        return thing.box, None
    width, height = size
    clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        return None, Fault("box-outside", f"the box ({shown}) lies outside the image of {width} x {height}")
    if max(abs(a - b) for a, b in zip(clipped, thing.box, strict=True)) > BEYOND:
        return clipped, Fault("box-beyond", f"the box ({shown}) stands out of the image of {width} x {height}")
    return clipped, None


def _number(value: float) -> str:
    return f"{value:g}"


def to_split(
    source: ObjectSource, records: Sequence[Record], classes: Sequence[str], with_masks: bool,
    max_pixels: int = MAX_PIXELS,
) -> tuple[ObjectSplit, list[str]]:  # fmt: skip
    """The images of `records` with the objects that can be used, and notes on what was left out.

    Raises:
        UserError: an object's class is none of `classes`, or no listed image is there.
    """
    index = {name: i for i, name in enumerate(classes)}
    there = present(source.root, [record.name for record in records])
    kept = [record for record in records if record.name in there]
    if records and not kept:
        raise UserError(
            f"none of the {len(records)} images that {source.how} list is there; the first would be "
            f"{source.root / records[0].name}. Put the images there, or correct the paths."
        )
    dropped: dict[str, list[str]] = defaultdict(list)
    objects = tuple(_objects(record, index, with_masks, dropped) for record in kept)
    names = tuple(record.name for record in kept)
    numbers = [record.number for record in kept]
    known = [number for number in numbers if number is not None]
    unique = len(known) == len(numbers) == len(set(known))
    ids = tuple(known) if unique else tuple(range(1, len(kept) + 1))
    notes = []
    if len(kept) < len(records):
        gone = [record.name for record in records if record.name not in there]
        notes.append(f"{len(gone)} listed image{'s are' if len(gone) > 1 else ' is'} not there: {_some(gone)}")
    for kind, where in dropped.items():
        notes.append(f"{len(where)} {_WORDS[kind][len(where) > 1]} left out: {_some(where)}")
    return ObjectSplit(names, FileImages(source.root, names, max_pixels), objects, ids), notes


_WORDS = {
    "empty-box": ("box without area was", "boxes without area were"),
    "box-outside": ("box outside its image was", "boxes outside their images were"),
    "unknown-category": ("object of an unknown category was", "objects of unknown categories were"),
    "bad-object": ("damaged object was", "damaged objects were"),
    "no-mask": ("object without a mask was", "objects without a mask were"),
    "mask-size": ("mask of another size than its image was", "masks of another size than their images were"),
}


def _some(names: Sequence[str]) -> str:
    shown = list(dict.fromkeys(names))
    return f"{', '.join(shown[:_SHOWN])}{', …' if len(shown) > _SHOWN else ''}"


def _objects(record: Record, index: dict[str, int], with_masks: bool, dropped: dict[str, list[str]]) -> Objects:
    boxes, labels, crowd, areas, regions = [], [], [], [], []
    for thing in record.objects:
        box, fault = examine(thing, record.size)
        if box is None and fault is not None:
            dropped[fault.kind].append(record.name)
            continue
        if with_masks and thing.region is None:
            dropped["no-mask"].append(record.name)
            continue
        if thing.label not in index:
            raise UserError(
                f"{record.name}, {thing.where}: the class {thing.label!r} is not one of training's "
                f"({', '.join(list(index)[:6])}{', …' if len(index) > 6 else ''}).{suggest(thing.label, index)} "
                "Rename or remove it, or add training images of it."
            )
        boxes.append(box)
        labels.append(index[thing.label])
        crowd.append(thing.crowd)
        areas.append(_area(thing, record.size))
        regions.append(thing.region)
    if not boxes:
        return Objects.none(with_masks)
    return Objects(
        np.asarray(boxes, dtype=np.float32), np.asarray(labels, dtype=np.int64), np.asarray(crowd, dtype=bool),
        np.asarray(areas, dtype=np.float32), tuple(region for region in regions if region) if with_masks else None,
    )  # fmt: skip


def _area(thing: RawObject, size: tuple[int, int] | None) -> float:
    if thing.area is not None:
        return thing.area
    if isinstance(thing.region, RunLengths):
        return thing.region.area()
    if thing.region is not None and size is not None:
        return thing.region.run_lengths(size[1], size[0]).area()
    x1, y1, x2, y2 = thing.box
    return (x2 - x1) * (y2 - y1)


def present(root: Path, names: Iterable[str]) -> set[str]:
    """Those of `names` (below `root`, or absolute) that are files; each folder is listed once."""
    listed: dict[Path, set[str]] = {}
    found = set()
    for name in names:
        path = root / name
        folder = path.parent
        if folder not in listed:
            try:
                listed[folder] = {item.name for item in os.scandir(folder) if item.is_file()}
            except (OSError, ValueError):
                listed[folder] = set()
        if path.name in listed[folder]:
            found.add(name)
    return found


def below(root: Path, path: Path) -> str:
    """`path` as seen from `root`, with slashes; absolute when it lies elsewhere."""
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return path.absolute().as_posix()


def upright_size(path: Path) -> tuple[int, int] | None:
    """(width, height) of an image as it is read, upright; None when it cannot be read. Reads the beginning only."""
    try:
        with path.open("rb") as file:
            data = file.read(1 << 16)
            try:
                header = read_header(data, str(path))
            except UnreadableImage:
                header = read_header(data + file.read(), str(path))
    except (OSError, ValueError, UnreadableImage):
        return None
    width, height = header.size
    return (height, width) if header.orientation >= 5 else (width, height)


def counted_classes(parts: dict[str, tuple[Record, ...]]) -> tuple[str, ...]:
    """The classes that occur in training, or anywhere when nothing is called training, in alphabetical order."""
    wanted = {part: parts[part] for part in ("train", "") if part in parts} or parts
    things = (thing for records in wanted.values() for record in records for thing in record.objects)
    return tuple(sorted({thing.label for thing in things if thing.fault is None or thing.fault.kind == "empty-box"}))
