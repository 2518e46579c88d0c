"""Images an export is calibrated with and measured on: the run's own data, the user's, or, failing both, patterns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from resurge.data.bands import OtherBands, Picture, naming
from resurge.data.coding import Known
from resurge.data.paths import find_images
from resurge.data.preprocessing import Values
from resurge.data.seeding import spread
from resurge.data.sources import open_data
from resurge.data.splits import FileImages
from resurge.errors import UserError
from resurge.files import Json
from resurge.runs import Run
from resurge.tasks.result import Size
from resurge.tasks.table import DATA_WORDS, get_task
from resurge.tasks.task import Task


class Readable(Protocol):
    """Images by number, as a split of a data set has them."""

    def read(self, index: int) -> Picture: ...
    def path(self, index: int) -> Path | None: ...


class Annotated(Readable, Protocol):
    """Images with classes, objects or label maps."""

    labels: Sequence[int]

    def target(self, index: int) -> Any: ...


Truth = Callable[[int, Size], object]
"""The number of an image and its (height, width) -> its annotation."""


class Batch(NamedTuple):
    """Images that go through a network together.

    indices: their numbers. originals: their own (height, width). images: float32 (N, C, H, W). sizes: int64 (N, 2),
    height and width without padding. truth: the annotation of each, where it is known.
    """

    indices: tuple[int, ...]
    originals: tuple[Size, ...]
    images: np.ndarray
    sizes: np.ndarray
    truth: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class Pictures:
    """Images that are read one by one.

    classes: int64, for each class of the split's annotations that of the run; None where they are of other classes, or
    where there are none.
    """

    split: Readable
    indices: tuple[int, ...]
    classes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def few(self, count: int) -> Pictures:
        """At most `count` of them, evenly spread."""
        if len(self) <= count:
            return self
        return replace(self, indices=tuple(self.indices[row] for row in spread(len(self), count)))

    def batches(self, task: Task, preprocessing: Values, size: int, truth: Truth | None = None) -> Iterator[Batch]:
        """The inputs of the network made of them, `size` images at most; those that cannot be read are passed over.
        Raises OtherBands for one with other bands or another depth than the network takes."""
        read: list[tuple[int, Size, np.ndarray, object]] = []
        for index in self.indices:
            try:
                image = self.split.read(index)
                own = (image.height, image.width)
                with naming(str(self.split.path(index) or index)):
                    prepared = preprocessing.array(image)
                read.append((index, own, prepared, truth and truth(index, own)))
            except OtherBands:
                raise
            except UserError:
                continue
            if len(read) == size:
                yield from _batches(read, task, truth is not None)
                read = []
        if read:
            yield from _batches(read, task, truth is not None)


def _batches(read: list[tuple[int, Size, np.ndarray, object]], task: Task, known: bool) -> Iterator[Batch]:
    indices, originals, arrays, truth = zip(*read, strict=True)
    for inputs in task.batches(arrays):
        own = [tuple(values[row] for row in inputs.rows) for values in (indices, originals, truth)]
        yield Batch(own[0], own[1], inputs.images, inputs.sizes, own[2] if known else None)


@dataclass(frozen=True)
class ExportData:
    """calibration: to set the ranges of int8. measured: others where there are any, to see what was lost. Both are
    named in words; real: they are photographs and the like, not patterns."""

    calibration: Pictures
    calibrated_on: str
    measured: Pictures
    measured_on: str
    real: bool


def unreadable(pictures: str) -> UserError:
    """What to raise when none of these images, named in words, can be read."""
    return UserError(f"none of the {pictures} can be read. Name others with --calibrate DIR.")


def gather(run: Run, source: str | None) -> ExportData:
    """Images for an export of a run.

    Args:
        source: a folder of images, or whatever `open_data` opens; None for the data the run was trained on, if they
            are still there, else for generated patterns.

    Raises:
        UserError: the source cannot be opened, or has no images.
    """
    if source is not None:
        return _opened(run, source)
    own = dict(run.meta.get("data") or {}).get("source")
    try:
        if own:
            return _opened(run, str(own))
    except UserError:
        pass  # moved or removed since; patterns do
    patterns = Pictures(_Patterns(run), tuple(range(16)))
    return ExportData(patterns, "generated patterns", patterns, "generated patterns", real=False)


def _opened(run: Run, source: str) -> ExportData:
    folder = Path(source)
    try:
        annotation = get_task(run.task).annotation
        bundle = open_data(source, annotation=annotation, words=DATA_WORDS, **_split_by(run, source))
    except UserError:
        images, _ = find_images(folder, "") if folder.is_dir() else ([], [])
        if not images:
            raise
        files = Pictures(FileImages(folder, tuple(images)), tuple(range(len(images))))
        name = f"images of {folder.name}"
        return ExportData(files, name, files, name, real=True)
    classes = None
    if bundle.classes and set(bundle.classes) <= set(run.classes):
        classes = np.array([run.classes.index(name) for name in bundle.classes], dtype=np.int64)
    parts = {"test": bundle.test, "val": bundle.val, "train": bundle.train}
    measured = next(name for name, split in parts.items() if split)
    calibration = "train" if bundle.train else measured
    return ExportData(
        Pictures(parts[calibration], tuple(range(len(parts[calibration])))),
        f"{calibration} images of {folder.name}",
        Pictures(parts[measured], tuple(range(len(parts[measured]))), classes),
        f"{measured} images of {folder.name}",
        real=True,
    )


def _split_by(run: Run, source: str) -> Json:
    """How the training split this data, so that what is measured on was not trained on."""
    recipe, known = run.recipe, {"known": Known(run.classes, run.coding)}
    if recipe is None:
        return {"seed": int(dict(run.meta.get("data") or {}).get("seed") or 0), **known}
    if Path(recipe.data).absolute() != Path(source).absolute():
        return {"seed": recipe.seed, "reading": recipe.reading, **known}
    own = {"val": recipe.val, "val_fraction": recipe.val_fraction}
    return {"seed": recipe.seed, "reading": recipe.reading, **own, **known}


@dataclass(frozen=True)
class _Patterns:
    """Images with gradients, waves and edges, each another one."""

    run: Run

    def path(self, index: int) -> None:
        return None

    def read(self, index: int) -> Picture:
        noise = np.random.default_rng(index)
        seen = self.run.preprocessing
        side = getattr(seen, "size", None) or getattr(seen, "short_side", None) or 256
        y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
        planes = []
        for _ in range(3):
            a, b, c, d, e = noise.standard_normal(5)
            disc = (x - c / 2) ** 2 + (y - d / 2) ** 2 < 0.2 + 0.1 * e**2
            planes.append(a * x + b * y + np.sin(6 * c * x + 5 * d * y + e) + 2 * disc)
        values = np.stack(planes, axis=-1) * 40 + 128 + 8 * noise.standard_normal((side, side, 3))
        made: Picture = seen.made_of(np.clip(values, 0, 255).astype(np.uint8))
        return made
