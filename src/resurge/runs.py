"""The run directory: what a training leaves, and what everything after it starts from.

recipe.yaml        everything needed to repeat the training
split.csv          which image was in which split
metrics.csv, tb/   the course of the training
checkpoints/       last.ckpt and best.ckpt, to resume
model.safetensors  the weights that were kept
model.json         network, classes, preprocessing, scores, versions
evaluation.json    the scores in full
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from resurge.arch.backbone import backbone_of
from resurge.arch.spec import Spec
from resurge.arch.surgery import convert_norm
from resurge.arch.zoo import get_spec
from resurge.config import Section, to_plain
from resurge.data.preprocessing import Preprocessing, ScenePreprocessing
from resurge.errors import UserError
from resurge.files import writing
from resurge.machine import versions
from resurge.recipe import MOST_BYTES, Machine, Recipe
from resurge.run_files import FORMAT, read_model_json, section
from resurge.tasks.table import build_task_model, get_task
from resurge.untrusted import parse_yaml, read_text
from resurge.weights.checkpoint import WEIGHTS_FILE, build_for, load_weights, save_model

LAST = Path("checkpoints", "last.ckpt")
BEST = Path("checkpoints", "best.ckpt")
OURS = (
    "recipe.yaml", "split.csv", "metrics.csv", "model.safetensors", "model.json", "evaluation.json", "report.html",
    "checkpoints", "tb", "explain",
)  # fmt: skip
"""What a training, and what explains it, leaves in its folder."""
PACKAGES = ("resurge", "torch", "torchvision", "lightning-fabric")
"""Those whose versions a run states."""


@dataclass(frozen=True)
class Run:
    """A finished training: the network in evaluation mode and all that is known of it.

    `meta` is the content of model.json; `recipe` is None for a model that was not trained here.
    """

    folder: Path
    task: str
    model: nn.Module
    spec: Spec
    classes: tuple[str, ...]
    preprocessing: Any  # Preprocessing of a classifier, ScenePreprocessing of the other tasks
    meta: Mapping[str, Any] = field(repr=False)
    recipe: Recipe | None = field(repr=False)


def bare_run(
    name: str, spec: Spec, model: nn.Module, preprocessing: Preprocessing, classes: int, **meta: object
) -> Run:
    """A classifier that was not trained here as a run: what `model.json` of a training would say, and `meta`.

    Its classes are called by their numbers.
    """
    names = tuple(str(index) for index in range(classes))
    written = _described("classify", preprocessing.channels, names, preprocessing)
    full = {"format": FORMAT, "spec": str(spec), **written, **meta}
    return Run(Path(name), "classify", model, spec, names, preprocessing, full, None)


def _described(
    task: str, channels: int, classes: tuple[str, ...], preprocessing: Preprocessing | ScenePreprocessing
) -> dict[str, object]:
    return {
        "task": task,
        "in_channels": channels,
        "num_classes": len(classes),
        "classes": list(classes),
        "preprocessing": preprocessing.to_json(),
        "versions": versions(*PACKAGES, absent="not installed"),
    }


def load_run(folder: str | os.PathLike[str], device: str | torch.device = "cpu") -> Run:
    """Read a run directory.

    Raises:
        UserError: it is no run directory, its training did not finish, or a file of it is damaged.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"expected a run directory, but {root} is not a folder. Give the folder `resurge train` wrote.")
    if not (root / "model.json").is_file() and (root / "recipe.yaml").is_file():
        raise UserError(f"the training in {root} did not finish. Go on with: resurge train --resume {root}")
    meta = read_model_json(root)
    if "export" in meta:
        raise UserError(
            f"{root} is an export, which is for resurge predict and resurge serve only. Give the run it was made of."
        )
    try:
        task = get_task(str(meta.get("task", "classify")))
        spec = get_spec(meta["spec"])
        classes = tuple(str(name) for name in meta["classes"])
        preprocessing = task.read_preprocessing(meta["preprocessing"])
        settings = task.read_settings(meta.get("head_settings"))
        model = build_for(
            root / WEIGHTS_FILE,
            lambda: build_task_model(
                task.name, spec, len(classes), int(meta["in_channels"]), meta.get("head"), settings
            ),
        )
    except UserError as error:  # it may be of a plugin that is not installed here, or of another version
        raise UserError(f"{root / 'model.json'}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{root / 'model.json'} is damaged or was cut short ({error!r}). Train or export it again."
        ) from None
    if meta.get("norm") in ("frozen", "group"):
        convert_norm(model, meta["norm"])
    report = load_weights(model, root, layout="resurge", adapt=False)
    if report.missing or report.mismatched:
        lost = (*report.missing, *report.mismatched)
        raise UserError(
            f"the weights in {root} are not those model.json speaks of: {lost[0]} is missing or misshapen, "
            f"{len(lost)} tensors in all. Train or export it again."
        )
    recipe = read_recipe(root) if (root / "recipe.yaml").is_file() else None
    return Run(root, task.name, model.eval().to(device), spec, classes, preprocessing, meta, recipe)


def read_recipe(root: Path) -> Recipe:
    """The recipe a run was started with; raises UserError if there is none, or it is damaged."""
    path = root / "recipe.yaml"
    try:
        text = read_text(path, MOST_BYTES)
        recipe = Recipe.from_yaml(text, where=str(path))
        # The last field is looked for: others may be missing, since a version before this one did not have them.
        last = dataclasses.fields(Machine)[-1].name
        plain = parse_yaml(text)
        if last not in section(plain if isinstance(plain, dict) else None, "machine"):
            raise UserError(f"{path} was cut short: machine.{last} is missing. Write it in.")
        return recipe
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot read {path}: {reason}. {root} is not the folder of a started training.") from None


def require_empty(folder: Path) -> None:
    """Raise UserError if a folder has files, or cannot be looked into."""
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise UserError(f"cannot use {folder}: {error.strerror or error}. Choose another folder with --out.") from None
    if taken:
        raise UserError(
            f"{folder} is not empty. Go on with the training in it by --resume {folder}, start anew by "
            "--overwrite, or give another folder with --out."
        )


def prepare(folder: Path, *, overwrite: bool) -> None:
    """Make an empty run directory, before anything expensive happens.

    With `overwrite`, what an earlier training left there is removed, and nothing else.

    Raises:
        UserError: it has files and `overwrite` is not set, or it cannot be written.
    """
    if not overwrite:
        require_empty(folder)
    with writing(folder, "Choose a folder you may write to with --out."):
        clear(folder)
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()


def clear(folder: Path) -> None:
    """Remove what a training leaves in `folder`; anything else stays."""
    for path in (folder / name for name in OURS):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def save_run_model(
    folder: Path,
    model: nn.Module,
    *,
    task: str,
    classes: tuple[str, ...],
    preprocessing: Preprocessing | ScenePreprocessing,
    norm: str,
    scores: Mapping[str, object],
    data: Mapping[str, object],
) -> None:
    """Write `model.safetensors` and `model.json`."""
    settings = getattr(model, "settings", None)
    head = {"head": model.head_name, "head_settings": to_plain(settings)} if isinstance(settings, Section) else {}
    described = _described(task, backbone_of(model).in_channels, classes, preprocessing)
    save_model(folder, model, {**described, **head, "norm": norm, "scores": dict(scores), "data": dict(data)})
