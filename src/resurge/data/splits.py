"""What every data source turns into: splits of annotated images, decoded when they are read, and how they were made.

Pixels count from 0; a box (x1, y1, x2, y2) covers x1 <= x < x2. Boxes and masks are those of the upright image at its
own size. Labels count from 0 in the order of the class names; there is no background class among them. In a label map
IGNORE marks pixels without a class, whatever the files on disk use for it.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from io import StringIO
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
from PIL import Image

from resurge.data.annotations import Annotation
from resurge.data.bands import Depth, Picture, same_bands
from resurge.data.images import open_image
from resurge.data.pictures import read_headers
from resurge.data.seeding import mix, spread
from resurge.errors import UserError
from resurge.files import atomic_write_bytes
from resurge.untrusted import to_cell

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    _Selectable = TypeVar("_Selectable", bound=DataclassInstance)

IGNORE = 255
_SIDES, _HEADERS = 48, 1024  # files whose headers say how large images are, and which bands they have


class Images(Protocol):
    """Where the images of a split are. Implementations are small values that travel to loader processes."""

    def read(self, index: int, draft_size: int | None = None) -> Picture: ...
    def path(self, index: int) -> Path | None: ...
    def select(self, indices: Sequence[int]) -> Images: ...


class LabelMaps(Protocol):
    """Where the label maps of a split are, as `Images`: uint8 (H, W) of class indices, and IGNORE."""

    def read(self, index: int) -> np.ndarray: ...
    def select(self, indices: Sequence[int]) -> LabelMaps: ...


@dataclass(frozen=True)
class Files:
    """Files of a split. `names` are relative to `root`, or absolute; read when asked for."""

    root: Path
    names: tuple[str, ...]

    def path(self, index: int) -> Path:
        return self.root / self.names[index]

    def select(self: SomeFiles, indices: Sequence[int]) -> SomeFiles:
        return replace(self, names=tuple(self.names[i] for i in indices))


SomeFiles = TypeVar("SomeFiles", bound=Files)


class FileImages(Files):
    """Image files."""

    def read(self, index: int, draft_size: int | None = None) -> Picture:
        return open_image(self.path(index), draft_size=draft_size)


@dataclass(frozen=True)
class Arrays:
    """Pixels of a split in memory: uint8 (N, H, W), or (N, H, W, 3) RGB."""

    pixels: np.ndarray

    def path(self, index: int) -> Path | None:
        return None

    def select(self: SomeArrays, indices: Sequence[int]) -> SomeArrays:
        return replace(self, pixels=self.pixels[np.asarray(indices, dtype=np.int64)])


SomeArrays = TypeVar("SomeArrays", bound=Arrays)


class ArrayImages(Arrays):
    """Images in memory, grey or RGB."""

    def read(self, index: int, draft_size: int | None = None) -> Picture:
        return Image.fromarray(self.pixels[index])


class ArrayMaps(Arrays):
    """Label maps in memory."""

    def read(self, index: int) -> np.ndarray:
        result: np.ndarray = self.pixels[index].copy()
        return result


class Region(Protocol):
    """The pixels of one object: polygons, run lengths, a file. A small value that travels to loader processes."""

    def decode(self, height: int, width: int) -> np.ndarray: ...  # bool (height, width)


@dataclass(frozen=True)
class Objects:
    """The n objects of one image.

    boxes: float32 (n, 4). labels: int64 (n,). crowd: bool (n,), a region with many objects of the class, which
    counts neither as a hit nor as a miss. area: float32 (n,), of the mask where there is one, else of the box; decides
    between small, medium and large. regions: one per object, or None where the data has boxes only. size: (width,
    height) of the image, None when unknown.
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    area: np.ndarray
    regions: tuple[Region, ...] | None = None
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class _Annotated:
    """What splits of all kinds share. `ids[i]` names image i for good; for files: the path below the data folder."""

    ids: tuple[str, ...]
    images: Images

    def __len__(self) -> int:
        return len(self.ids)

    def id(self, index: int) -> str:
        return self.ids[index]

    def path(self, index: int) -> Path | None:
        """The file of image `index`, or None for images that are in no file of their own."""
        return self.images.path(index)

    def read(self, index: int, draft_size: int | None = None) -> Picture:
        """Image `index`, upright. `draft_size`: see `images.open_image`; only for training. Raises UnreadableImage when
        the file cannot be read or decoded."""
        return self.images.read(index, draft_size)

    def select(self: _Selectable, indices: Sequence[int]) -> _Selectable:
        """The split that has only these images, in this order."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return replace(self, **{
            name: tuple(value[i] for i in indices) if isinstance(value, tuple) else value.select(indices)
            for name, value in values
        })  # fmt: skip


@dataclass(frozen=True)
class Split(_Annotated):
    """Images with one class each: `labels[i]` is the class index of image i."""

    labels: tuple[int, ...]

    def counts(self, num_classes: int) -> tuple[int, ...]:
        """Number of images per class."""
        counted = Counter(self.labels)
        return tuple(counted[label] for label in range(num_classes))


class _Unlabelled(_Annotated):
    @property
    def labels(self) -> tuple[int, ...]:
        """0 for every image: samplers and the stratified split ask for labels."""
        return (0,) * len(self.ids)


@dataclass(frozen=True)
class ObjectSplit(_Unlabelled):
    """Images with objects. `image_ids[i]` is the number of image i (COCO's where it has one)."""

    objects: tuple[Objects, ...]
    image_ids: tuple[int, ...]

    def target(self, index: int) -> Objects:
        return self.objects[index]


@dataclass(frozen=True)
class MaskSplit(_Unlabelled):
    """Images with a class per pixel."""

    maps: LabelMaps

    def target(self, index: int) -> np.ndarray:
        """uint8 (H, W): class indices, and IGNORE. Raises UnreadableImage or UserError."""
        return self.maps.read(index)


AnySplit = TypeVar("AnySplit", Split, ObjectSplit, MaskSplit)


@dataclass(frozen=True)
class DataBundle(Generic[AnySplit]):
    """A data set ready for training: `Split`s of labels, `ObjectSplit`s of boxes or masks, `MaskSplit`s of maps."""

    name: str
    classes: tuple[str, ...]
    train: AnySplit
    val: AnySplit
    test: AnySplit | None
    in_channels: int  # 1 when the images are grey, 3 when they are coloured, else their number of bands
    default_size: int  # a sensible side of the network's input; of the shorter side where images keep their shape
    how: str  # how the splits were made, in one sentence
    seed: int
    notes: tuple[str, ...] = ()  # what the user should know about (ignored files, classes without validation images)
    annotation: Annotation = "labels"
    depth: Depth = "8-bit"
    values: Mapping[str, str | None] | None = None  # the class of each value in masks; None of one is ignored

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def splits(self) -> dict[str, AnySplit]:
        """The splits there are, by name: train, val, and test where there is one."""
        splits = {"train": self.train, "val": self.val}
        return splits if self.test is None else splits | {"test": self.test}

    def to_json(self) -> dict[str, object]:
        """What a run directory keeps: name, classes, sizes of the splits, seed, how they were made, notes."""
        return {
            "name": self.name, "classes": list(self.classes),
            "sizes": {name: len(split) for name, split in self.splits().items()}, "seed": self.seed, "how": self.how,
            "notes": list(self.notes), "in_channels": self.in_channels,
        } | ({} if self.values is None else {"values": dict(self.values)})  # fmt: skip


def write_split(bundle: DataBundle[AnySplit], path: str | Path) -> None:
    """Write which image is in which split, as CSV with the columns path, label (where images have one) and split.

    Images in files stand with their absolute path, so that `open_data` reads the same splits of labelled images back
    from the CSV; images in memory stand with their id. Cells are as `to_cell` makes them.
    """
    labelled = bundle.annotation == "labels"
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "split") if labelled else ("path", "split"))
    for (name, _), rows in split_rows(bundle):
        cells = ((where, label, name) if labelled else (where, name) for where, label in rows)
        writer.writerows(map(to_cell, row) for row in cells)
    # a file's name may be no text
    atomic_write_bytes(
        path, text.getvalue().encode("utf-8", "surrogateescape"), mark=text.getvalue().partition("\n")[0]
    )


