"""The images that a run was trained and validated with."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resurge.data.sources import open_data, open_split
from resurge.data.splits import DataBundle
from resurge.errors import UserError
from resurge.runs import Run
from resurge.tasks.table import DATA_WORDS, get_task
from resurge.train.loaders import readable

Images = tuple[Any, tuple[str, ...], str]
"""A split, its classes, and a sentence that says which images these are."""


def images_of(run: Run, data: str | None, split: str) -> Images:
    """The images to score a run on: those of `data`, or else those it was trained with.

    Raises:
        UserError: there are none, the run does not say what it was trained on, or that has changed since.
    """
    if data is None and get_task(run.task).annotation != "labels":
        return own_scenes(run, split)
    found, _, which = open_split(
        data if data is not None else own_data(run),
        annotation=get_task(run.task).annotation,
        words=DATA_WORDS,
        split=split,
        classes=run.classes if get_task(run.task).classes is None else None,
        seed=run.recipe.seed if run.recipe else 0,
        val_fraction=run.recipe.val_fraction if run.recipe else None,
    )
    return found, run.classes, which


def own_scenes(run: Run, split: str) -> Images:
    """The data of a detector's or segmenter's training, split as it was then.

    Raises:
        UserError: the run does not say what it was trained on, or its data has changed since.
    """
    recipe = run.recipe
    if recipe is None:
        raise UserError(f"{run.folder} does not say what it was trained on. Pass --data.")
    bundle = open_data(
        recipe.data,
        annotation=get_task(run.task).annotation,
        words=DATA_WORDS,
        val=recipe.val,
        seed=recipe.seed,
        val_fraction=recipe.val_fraction,
    )
    if (get_task(run.task).classes or bundle.classes) != run.classes:
        raise UserError(
            f"{recipe.data} has other classes now ({', '.join(bundle.classes[:6])}, …) than in the training "
            f"({', '.join(run.classes[:6])}, …). Pass --data."
        )
    wanted = _trained_sizes(run)
    if wanted is not None and wanted != _sizes(bundle):
        bundle = readable(bundle)  # as the training left out what cannot be decoded
    splits, sizes = bundle.splits(), _sizes(bundle)
    if wanted is not None and wanted != sizes:
        now, then = _listed(sizes), _listed(wanted)
        raise UserError(f"{recipe.data} was changed: it has {now} images, and the training had {then}. Pass --data.")
    name = split if split != "auto" else ("test" if "test" in splits else "val")
    if name not in splits:
        raise UserError(f"{recipe.data} has no {name} split; it has {', '.join(splits)}.")
    return splits[name], run.classes, f"the {name} split of {bundle.name} ({bundle.how})"


def _sizes(bundle: DataBundle[Any]) -> dict[str, int]:
    return {name: len(part) for name, part in bundle.splits().items()}


def _trained_sizes(run: Run) -> dict[str, int] | None:
    """Images in each split of a run's training; None where the run does not say."""
    trained = run.meta.get("data")
    sizes = trained.get("sizes") if isinstance(trained, Mapping) else None
    return dict(sizes) if isinstance(sizes, Mapping) else None


def _listed(sizes: Mapping[Any, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sizes.items())


def own_data(run: Run) -> str | Path:
    """Where the images of a run are: the list of them that it keeps, or, if they lie in no files, its recipe's source.

    Raises:
        UserError: the run says neither.
    """
    listed = run.folder / "split.csv"
    if listed.is_file():
        _require_whole(run, listed)
        with listed.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            first = next(csv.DictReader(file), None)
        if first is not None and Path(first.get("path") or "").is_absolute():
            return listed
    if run.recipe is None:
        raise UserError(f"{run.folder} does not say what it was trained on. Pass --data.")
    return run.recipe.data


def _require_whole(run: Run, listed: Path) -> None:
    """Raises UserError when the list of a run's images is shorter or longer than the training's."""
    sizes = _trained_sizes(run)
    if sizes is None:
        return
    with listed.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        try:
            found = Counter(row.get("split") for row in csv.DictReader(file))
        except csv.Error as error:
            raise UserError(f"{listed} is damaged ({error}). Restore it, or pass --data.") from error
    if dict(found) != sizes:
        raise UserError(
            f"{listed} should list the images of the training ({_listed(sizes)}), but it lists "
            f"{_listed(found) or 'none'}: it was cut short or changed. Restore it, or pass --data."
        )
