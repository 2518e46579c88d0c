"""The images that a run was trained and validated with."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sized
from pathlib import Path

from resurge.config import replaced
from resurge.data.reading import AS_IT_IS
from resurge.data.source import AnnotatedSplit
from resurge.data.sources import open_data, open_split
from resurge.errors import UserError
from resurge.recipe import Recipe
from resurge.runs import Run
from resurge.tasks.table import DATA_WORDS, get_task
from resurge.train.loaders import readable

Images = tuple[AnnotatedSplit, tuple[str, ...], str]
"""A split, its classes, and a description of which images these are."""


def images_of(run: Run, data: str | None, split: str, given: Mapping[str, str] | None = None) -> Images:
    """The images to score a run on: those of `data`, or else those it was trained with. `given` says how `data` is read
    otherwise than in the training, by fields of `Reading`.

    Raises:
        UserError: there are none, the run does not say what it was trained on, or that has changed since.
    """
    task = get_task(run.task)
    reading = run.recipe.reading if run.recipe else AS_IT_IS
    if given and data is None:
        raise UserError(f"--{next(iter(given))} says how other data is read. Name it with --data.")
    if given:
        reading = replaced(reading, given, "command line")
    if data is None and task.annotation != "labels":
        return _own_scenes(run, split)
    found, _, which = open_split(
        data if data is not None else _own_data(run),
        annotation=task.annotation,
        words=DATA_WORDS,
        split=split,
        classes=run.classes if task.classes is None else None,
        seed=run.recipe.seed if run.recipe else 0,
        val_fraction=run.recipe.val_fraction if run.recipe else None,
        reading=reading,
        coding=None if given else run.coding,
    )
    return found, run.classes, which


def _own_scenes(run: Run, split: str) -> Images:
    """The data of a detector's or segmenter's training, split as it was then."""
    recipe, task, then = _recipe(run), get_task(run.task), _trained_sizes(run)
    bundle = open_data(
        recipe.data,
        annotation=task.annotation,
        words=DATA_WORDS,
        val=recipe.val,
        seed=recipe.seed,
        val_fraction=recipe.val_fraction,
        reading=recipe.reading,
    )
    if (task.classes or bundle.classes) != run.classes:
        raise UserError(
            f"{recipe.data} has other classes now ({', '.join(bundle.classes[:6])}, …) than in the training "
            f"({', '.join(run.classes[:6])}, …). Pass --data."
        )
    if then is not None and then != _sizes(bundle.splits()):
        bundle = readable(bundle)  # as the training left out what cannot be decoded
    splits = bundle.splits()
    if then is not None and then != (now := _sizes(splits)):
        raise UserError(
            f"{recipe.data} was changed: it has {_listed(now)} images, and the training had {_listed(then)}. "
            "Pass --data."
        )
    name = split if split != "auto" else ("test" if "test" in splits else "val")
    if name not in splits:
        raise UserError(f"{recipe.data} has no {name} split; it has {', '.join(splits)}.")
    return splits[name], run.classes, f"the {name} split of {bundle.name} ({bundle.how})"


def _recipe(run: Run) -> Recipe:
    if run.recipe is None:
        raise UserError(f"{run.folder} does not say what it was trained on. Pass --data.")
    return run.recipe


def _sizes(splits: Mapping[str, Sized]) -> dict[str, int]:
    return {name: len(part) for name, part in splits.items()}


def _trained_sizes(run: Run) -> dict[str, int] | None:
    """Images in each split of a run's training; None where the run does not say."""
    trained = run.meta.get("data")
    sizes = trained.get("sizes") if isinstance(trained, Mapping) else None
    return dict(sizes) if isinstance(sizes, Mapping) else None


def _listed(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sizes.items())


def _own_data(run: Run) -> str | Path:
    """Where the images of a run are: in the list that it keeps, or, if they lie in no files, at its recipe's source."""
    listed, then = run.folder / "split.csv", _trained_sizes(run)
    if not listed.is_file():
        return _recipe(run).data
    try:
        with listed.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = list(csv.DictReader(file))
    except csv.Error as error:
        raise UserError(f"{listed} is damaged ({error}). Restore it, or pass --data.") from error
    found = Counter(row.get("split", "") for row in rows)
    if then is not None and found != then:
        raise UserError(
            f"{listed} should list the images of the training ({_listed(then)}), but it lists "
            f"{_listed(found) or 'none'}: it was cut short or changed. Restore it, or pass --data."
        )
    in_files = rows and Path(rows[0].get("path") or "").is_absolute()
    return listed if in_files else _recipe(run).data
