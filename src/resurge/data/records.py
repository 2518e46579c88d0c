"""What the readers of annotations find, before anything is left out: one kind of `Source` for each kind of annotation.

Training is fed from `Source.part`, which leaves out what cannot be used and says so; `checks` reports the same records.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from resurge.data.annotations import Annotation
from resurge.data.findings import KINDS, Finding, number_of, some
from resurge.data.images import UnreadableImage, read_indices
from resurge.data.paths import below, present
from resurge.data.regions import Polygons, RunLengths
from resurge.data.splits import IGNORE, FileImages, Files, MaskSplit, Objects, ObjectSplit, Split
from resurge.errors import UserError, suggest

Box = tuple[float, float, float, float]
AnnotatedSplit = Split | ObjectSplit | MaskSplit
Part = tuple[AnnotatedSplit, list[str]]
"""A part of a data set, and notes on what was left out of it."""

BEYOND = 1.5
"""Pixels that a box may stand out of its image without a word: rounding, and VOC's counting from 1 taken for 0."""

UNKNOWN = -1
"""In a `meaning`: a value that the data set says nothing about."""


@dataclass(frozen=True)
class LabelRecord:
    """An image and its class; `line` is that of the table that names it, or 0."""

    name: str
    label: str
    line: int = 0


@dataclass(frozen=True)
class MaskRecord:
    """An image and its mask, as paths below the data folder; `mask` is None when none was found."""

    name: str
    mask: str | None


@dataclass(frozen=True)
class Fault:
    """Why an object cannot be used, or not as it stands: a kind of `checks`, and a sentence. Training refuses data with
    a fault that stops."""

    kind: str
    message: str
    stops: bool = False


@dataclass(frozen=True)
class RawObject:
    """One object as the annotations have it. `where` names it ("annotation 12", "object 3", "line 4"), `key` is its
    place in the file; `label` is its class; `box` (x1, y1, x2, y2) in pixels counted from 0, the right and lower edge
    excluded, not clipped; `fault` is what the reader found wrong with it."""

    where: str
    key: int
    label: str
    box: Box = (0.0, 0.0, 0.0, 0.0)
    crowd: bool = False
    region: Polygons | RunLengths | None = None
    area: float | None = None
    fault: Fault | None = None


@dataclass(frozen=True)
class Record:
    """One image with objects as the annotations have it. `name` is its path below the data folder (or absolute),
    `number` the id that COCO gave it, else None; `size` is (width, height), None when unknown; `source` is the
    annotation file, None where there is none, and `key` the image's place in it."""

    name: str
    objects: tuple[RawObject, ...]
    size: tuple[int, int] | None = None
    number: int | None = None
    source: Path | None = None
    key: int = 0


AnyRecord = TypeVar("AnyRecord", bound=LabelRecord | MaskRecord | Record)


@dataclass(frozen=True, kw_only=True)
class Source(ABC, Generic[AnyRecord]):
    """A data set as its annotations have it."""

    format: str  # the name of the format
    root: Path  # the folder that the names of images are relative to
    classes: tuple[str, ...]  # in the order of their indices
    parts: dict[str, tuple[AnyRecord, ...]]  # train, val and test, or "" for what is not split
    how: str  # where the parts come from
    findings: tuple[Finding, ...] = ()  # about annotation files, not about single images or objects
    unused: tuple[str, ...] = ()  # subfolders that training does not look at
    title: str = ""  # what the data set is called; the folder's name when empty

    @property
    def name(self) -> str:
        return self.title or self.root.resolve().name

    @property
    def sizes(self) -> dict[str, int]:
        """Number of images by part."""
        return {part: len(records) for part, records in self.parts.items()}

    @property
    def records(self) -> tuple[AnyRecord, ...]:
        """Those of all parts."""
        return tuple(record for records in self.parts.values() for record in records)

    @abstractmethod
    def part(self, name: str, classes: Sequence[str], annotation: Annotation) -> Part:
        """The images of a part with labels that are indices into `classes`. Raises UserError when there is a class that
        `classes` lacks, or no image is left."""

    def classes_of(self, part: str) -> tuple[str, ...]:
        """Class names of a part that is looked at by itself, without a trained network."""
        return self.classes

    def default_size(self, side: int | None) -> int:
        """Side of the network's input for images with this median of their shorter sides."""
        return min(side or 800, 800)  # shorter side, of Lin et al. 2017 (arXiv:1612.03144)

    def require_sound(self) -> None:
        """Raises UserError when training must refuse the data."""
        for finding in self.findings:
            if finding.stop:
                raise UserError(finding.stop)

    def validation(self: AnySource) -> AnySource:
        """The data set that only has the part "val": what it calls validation, or all of it."""
        return replace(self, parts={"val": self.parts.get("val") or self.records})

    def moved(self: AnySource, root: Path) -> AnySource:
        """The data set with names relative to another folder, or absolute where they are not below it."""
        parts = {part: tuple(self._move(each, root) for each in records) for part, records in self.parts.items()}
        return replace(self, root=root, parts=parts)

    def _move(self, record: AnyRecord, root: Path) -> AnyRecord:
        return replace(record, name=below(root, self.root / record.name))

    def joined(self: AnySource, other: Source[Any]) -> AnySource:
        """The data set with the parts of another of its kind, which has the same root."""
        return replace(self, parts=self.parts | other.parts, findings=(*self.findings, *other.findings))


