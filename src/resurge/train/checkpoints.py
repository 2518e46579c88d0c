"""Checkpoint files: whole or not there, and plain data only."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO
from torch import Tensor

from resurge.errors import UserError
from resurge.files import atomic_write


class AtomicCheckpointIO(CheckpointIO):
    """Writes to a neighbour and renames it; reads tensors and plain containers only, never code."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Raises UserError when the disk is full or the folder cannot be written; the old file is then untouched."""
        try:
            with atomic_write(path) as file:
                torch.save(checkpoint, file)
        except RuntimeError as error:
            # torch's zip writer reports a failed write on its way out, hiding the OSError behind it
            reason = next((e.strerror for e in _behind(error) if isinstance(e, OSError) and e.strerror), str(error))
            raise UserError(
                f"cannot write the checkpoint {path}: {reason}. The one before it is kept. Free some space and go on "
                "with --resume."
            ) from error

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Callable[..., Any] | str | None = "cpu",
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Raises UserError when the file is missing, cut short or holds more than plain data."""
        return read_checkpoint(path)

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        Path(path).unlink(missing_ok=True)


def _behind(error: BaseException) -> Iterator[BaseException]:
    """An exception and those it was raised from, or while handling."""
    following: BaseException | None = error
    while following is not None:
        yield following
        following = following.__cause__ or following.__context__


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a checkpoint file, on the CPU.

    Raises:
        UserError: the file is missing, cut short, not a checkpoint, or holds more than tensors and plain data.
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
    if not isinstance(content, dict) or "resurge" not in content:
        raise UserError(f"{path} is not a checkpoint of a resurge training.")
    return content


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, without writing its content twice where the file system can.

    `source` is only ever replaced by renaming, so the link keeps today's content.
    """
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {target}: {error.strerror}. Free some space and go on with --resume.") from error


def first_nonfinite(state: dict[str, Tensor]) -> str | None:
    """The name of the first tensor that holds an infinity or not-a-number."""
    for name, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            return name
    return None
