"""Checkpoint files: written whole or not at all, and plain data only."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor

from resurge.errors import UserError
from resurge.files import Json, atomic_write
from resurge.runs import BEST, Run, described_run
from resurge.tasks.table import get_task
from resurge.train.optim import EmaState

# 1 had the sums of the epoch in one tensor, 2 was a checkpoint of Lightning's Trainer, 3 did not describe the network
CHECKPOINT_FORMAT = 4


class State(TypedDict):
    """How far a training is, beside its tensors. `totals` are a mean over the devices: each can go on from it.

    model: what `model.json` will say, but for the scores. computed_by: what the last bits depend on, by name.
    """

    format: int
    position: dict[str, int]
    best: dict[str, float]
    since_best: int
    totals: dict[str, Tensor]
    ema: EmaState | None
    model: Json
    computed_by: dict[str, str]


class Checkpoint(TypedDict):
    """The content of a checkpoint file; `scaler` is the state of the loss scaling of fp16."""

    resurge: State
    state_dict: dict[str, Tensor]
    optimizer: Json  # as torch's optimizers type it
    scaler: Json  # as torch's GradScaler types it


def write_checkpoint(content: Mapping[str, object], path: Path) -> None:
    """Write to a neighbour of `path` and rename it.

    Raises:
        UserError: the disk is full or the folder cannot be written; the old file is then untouched.
    """
    try:
        with atomic_write(path, mark=None) as file:
            torch.save(content, file)
    except RuntimeError as error:
        # torch's zip writer reports a failed write on its way out, hiding the OSError behind it
        reason = next((e.strerror for e in _chain(error) if isinstance(e, OSError) and e.strerror), str(error))
        raise UserError(
            f"cannot write the checkpoint {path}: {reason}. The one before it is kept. Free some space and go on "
            "with --resume."
        ) from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those it was raised from, or while handling."""
    following: BaseException | None = error
    while following is not None:
        yield following
        following = following.__cause__ or following.__context__


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """The content of a checkpoint file, on the CPU.

    Raises:
        UserError: the file is missing, cut short, not a checkpoint, of another version, or holds more than tensors and
            plain data.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(
            f"there is no checkpoint {path}; the run stopped before its first one. Start it anew, with --overwrite."
        ) from None
    except Exception as error:  # torch.load raises half a dozen types for a damaged file
        reason = (
            getattr(error, "strerror", None) or f"it is damaged, cut short or no checkpoint ({type(error).__name__})"
        )
        raise UserError(
            f"cannot read the checkpoint {path}: {reason}. Put back a whole one, or start anew with --overwrite."
        ) from None
    if not isinstance(content, dict) or not isinstance(content.get("resurge"), dict):
        raise UserError(f"{path} is not a checkpoint of a resurge training.")
    if content["resurge"].get("format") != CHECKPOINT_FORMAT:
        raise UserError(f"{path} is of another version of resurge. Resume it with that version, or start anew.")
    return content  # type: ignore[return-value]  # what this version writes


def load_best(folder: str | os.PathLike[str], device: str | torch.device = "cpu") -> Run:
    """The best network so far of a training, whether it is over or not, from its checkpoint.

    Raises:
        UserError: there is no such checkpoint, or it is damaged.
    """
    root = Path(folder)
    if not (root / BEST).is_file():
        raise UserError(f"{root} has no {BEST}: it is no run directory, or its training did not get that far.")
    content = read_checkpoint(root / BEST)
    state = content["resurge"]
    run = described_run(root, state["model"], root / BEST, root / BEST)
    select_by = (run.recipe and run.recipe.optimization.select_by) or get_task(run.task).metrics[0]
    scores = {f"val_{name}": state["best"][name] for name in (select_by, "loss") if name in state["best"]}
    run = replace(run, meta={**run.meta, "scores": {**scores, "epoch": state["best"]["epoch"]}})
    run.model.load_state_dict(content["state_dict"] if state["ema"] is None else state["ema"]["average"])
    run.model.to(device)
    return run


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, without writing its content twice where the file system can.

    `source` is only ever replaced by renaming, so the link keeps today's content.
    """
    temporary = target.with_name(f".{target.name}.the_link.tmp")  # a name that is swept
    try:
        temporary.unlink(missing_ok=True)
        os.link(source, temporary)
        os.replace(temporary, target)
        temporary.unlink(missing_ok=True)  # it stays where both names are one file already
    except OSError:
        with source.open("rb") as content, atomic_write(target, mark=None) as file:
            shutil.copyfileobj(content, file)