AnySource = TypeVar("AnySource", bound="Source[Any]")


def unknown_class(where: str, label: str, classes: Sequence[str], remedy: str = "") -> UserError:
    """The error for a class that training does not have."""
    remedy = remedy or "Rename or remove it, or add training images of it."
    return UserError(
        f"{where}: the class {label!r} is not one of training's ({', '.join(classes[:6])}"
        f"{', …' if len(classes) > 6 else ''}).{suggest(label, classes)} {remedy}"
    )


def _moved_labels(where: str, labels: Sequence[str], classes: Sequence[str], remedy: str = "") -> list[int]:
    """The indices of `labels` in `classes`. Raises UserError when one is not there."""
    for label in labels:
        if label not in classes:
            raise unknown_class(where, label, classes, remedy)
    return [classes.index(label) for label in labels]


def _left_out(names: Sequence[str], one: str, many: str) -> list[str]:
    """A note on what was left out; none when there is nothing."""
    return [f"{number_of(len(names), one, many)} left out: {some(names, 3)}"] if names else []


@dataclass(frozen=True, kw_only=True)
class LabelSource(Source[LabelRecord]):
    """Images with one class each. `table` is the CSV file that lists them, None for folders; `part_classes` are the
    classes of each part, those without images included."""

    table: Path | None = None
    part_classes: dict[str, tuple[str, ...]]

    def classes_of(self, part: str) -> tuple[str, ...]:
        return self.part_classes[part]

    def default_size(self, side: int | None) -> int:
        return 224 if side is None or side >= 192 else max(32, side // 32 * 32)

    def validation(self) -> LabelSource:
        # A table that is named for validation counts with all its lines, whatever its split column says; and validation
        # may lack a class.
        found = super().validation() if self.table is None else replace(self, parts={"val": self.records})
        findings = tuple(replace(each, stop="") if each.kind == "empty-class" else each for each in self.findings)
        return replace(found, findings=findings)

    def whole(self) -> LabelSource:
        """The same with all images in the part ""."""
        names = tuple(dict.fromkeys(name for names in self.part_classes.values() for name in names))
        return replace(self, parts={"": self.records}, part_classes={"": names})

    def part(self, name: str, classes: Sequence[str], annotation: Annotation) -> Part:
        records = self.parts[name]
        index = {name: i for i, name in enumerate(classes)}
        if self.table is not None:
            _require_files(self.root, records, self.table)
        for record in records:
            if record.label not in index:
                where = record.name if self.table is None else f"{self.table}, line {record.line}"
                raise unknown_class(where, record.label, classes)
        if self.table is None:
            records = tuple(sorted(records, key=lambda record: index[record.label]))
        names = tuple(record.name for record in records)
        labels = tuple(index[record.label] for record in records)
        return Split(names, FileImages(self.root, names), labels), []


def _require_files(root: Path, records: Sequence[LabelRecord], table: Path) -> None:
    there = present(root, [record.name for record in records])
    missing = [record for record in records if record.name not in there]
    if missing:
        raise UserError(
            f"{table}, line {missing[0].line}: there is no file {root / missing[0].name} ({len(missing)} of "
            f"{len(records)} listed files are missing). Paths are relative to the folder of the table."
        )


@dataclass(frozen=True, kw_only=True)
class MemorySource(Source[LabelRecord]):
    """A data set in memory, whose files were checked when they were read. `side` is that of the network's input."""

    parts: dict[str, tuple[LabelRecord, ...]] = field(default_factory=dict)
    splits: Mapping[str, AnnotatedSplit]
    annotation: Annotation = "labels"
    side: int

    @property
    def sizes(self) -> dict[str, int]:
        return {name: len(split) for name, split in self.splits.items()}

    def default_size(self, side: int | None) -> int:
        return self.side

    def part(self, name: str, classes: Sequence[str], annotation: Annotation) -> Part:
        split = self.splits[name]
        if tuple(classes) == self.classes:
            return split, []
        if not isinstance(split, Split):
            raise UserError(f"the network was trained on {', '.join(classes[:6])}, …; {self.name!r} has other classes.")
        moved = _moved_labels(self.name, self.classes, classes)
        return replace(split, labels=tuple(moved[label] for label in split.labels)), []


@dataclass(frozen=True, kw_only=True)
class ObjectSource(Source[Record]):
    """Images with objects; `has_masks` says whether any has a mask."""

    has_masks: bool = False

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
            notes += _left_out(where, KINDS[kind]["left out"], KINDS[kind]["left out (many)"])
        return ObjectSplit(names, FileImages(self.root, names), objects, tuple(ids)), notes


def examine(thing: RawObject, size: tuple[int, int] | None) -> tuple[Box | None, Fault | None]:
    """The box to train with, inside the image, or None; and what is wrong with the object, or None."""
    if thing.fault is not None:
        return None, thing.fault
    x1, y1, x2, y2 = thing.box
    shown = f"{x1:g}, {y1:g} to {x2:g}, {y2:g}"
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


def counted_classes(parts: dict[str, tuple[Record, ...]]) -> tuple[str, ...]:
    """The classes that occur in training, or anywhere when nothing is called training, in alphabetical order."""
    wanted = {part: parts[part] for part in ("train", "") if part in parts} or parts
    things = (thing for records in wanted.values() for record in records for thing in record.objects)
    return tuple(sorted({thing.label for thing in things if thing.fault is None or thing.fault.kind == "empty-box"}))


@dataclass(frozen=True, kw_only=True)
class MaskSource(Source[MaskRecord]):
    """Images with label maps; `meaning` as in `LabelFiles`."""

    meaning: tuple[int, ...]

    def _move(self, record: MaskRecord, root: Path) -> MaskRecord:
        mask = None if record.mask is None else below(root, self.root / record.mask)
        return MaskRecord(below(root, self.root / record.name), mask)

    def part(self, name: str, classes: Sequence[str], annotation: Annotation) -> Part:
        records, meaning = self.parts[name], self.meaning
        if tuple(classes) != self.classes:
            moved = _moved_labels(self.name, self.classes, classes, "Give both the same classes.txt.")
            meaning = tuple(value if value in (UNKNOWN, IGNORE) else moved[value] for value in meaning)
        there = present(self.root, [name for record in records for name in (record.name, record.mask) if name])
        kept = [record for record in records if record.name in there and record.mask in there]
        if not kept:
            missing = f"the first image, {records[0].name}, or its mask is missing" if records else "no image is listed"
            raise UserError(f"{self.name} has no image with a mask ({missing}). Masks are named as their images are.")
        gone = [record.name for record in records if record.name not in there]
        bare = [record.name for record in records if record.name in there and record.mask not in there]
        notes = _left_out(gone, "image is not there and", "images are not there and")
        notes += _left_out(bare, "image is without a mask and", "images are without a mask and")
        names = tuple(record.name for record in kept)
        maps = LabelFiles(self.root, tuple(record.mask or "" for record in kept), meaning)
        return MaskSplit(names, FileImages(self.root, names), maps), notes


@dataclass(frozen=True)
class LabelFiles(Files):
    """Masks in files. `meaning[v]` is the class of the value v, IGNORE, or UNKNOWN; values from len(meaning) on are
    unknown."""

    meaning: tuple[int, ...]

    def read(self, index: int) -> np.ndarray:
        """uint8 (H, W): class indices, and IGNORE. Raises UnreadableImage when the file cannot be read as a mask, or
        has an index out of range."""
        path = self.path(index)
        values = read_indices(path)
        strange = unknown_values(np.bincount(values.reshape(-1)), self.meaning)
        if strange:
            message = (
                f"has the class index {strange[0]}, but the classes have {known_range(self.meaning)}. Correct the mask "
                "or add the class's name to classes.txt; `resurge check-data --fix` makes such pixels ignored."
            )
            raise UnreadableImage("corrupt", str(path), message)
        result: np.ndarray = np.asarray(self.meaning, dtype=np.int16).astype(np.uint8)[values]
        return result


def unknown_values(counts: np.ndarray, meaning: tuple[int, ...]) -> list[int]:
    """The values that mean nothing among those that occur, ascending; counts[v] is how often v does."""
    return [int(value) for value in np.flatnonzero(counts) if value >= len(meaning) or meaning[value] == UNKNOWN]


def known_range(meaning: tuple[int, ...]) -> str:
    """ "0 to 10 and 255 (ignored)": the values that mean something."""
    classes = [value for value, index in enumerate(meaning) if index not in (UNKNOWN, IGNORE)]
    ignored = [value for value, index in enumerate(meaning) if index == IGNORE]
    text = f"{classes[0]} to {classes[-1]}" if classes else "no value"
    return text + (f" and {', '.join(map(str, ignored))} (ignored)" if ignored else "")


def plain_meaning(num_classes: int, ignored: int = IGNORE) -> tuple[int, ...]:
    """Value v is class v, and `ignored` and 255 are not counted."""
    return tuple(IGNORE if value in (ignored, IGNORE) else value if value < num_classes else UNKNOWN
                 for value in range(256))  # fmt: skip
