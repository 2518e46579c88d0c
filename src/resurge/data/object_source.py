"""Data sets of images with objects: which of them training takes, and as what."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from resurge.data.annotations import Annotation
from resurge.data.findings import KINDS, some
from resurge.data.object_review import examine, learned, review
from resurge.data.paths import present
from resurge.data.reading import Reading
from resurge.data.records import RawObject, Record
from resurge.data.regions import Box, RunLengths
from resurge.data.source import Part, Source, left_out, unknown_class
from resurge.data.splits import FileImages, Objects, ObjectSplit
from resurge.errors import UserError
from resurge.quantities import number_of

OBJECT = "object"
"""The class of objects of which nothing more is known."""


@dataclass(frozen=True, kw_only=True)
class ObjectSource(Source[Record]):
    """Images with objects; `has_masks` says whether any has a mask, `way` what the numbers of a box are in the files
    (`conventions.WAYS`)."""

    has_masks: bool = False
    way: str = "corners"

    def reviewed(self, reading: Reading) -> ObjectSource:
        parts, findings = review(self.root, self.parts, self.way, reading.exif)
        return replace(self, parts=parts, findings=(*self.findings, *findings))

    def require_sound(self) -> None:
        super().require_sound()
        for record in self.records:
            for thing in record.objects:
                if thing.fault is not None and thing.fault.stops:
                    raise UserError(f"{record.source}, {thing.where}, {thing.fault.message}")

    def part(self, name: str, classes: Sequence[str], annotation: Annotation) -> Part:
        records, with_masks = self.parts[name], annotation == "masks"
        there = present(self.root, [record.name for record in records])
        kept = [record for record in records if record.name in there]
        if records and not kept:
            raise UserError(
                f"none of the {len(records)} images that {self.how} list is there; the first would be "
                f"{self.root / records[0].name}. Put the images there, or correct the paths."
            )
        dropped: dict[str, list[str]] = defaultdict(list)
        index = {name: i for i, name in enumerate(classes)}
        objects = tuple(_objects(record, index, with_masks, dropped) for record in kept)
        names = tuple(record.name for record in kept)
        known = {record.number for record in kept if record.number is not None}
        ids = tuple(record.number or 0 for record in kept) if len(known) == len(kept) else range(1, len(kept) + 1)
        gone = [record.name for record in records if record.name not in there]
        notes = []
        if gone:
            are = number_of(len(gone), "listed image is", "listed images are")
            notes.append(f"{are} not there: {some(gone, 3)}")
        for kind, where in dropped.items():
            notes += left_out(where, KINDS[kind]["left out"], KINDS[kind]["left out (many)"])
        return ObjectSplit(names, FileImages(self.root, names), objects, tuple(ids)), notes


def _objects(record: Record, index: dict[str, int], with_masks: bool, dropped: dict[str, list[str]]) -> Objects:
    kept: list[tuple[Box, RawObject]] = []
    for thing in record.objects:
        box, fault = examine(thing, record.size)
        if box is None and fault is not None:
            dropped[fault.kind].append(record.name)
        elif with_masks and thing.region is None:
            dropped["no-mask"].append(record.name)
        elif thing.label not in index:
            raise unknown_class(f"{record.name}, {thing.where}", thing.label, tuple(index))
        elif box is not None:
            kept.append((box, thing))
    return Objects(
        np.asarray([box for box, _ in kept], dtype=np.float32).reshape(-1, 4),
        np.asarray([index[thing.label] for _, thing in kept], dtype=np.int64),
        np.asarray([thing.crowd for _, thing in kept], dtype=bool),
        np.asarray([_area(thing, record.size) for _, thing in kept], dtype=np.float32),
        tuple(thing.region for _, thing in kept if thing.region) if with_masks else None,
        record.size,
    )


def _area(thing: RawObject, size: tuple[int, int] | None) -> float:
    if thing.area is not None:
        return thing.area
    if isinstance(thing.region, RunLengths):
        return thing.region.area()
    if thing.region is not None and size is not None:
        return thing.region.run_lengths(size[1], size[0]).area()
    x1, y1, x2, y2 = thing.box
    return (x2 - x1) * (y2 - y1)


def any_mask(parts: dict[str, tuple[Record, ...]]) -> bool:
    """Whether any object has a mask."""
    return any(thing.region is not None for found in parts.values() for record in found for thing in record.objects)


def counted_classes(parts: dict[str, tuple[Record, ...]]) -> tuple[str, ...]:
    """The classes that occur in training, or anywhere when nothing is called training, in alphabetical order."""
    things = (thing for record in learned(parts) for thing in record.objects)
    return tuple(sorted({thing.label for thing in things if thing.fault is None or thing.fault.kind == "empty-box"}))
