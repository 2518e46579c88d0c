"""What every data source turns into: splits of labelled images, lazily decoded, with how they were made."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
from PIL import Image

from resurge.data.images import MAX_PIXELS, UnreadableImage, open_image, read_bytes, read_header
from resurge.data.seeding import mix
from resurge.errors import UserError
from resurge.files import atomic_write_bytes

if TYPE_CHECKING:
    from resurge.data.scenes import MaskSplit, ObjectSplit

_GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")

AnySplit = TypeVar("AnySplit", "Split", "ObjectSplit", "MaskSplit")


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
class DataBundle(Generic[AnySplit]):
    """A data set ready for training. `how` says in one sentence how the splits were made; `notes` what the user
    should know about (ignored files, classes without validation images); `in_channels` is 1 when the images are grey;
    `default_size` is a sensible side of the network's input in pixels, of the shorter side where images keep their
    shape. The splits are `Split`s for the task classify, `ObjectSplit`s for detect and instances, `MaskSplit`s for
    segment."""

    name: str
    classes: tuple[str, ...]
    train: AnySplit
    val: AnySplit
    test: AnySplit | None
    in_channels: int
    default_size: int
    how: str
    seed: int
    notes: tuple[str, ...] = field(default=())
    task: str = "classify"

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def splits(self) -> dict[str, AnySplit]:
        """The splits there are, by name: train, val, and test where there is one."""
        splits = {"train": self.train, "val": self.val}
        return splits if self.test is None else splits | {"test": self.test}

    def to_json(self) -> dict[str, object]:
        """What a run directory keeps: task, name, classes, sizes of the splits, seed, how they were made, notes."""
        sizes = {name: len(split) for name, split in self.splits().items()}
        return {
            "task": self.task, "name": self.name, "classes": list(self.classes), "sizes": sizes, "seed": self.seed,
            "how": self.how, "notes": list(self.notes), "in_channels": self.in_channels,
        }  # fmt: skip


def write_split(bundle: DataBundle, path: str | Path) -> None:
    """Write which image is in which split, as CSV with the columns path, label, split; path, split when the images
    have no one label.

    Images in files stand with their absolute path, so that `open_data` reads the same splits of a classification back
    from the CSV; images in memory stand with their id.
    """
    labelled = bundle.task == "classify"
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "split") if labelled else ("path", "split"))
    for name, split in bundle.splits().items():
        for index, label in enumerate(split.labels):
            file = split.path(index)
            where = split.ids[index] if file is None else str(file.absolute())
            writer.writerow((where, bundle.classes[label], name) if labelled else (where, name))
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


def hold_out(split: AnySplit, fraction: float, seed: int, num_classes: int) -> tuple[AnySplit, AnySplit]:
    """Split `split` into (train, val), stratified by class; by image where images have no one class.

    Raises:
        UserError: there are too few images to have both.
    """
    kept, held = stratified(split.labels, fraction, seed)
    if not held:
        if len(set(split.labels)) < 2:
            raise UserError(
                f"there are too few images ({len(split)}) to hold some out for validation. Add images, or name "
                "others with --val."
            )
        raise UserError(
            f"no class has two images ({len(split)} images in {num_classes} classes), so none can be held out for "
            "validation. Add images, or give a validation folder with --val."
        )
    return split.select(kept), split.select(held)


def peek(images: Images, count: int = 48) -> tuple[bool, int | None]:
    """From the headers of `count` files, evenly spread: whether all are grey, and the median of their shorter sides
    (None when nothing is known, as of images in memory)."""
    if not isinstance(images, FileImages) or not images.names:
        return False, None
    sides: list[int] = []
    grey = True
    for index in sorted({round(i * (len(images.names) - 1) / (count - 1)) for i in range(count)}):
        path = images.path(index)
        try:
            header = read_header(read_bytes(path), str(path), images.max_pixels)
        except UnreadableImage:
            continue
        grey = grey and header.mode in _GREY_MODES
        sides.append(min(header.size))
    return bool(sides) and grey, int(median(sides)) if sides else None


def describe(counts: Sequence[int]) -> str:
    """ "3 to 7 a class", or "5 a class" when all are equal."""
    low, high = min(counts), max(counts)
    return f"{low} a class" if low == high else f"{low} to {high} a class"
