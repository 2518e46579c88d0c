"""The run directory: what a training leaves, and what everything after it starts from.

.resurge-run       says that the folder is ours, and is locked while a training runs in it
recipe.yaml        everything needed to repeat the training
split.csv          which image was in which split
digests.csv        digests of the images and their annotations, in the order of split.csv
metrics.csv, tb/   the course of the training
checkpoints/       last.ckpt and best.ckpt, to resume
model.safetensors  the weights that were kept
model.json         network, classes, preprocessing, scores, versions
evaluation.json    the scores in full
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
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
from resurge.data.coding import Coding
from resurge.data.preprocessing import Preprocessing, ScenePreprocessing
from resurge.errors import UserError
from resurge.files import MARK, Json, carries, locked, make_folders, remove_empty, sweep, writing
from resurge.machine import versions
from resurge.recipe import MOST_BYTES, Machine, Recipe
from resurge.run_files import EVALUATION, FORMAT, read_model_json, section
from resurge.tasks.table import build_task_model, get_task
from resurge.untrusted import parse_yaml, read_text
from resurge.weights.checkpoint import WEIGHTS_FILE, build_for, describe_model, load_weights, save_model

LAST = Path("checkpoints", "last.ckpt")
BEST = Path("checkpoints", "best.ckpt")
MARKER = ".resurge-run"
EVENTS = ".resurge"
"""How the names of our event files of TensorBoard end."""
OURS = (
    "recipe.yaml", "split.csv", "digests.csv", "metrics.csv", "model.safetensors", "model.json", EVALUATION,
    "report.html", "checkpoints/last.ckpt", "checkpoints/best.ckpt", f"tb/events.*{EVENTS}", "explain/cost.json",
)  # fmt: skip
"""What a training leaves in its folder, as patterns; the pictures in explain/ carry our mark."""
FOLDERS = ("checkpoints", "tb", "explain")
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

    @property
    def coding(self) -> Coding | None:
        """What the values of masks meant in the training; None where model.json does not say. Raises UserError when it
        speaks of other classes."""
        values = dict(self.meta.get("data") or {}).get("values")
        try:
            return Coding.from_json(values, self.classes) if values else None
        except (ValueError, AttributeError) as error:
            what = f"{self.folder / 'model.json'} is damaged: data.values is of other classes"
            raise UserError(f"{what}. Restore it, or train again.") from error


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
        best = ""
        if (root / BEST).is_file():
            best = " Its best network so far is what predict, eval and export take with --best."
        raise UserError(f"the training in {root} did not finish. Go on with: resurge train --resume {root}{best}")
    meta = read_model_json(root)
    if "export" in meta:
        raise UserError(
            f"{root} is an export, which is for resurge predict and resurge serve only. Give the run it was made of."
        )
    run = described_run(root, meta, root / "model.json", root / WEIGHTS_FILE)
    report = load_weights(run.model, root, layout="resurge", adapt=False)
    if report.missing or report.mismatched:
        lost = (*report.missing, *report.mismatched)
        raise UserError(
            f"the weights in {root} are not those model.json speaks of: {lost[0]} is missing or misshapen, "
            f"{len(lost)} tensors in all. Train or export it again."
        )
    run.model.to(device)
    return run


def described_run(root: Path, meta: Mapping[str, Any], where: Path, weights: Path) -> Run:
    """The run that a description such as that of model.json speaks of, with random weights; those meant for it are in
    the file `weights`.

    Raises:
        UserError: the description, which is in the file `where`, is damaged.
    """
    try:
        task = get_task(str(meta.get("task", "classify")))
        spec = get_spec(meta["spec"])
        classes = tuple(str(name) for name in meta["classes"])
        preprocessing = task.read_preprocessing(meta["preprocessing"])
        settings = task.read_settings(meta.get("head_settings"))
        model = build_for(
            weights,
            lambda: build_task_model(
                task.name, spec, len(classes), int(meta["in_channels"]), meta.get("head"), settings
            ),
        )
    except UserError as error:  # it may be of a plugin that is not installed here, or of another version
        raise UserError(f"{where}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where} is damaged or was cut short ({error!r}). Train or export it again.") from None
    if meta.get("norm") in ("frozen", "group"):
        convert_norm(model, meta["norm"])
    recipe = read_recipe(root) if (root / "recipe.yaml").is_file() else None
    return Run(root, task.name, model.eval(), spec, classes, preprocessing, meta, recipe)


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


@contextlib.contextmanager
def occupied(folder: Path, *, resume: bool = False, overwrite: bool = False) -> Iterator[None]:
    """Hold a run directory for one training, which is the only one in it for that time.

    The folder is made where there is none, and removed again when nothing was written into it.

    Args:
        resume: the folder is that of a training.
        overwrite: it may be the folder of an earlier training.

    Raises:
        UserError: a training runs in it, it cannot be written, or, without `resume`, it has files and is not an earlier
            training's that may be overwritten.
    """

    def check() -> None:
        if not resume:
            _require_free(folder, overwrite)

    check()
    marked = (folder / MARKER).exists()
    with writing(folder, "Choose a folder you may write to with --out."):
        made = make_folders(folder)
    try:
        with locked(folder / MARKER, "a run directory of resurge", f"a training runs in {folder} already"):
            try:
                check()  # another one may have ended meanwhile
                for place in (folder, *(folder / name for name in FOLDERS)):
                    sweep(place, *(Path(name).name for name in OURS), "*.png", "*.jpg", "*.svg")
                yield
            finally:
                with contextlib.suppress(OSError):  # somebody has removed the folder
                    if not _others(folder) or (resume and not marked):  # a resume makes nobody's folder ours
                        (folder / MARKER).unlink()
    finally:
        remove_empty(made)


def _others(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name != MARKER]


def _require_free(folder: Path, overwrite: bool) -> None:
    try:
        taken = folder.exists() and (not folder.is_dir() or bool(_others(folder)))
    except OSError as error:
        raise UserError(f"cannot use {folder}: {error.strerror or error}. Choose another folder with --out.") from None
    if not taken:
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is a file. Give a folder to write with --out.")
    if not overwrite:
        raise UserError(
            f"{folder} is not empty. Go on with the training in it by --resume {folder}, start anew by "
            "--overwrite, or give another folder with --out."
        )
    if not (folder / MARKER).is_file():
        raise UserError(
            f"{folder} has files in it and is no run directory of resurge (it has no file {MARKER}), so nothing in it "
            "is replaced. Give another folder with --out."
        )


def prepare(folder: Path) -> None:
    """Remove what an earlier training left in an occupied folder, and make room for another one.

    Raises:
        UserError: the folder cannot be written.
    """
    with writing(folder, "Choose a folder you may write to with --out."):
        clear(folder)
        (folder / "checkpoints").mkdir(exist_ok=True)


def clear(folder: Path) -> None:
    """Remove what a training leaves in `folder`; anything else stays."""
    for path in [found for pattern in OURS for found in folder.glob(pattern)]:
        path.unlink()
    for picture in (folder / "explain").glob("*.*"):
        if picture.is_file() and carries(picture, MARK):
            picture.unlink()
    remove_empty(folder / name for name in FOLDERS)


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
    described = describe(model, task=task, classes=classes, preprocessing=preprocessing, norm=norm, data=data)
    save_model(folder, model, {**described, "scores": dict(scores)})


def describe(
    model: nn.Module,
    *,
    task: str,
    classes: tuple[str, ...],
    preprocessing: Preprocessing | ScenePreprocessing,
    norm: str,
    data: Mapping[str, object],
) -> Json:
    """What `model.json` says of a network in training, without its scores."""
    settings = getattr(model, "settings", None)
    head = {"head": model.head_name, "head_settings": to_plain(settings)} if isinstance(settings, Section) else {}
    described = _described(task, backbone_of(model).in_channels, classes, preprocessing)
    return {"format": FORMAT, **describe_model(model), **described, **head, "norm": norm, "data": dict(data)}
