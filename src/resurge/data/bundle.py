"""What every data source turns into: splits of labelled images, lazily decoded, with how they were made."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from resurge.data.images import MAX_PIXELS, open_image
from resurge.data.seeding import mix
from resurge.errors import UserError
from resurge.files import atomic_write_bytes


class Images(Protocol):
    """Where the pixels of a split are. Implementations are small values that travel to loader processes."""

    def read(self, index: int, draft_size: int | None = None) -> Image.Image: ...
    def path(self, index: int) -> Path | None: ...
    def select(self, indices: Sequence[int]) -> Images: ...


@dataclass(frozen=True)
class FileImages:
    """Image files. `names` are relative to `root`, or absolute; decoded when read."""

    root: Path
    names: tuple[str, ...]
    max_pixels: int = MAX_PIXELS

    def read(self, index: int, draft_size: int | None = None) -> Image.Image:
        return open_image(self.path(index), max_pixels=self.max_pixels, draft_size=draft_size)

    def path(self, index: int) -> Path:
        return self.root / self.names[index]

    def select(self, indices: Sequence[int]) -> FileImages:
        return replace(self, names=tuple(self.names[i] for i in indices))


@dataclass(frozen=True)
class ArrayImages:
    """Images in memory: uint8, (N, H, W) grey or (N, H, W, 3) RGB."""

    pixels: np.ndarray

    def read(self, index: int, draft_size: int | None = None) -> Image.Image:
        return Image.fromarray(self.pixels[index])

    def path(self, index: int) -> Path | None:
        return None

    def select(self, indices: Sequence[int]) -> ArrayImages:
        return ArrayImages(self.pixels[np.asarray(indices, dtype=np.int64)])


@dataclass(frozen=True)
class Split:
    """Labelled images. `ids[i]` names image i for good (for files: the path below the data folder), `labels[i]` is
    its class index; `read(i)` decodes it to a PIL image of mode "L" or "RGB"."""

    ids: tuple[str, ...]
    labels: tuple[int, ...]
    images: Images

    def __len__(self) -> int:
        return len(self.ids)

    def id(self, index: int) -> str:
        return self.ids[index]

    def path(self, index: int) -> Path | None:
        """The file of image `index`, or None for images that are in no file of their own."""
        return self.images.path(index)

    def read(self, index: int, draft_size: int | None = None) -> Image.Image:
        """Image `index`, upright, mode "L" or "RGB". `draft_size`: see `images.open_image`; only for training.

        Raises:
            UnreadableImage: the file cannot be read or decoded.
        """
        return self.images.read(index, draft_size)

    def select(self, indices: Sequence[int]) -> Split:
        """The split that has only these images, in this order."""
        indices = [int(i) for i in indices]
        ids, labels = tuple(self.ids[i] for i in indices), tuple(self.labels[i] for i in indices)
        return Split(ids, labels, self.images.select(indices))

    def counts(self, num_classes: int) -> tuple[int, ...]:
        """Number of images a class."""
        counted = Counter(self.labels)
        return tuple(counted[label] for label in range(num_classes))


@dataclass(frozen=True)
class DataBundle:
    """A data set ready for training. `how` says in one sentence how the splits were made; `notes` what the user
    should know about (ignored files, classes without validation images); `in_channels` is 1 when the images are grey;
    `default_size` is a sensible side of the network's input in pixels."""

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split | None
    in_channels: int
    default_size: int
    how: str
    seed: int
    notes: tuple[str, ...] = field(default=())

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def splits(self) -> dict[str, Split]:
        """The splits there are, by name: train, val, and test where there is one."""
        splits = {"train": self.train, "val": self.val}
        return splits if self.test is None else splits | {"test": self.test}

    def to_json(self) -> dict[str, object]:
        """What a run directory keeps: name, classes, sizes of the splits, seed, how they were made, notes."""
        sizes = {name: len(split) for name, split in self.splits().items()}
        return {
            "name": self.name, "classes": list(self.classes), "sizes": sizes, "seed": self.seed,
            "how": self.how, "notes": list(self.notes), "in_channels": self.in_channels,
        }  # fmt: skip


def write_split(bundle: DataBundle, path: str | Path) -> None:
    """Write which image is in which split, as CSV with the columns path, label, split.

    Images in files stand with their absolute path, so `open_data` reads the same splits back from the CSV; images in
    memory stand with their id.
    """
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "split"))
    for name, split in bundle.splits().items():
        for index, label in enumerate(split.labels):
            file = split.path(index)
            where = split.ids[index] if file is None else str(file.absolute())
            writer.writerow((where, bundle.classes[label], name))
    atomic_write_bytes(path, text.getvalue().encode("utf-8", "surrogateescape"))  # a file's name may be no text


def stratified(labels: Sequence[int], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices (kept, held out): from each class `fraction` of its images, at random, is held out.

    Of every class with two images or more at least one is held out and at least one kept; a class with a single image
    keeps it. Both lists ascend. A pure function of its arguments.

    Raises:
        UserError: the fraction is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise UserError(f"the validation fraction is {fraction}; it must lie between 0 and 1, for example 0.2.")
    by_class: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        by_class.setdefault(label, []).append(index)
    held: list[int] = []
    for label, members in by_class.items():
        count = round(len(members) * fraction)
        count = min(max(count, 1), len(members) - 1)
        # NumPy promises that the legacy RandomState stream never changes; a written-down seed must outlive versions.
        order = np.random.RandomState(mix(seed, label) & 0xFFFFFFFF).permutation(len(members))
        held.extend(members[i] for i in order[:count])
    chosen = set(held)
    return [i for i in range(len(labels)) if i not in chosen], sorted(held)


def hold_out(split: Split, fraction: float, seed: int, num_classes: int) -> tuple[Split, Split]:
    """Split `split` into (train, val), stratified by class.

    Raises:
        UserError: there are too few images to have both.
    """
    kept, held = stratified(split.labels, fraction, seed)
    if not held:
        raise UserError(
            f"no class has two images ({len(split)} images in {num_classes} classes), so none can be held out for "
            "validation. Add images, or give a validation folder with --val."
        )
    return split.select(kept), split.select(held)


def describe(counts: Sequence[int]) -> str:
    """ "3 to 7 a class", or "5 a class" when all are equal."""
    low, high = min(counts), max(counts)
    return f"{low} a class" if low == high else f"{low} to {high} a class"