def split_rows(bundle: DataBundle[AnySplit]) -> Iterator[tuple[tuple[str, AnySplit], Iterator[tuple[str, str]]]]:
    """((name, split), (path or id, label or "") of each image) of all splits."""
    labelled = bundle.annotation == "labels"
    for name, split in bundle.splits().items():
        files = map(split.path, range(len(split)))
        places = (split.ids[i] if file is None else str(file.absolute()) for i, file in enumerate(files))
        yield (name, split), zip(places, (bundle.classes[k] if labelled else "" for k in split.labels), strict=True)


def stratified(labels: Sequence[int], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices (kept, held out): from each class `fraction` of its images, at random, is held out.

    Of every class with two images or more at least one is held out and at least one kept; a class with a single image
    keeps it. Both lists ascend. A pure function of its arguments.
    """
    require_fraction(fraction)
    by_class: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        by_class[label].append(index)
    held: list[int] = []
    for label, members in by_class.items():
        count = min(max(round(len(members) * fraction), 1), len(members) - 1)
        # NumPy promises that the legacy RandomState stream never changes; a written-down seed must outlive versions.
        order = np.random.RandomState(mix(seed, label) & 0xFFFFFFFF).permutation(len(members))
        held.extend(members[i] for i in order[:count])
    chosen = set(held)
    return [i for i in range(len(labels)) if i not in chosen], sorted(held)


def require_fraction(fraction: float) -> None:
    """Raises UserError when a validation fraction is not between 0 and 1."""
    if not 0 < fraction < 1:
        raise UserError(f"the validation fraction is {fraction}; it must lie between 0 and 1, for example 0.2.")


def hold_out(split: AnySplit, fraction: float, seed: int, num_classes: int) -> tuple[AnySplit, AnySplit]:
    """Split `split` into (train, val), stratified by class; by image where images have no one class. Raises UserError
    when there are too few images to have both."""
    kept, held = stratified(split.labels, fraction, seed)
    if not held:
        few = f"there are too few images ({len(split)})"
        if len(set(split.labels)) > 1:
            few = f"no class has two images ({len(split)} images in {num_classes} classes)"
        raise UserError(f"{few}, so none can be held out for validation. Add images, or name others with --val.")
    return split.select(kept), split.select(held)


def peek(*splits: Images) -> tuple[int, Depth, int | None]:
    """(bands, depth) of all images, and the median of the shorter sides of the first of `splits`, from the headers of
    files, evenly spread. The side is None where no header can be read; without any the images count as RGB.

    Raises:
        OtherBands: the images are of several kinds.
    """
    found: dict[str, tuple[int, Depth]] = {}
    sides: list[int] = []
    for images in splits:
        if isinstance(images, ArrayImages):
            return (1 if images.pixels.ndim == 3 else 3), "8-bit", min(images.pixels.shape[1:3])
        if not isinstance(images, FileImages) or not images.names:
            continue
        few = spread(len(images.names), _SIDES)
        some = sorted({*few, *spread(len(images.names), _HEADERS)})
        headers = read_headers(images.root, (images.names[index] for index in some))
        found |= {name: (header.bands, header.depth) for name, header in headers.items()}
        if images is splits[0]:
            names = dict.fromkeys(images.names[index] for index in few)
            sides += [min(headers[name].size) for name in names if name in headers]
    bands, depth = same_bands(found) or (3, "8-bit")
    return bands, depth, int(median(sides)) if sides else None
