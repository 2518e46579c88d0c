"""Data sets of images with label maps, and what the values in their files mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from resurge.data.annotations import Annotation
from resurge.data.fit import Fit
from resurge.data.images import UnreadableImage, read_indices
from resurge.data.map_fit import fitted
from resurge.data.paths import below, present
from resurge.data.reading import Reading
from resurge.data.records import MaskRecord
from resurge.data.source import Part, Source, left_out, moved_labels
from resurge.data.splits import IGNORE, FileImages, Files, MaskSplit
from resurge.errors import UserError

UNKNOWN = -1
"""In a `meaning`: a value that the data set says nothing about."""


@dataclass(frozen=True, kw_only=True)
class MaskSource(Source[MaskRecord]):
    """Images with label maps; `meaning` as in `LabelFiles`."""

    meaning: tuple[int, ...]

    def _move(self, record: MaskRecord, root: Path) -> MaskRecord:
        mask = None if record.mask is None else below(root, self.root / record.mask)
        return replace(record, name=below(root, self.root / record.name), mask=mask)

    def reviewed(self, reading: Reading) -> MaskSource:
        parts, findings = fitted(self.root, self.parts, reading.exif)
        return replace(self, parts=parts, findings=(*self.findings, *findings))

    def part(self, name: str, classes: Sequence[str], annotation: Annotation) -> Part:
        records, meaning = self.parts[name], self.meaning
        if tuple(classes) != self.classes:
            moved = moved_labels(self.name, self.classes, classes, "Give both the same classes.txt.")
            meaning = tuple(value if value in (UNKNOWN, IGNORE) else moved[value] for value in meaning)
        there = present(self.root, [name for record in records for name in (record.name, record.mask) if name])
        kept = [record for record in records if record.name in there and record.mask in there]
        if not kept:
            missing = f"the first image, {records[0].name}, or its mask is missing" if records else "no image is listed"
            raise UserError(f"{self.name} has no image with a mask ({missing}). Masks are named as their images are.")
        gone = [record.name for record in records if record.name not in there]
        bare = [record.name for record in records if record.name in there and record.mask not in there]
        notes = left_out(gone, "image is not there and", "images are not there and")
        notes += left_out(bare, "image is without a mask and", "images are without a mask and")
        names = tuple(record.name for record in kept)
        maps = LabelFiles(self.root, tuple(record.mask or "" for record in kept), meaning,
                          tuple(record.fit for record in kept))  # fmt: skip
        return MaskSplit(names, FileImages(self.root, names), maps), notes


@dataclass(frozen=True)
class LabelFiles(Files):
    """Masks in files. `meaning[v]` is the class of the value v, IGNORE, or UNKNOWN; values from len(meaning) on are
    unknown. `fits[i]` says how mask i lies in its image, None where pixel by pixel."""

    meaning: tuple[int, ...]
    fits: tuple[Fit | None, ...]

    def select(self, indices: Sequence[int]) -> LabelFiles:
        return replace(super().select(indices), fits=tuple(self.fits[i] for i in indices))

    def read(self, index: int) -> np.ndarray:
        """uint8 (H, W): class indices, and IGNORE. Raises UnreadableImage when the file cannot be read as a mask, or
        has an index out of range."""
        path = self.path(index)
        values = read_indices(path)
        fit = self.fits[index]
        values = values if fit is None else fit.array(values)
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
