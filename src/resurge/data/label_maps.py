"""Label maps in files: an index for every pixel, and what each index means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from resurge.data.bundle import FileImages
from resurge.data.findings import Finding
from resurge.data.images import MAX_PIXELS, UnreadableImage
from resurge.data.index_images import read_indices
from resurge.data.records import present
from resurge.data.scenes import IGNORE, MaskSplit
from resurge.errors import UserError, suggest

UNKNOWN = -1
"""In a `meaning`: an index that the data set says nothing about."""


@dataclass(frozen=True)
class LabelFiles:
    """Masks in files below `root`. `meaning[v]` is the class of the value v, IGNORE, or UNKNOWN; values from
    len(meaning) on are unknown."""

    root: Path
    names: tuple[str, ...]
    meaning: tuple[int, ...]
    max_pixels: int = MAX_PIXELS

    def read(self, index: int) -> np.ndarray:
        """uint8 (H, W): class indices, and IGNORE.

        Raises:
            UnreadableImage: the file cannot be read as a mask, or has an index out of range.
        """
        path = self.path(index)
        values = read_indices(path, self.max_pixels)
        strange = unknown_values(np.bincount(values.reshape(-1)), self.meaning)
        if strange:
            message = (
                f"has the class index {strange[0]}, but the classes have {known_range(self.meaning)}. Correct the mask "
                "or add the class's name to classes.txt; `resurge check-data --fix` makes such pixels ignored."
            )
            raise UnreadableImage("corrupt", str(path), message)
        table = np.asarray(self.meaning, dtype=np.int16).astype(np.uint8)
        return table[values]

    def path(self, index: int) -> Path:
        return self.root / self.names[index]

    def select(self, indices: Sequence[int]) -> LabelFiles:
        return replace(self, names=tuple(self.names[i] for i in indices))


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


@dataclass(frozen=True)
class MaskRecord:
    """An image and its mask, as paths below the data folder; `mask` is None when none was found."""

    name: str
    mask: str | None


@dataclass(frozen=True)
class MaskSource:
    """A data set of images with label maps. Fields as in `records.ObjectSource`; `meaning` as in `LabelFiles`."""

    format: str
    root: Path
    classes: tuple[str, ...]
    parts: dict[str, tuple[MaskRecord, ...]]
    how: str
    meaning: tuple[int, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def name(self) -> str:
        return self.root.resolve().name


def to_mask_split(
    source: MaskSource, records: Sequence[MaskRecord], classes: Sequence[str], max_pixels: int = MAX_PIXELS
) -> tuple[MaskSplit, list[str]]:
    """The images of `records` that have a mask, labelled by index into `classes`, and notes on what was left out.

    Raises:
        UserError: none is left, or the source has a class that `classes` lacks.
    """
    meaning = source.meaning
    if tuple(classes) != source.classes:
        index = {name: i for i, name in enumerate(classes)}
        lacking = [name for name in source.classes if name not in index]
        if lacking:
            raise UserError(
                f"{source.name} has the class {lacking[0]!r}, which is not one of training's "
                f"({', '.join(list(index)[:6])}{', …' if len(index) > 6 else ''}).{suggest(lacking[0], index)} "
                "Give both the same classes.txt."
            )
        moved = [index[name] for name in source.classes]
        meaning = tuple(value if value in (UNKNOWN, IGNORE) else moved[value] for value in meaning)
    there = present(source.root, [name for record in records for name in (record.name, record.mask) if name])
    kept = [record for record in records if record.name in there and record.mask in there]
    if not kept:
        first = records[0] if records else None
        missing = "no image is listed" if first is None else f"the first image, {first.name}, or its mask is missing"
        raise UserError(f"{source.name} has no image with a mask ({missing}). Masks are named as their images are.")
    notes = []
    if len(kept) < len(records):
        gone = [record.name for record in records if record.name not in there]
        bare = [record.name for record in records if record.name in there and record.mask not in there]
        for left, what in ((gone, "not there"), (bare, "without a mask")):
            if left:
                subject = f"{len(left)} images are" if len(left) > 1 else "1 image is"
                notes.append(f"{subject} {what} and left out: {', '.join(left[:3])}{', …' if len(left) > 3 else ''}")
    names = tuple(record.name for record in kept)
    maps = LabelFiles(source.root, tuple(record.mask or "" for record in kept), meaning, max_pixels)
    return MaskSplit(names, FileImages(source.root, names, max_pixels), maps), notes
