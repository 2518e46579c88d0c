"""Pictures an export is calibrated with and measured on: the run's own data, the user's, or, failing both, patterns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resurge.data.images import open_image
from resurge.data.paths import find_images
from resurge.data.preprocessing import Values
from resurge.data.sources import open_data
from resurge.data.splits import DataBundle
from resurge.errors import UserError
from resurge.export.fidelity import Batch
from resurge.files import Json
from resurge.runs import Run
from resurge.tasks.table import DATA_WORDS, get_task

BATCH = 8
_GENERATED = "generated patterns"


@dataclass(frozen=True)
class Pictures:
    """A number of pictures, read when they are asked for. labels: class indices of the run, or None. classes: what the
    labels of objects and label maps in the split mean; none where it has neither."""

    split: Any  # has read(index) -> Image
    indices: tuple[int, ...]
    labels: tuple[int, ...] | None = None
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.indices)

    def few(self, count: int) -> Pictures:
        """At most `count` of them, evenly spread."""
        if len(self) <= count:
            return self
        rows = [round(i * (len(self) - 1) / max(count - 1, 1)) for i in range(count)]
        labels = None if self.labels is None else tuple(self.labels[row] for row in rows)
        return replace(self, indices=tuple(self.indices[row] for row in rows), labels=labels)

    def batches(self, preprocessing: Values, size: int = BATCH) -> Iterator[Batch]:
        """What the network is given of them; images that cannot be read are passed over."""
        arrays: list[np.ndarray] = []
        truth: list[int] = []
        for row, index in enumerate(self.indices):
            try:
                array = preprocessing.array(self.split.read(index))
            except UserError:
                continue
            if arrays and (len(arrays) == size or arrays[0].shape != array.shape):
                yield self._batch(arrays, truth)
                arrays, truth = [], []
            arrays.append(array)
            truth.append(-1 if self.labels is None else self.labels[row])
        if arrays:
            yield self._batch(arrays, truth)

    def _batch(self, arrays: list[np.ndarray], truth: list[int]) -> Batch:
        return Batch(np.stack(arrays), None if self.labels is None else np.asarray(truth))


@dataclass(frozen=True)
class Material:
    """calibration: to set the ranges of int8 by. measured: others where there are any, to see what was lost. Both are
    named in words; real: they are photographs and the like, not patterns."""

    calibration: Pictures
    calibrated_on: str
    measured: Pictures
    measured_on: str
    real: bool


def unreadable(pictures: str) -> UserError:
    """What to raise when none of these pictures, named in words, can be read."""
    return UserError(f"none of the {pictures} can be read. Name others with --calibrate DIR.")


def gather(run: Run, source: str | None) -> Material:
    """Pictures for an export of a run.

    Args:
        source: a folder of images, or whatever `open_data` opens; None for the data the run was trained on, if they
            are still there, else for generated patterns.

    Raises:
        UserError: the source cannot be opened, or has no images.
    """
    if source is None:
        own = dict(run.meta.get("data") or {}).get("source")
        try:
            if own:
                return _opened(run, str(own))
        except UserError:
            pass  # moved or removed since; patterns do
        patterns = Pictures(_Patterns(run), tuple(range(16)))
        return Material(patterns, _GENERATED, patterns, _GENERATED, real=False)
    return _opened(run, source)


def _opened(run: Run, source: str) -> Material:
    folder = Path(source)
    try:
        annotation = get_task(run.task).annotation
        bundle = open_data(source, annotation=annotation, words=DATA_WORDS, **_taken_apart(run, source))
    except UserError:
        images, _ = find_images(folder, "") if folder.is_dir() else ([], [])
        if not images:
            raise
        files = Pictures(_Files(tuple(folder / name for name in images)), tuple(range(len(images))))
        name = f"images of {folder.name}"
        return Material(files, name, files, name, real=True)
    measured, name = next(
        (split, name) for split, name in ((bundle.test, "test"), (bundle.val, "val"), (bundle.train, "train")) if split
    )
    return Material(
        Pictures(bundle.train or measured, tuple(range(len(bundle.train or measured)))),
        f"{'train' if bundle.train else name} images of {folder.name}",
        _annotated(run, bundle, measured),
        f"{name} images of {folder.name}",
        real=True,
    )


def _taken_apart(run: Run, source: str) -> Json:
    """How the training took this data apart, so that what is measured on was not trained on."""
    recipe = run.recipe
    if recipe is None or Path(recipe.data).absolute() != Path(source).absolute():
        return {"seed": int(dict(run.meta.get("data") or {}).get("seed") or 0)}
    return {"seed": recipe.seed, "val": recipe.val, "val_fraction": recipe.val_fraction}


def _annotated(run: Run, bundle: DataBundle, split: Any) -> Pictures:
    """The pictures of a split with what is known of them: the labels as indices of the run's classes, if the data's
    classes are the run's; or the classes that its label maps or objects mean."""
    indices = tuple(range(len(split)))
    if get_task(run.task).annotation != "labels":
        return Pictures(split, indices, classes=tuple(bundle.classes))
    if not set(bundle.classes) <= set(run.classes):
        return Pictures(split, indices)
    ours = [run.classes.index(name) for name in bundle.classes]
    return Pictures(split, indices, tuple(ours[label] for label in split.labels))


@dataclass(frozen=True)
class _Files:
    paths: Sequence[Path]

    def read(self, index: int) -> Image.Image:
        return open_image(self.paths[index])


@dataclass(frozen=True)
class _Patterns:
    """Pictures with gradients, waves and edges, each another one."""

    run: Run

    def read(self, index: int) -> Image.Image:
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
        return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
