"""What every engine shares: the protocol, the names of inputs, and the errors of runtimes."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np

from resurge.errors import UserError, first_line
from resurge.infer.folder import Export
from resurge.tasks.table import get_task

INPUT = "images"
SIDES = ("height", "width")
"""What the open sides of the images are called in an ONNX file."""
SIZES = "sizes"
"""A detector's second input: int64 (N, 2), height and width of each image without its padding."""


class Engine(Protocol):
    """A loaded network.

    Attributes:
        format: onnx, openvino, torch, or run.
        precision: what it computes in: fp32, bf16, fp16 or int8.
        notes: what is other than was asked for, in sentences.
    """

    format: str
    precision: str
    notes: tuple[str, ...]

    def run(self, images: np.ndarray, sizes: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """float32 (N, C, H, W) -> the outputs by name: `logits`, or `classes` and `confidence`. Any thread may call.

        Of a detector: `boxes`, `scores`, `labels`, `masks`; see `resurge.tasks.detect.predict`. Only it looks at
        the `sizes` (N, 2) that the images have without their padding; None: they have none.

        Raises:
            UserError: the runtime cannot take images of this shape.
        """
        ...


def need(name: str) -> ModuleType:
    """A module of the extra `export`.

    Raises:
        UserError: it is not installed.
    """
    try:
        with warnings.catch_warnings():  # a runtime's own, about other packages
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise UserError(
            f"{package} is needed and cannot be imported ({error}): pip install 'resurge[export]'"
        ) from None


def expected_shape(export: Export) -> tuple[int, int, int] | None:
    """The shape (C, H, W) of every image that preprocessing makes, where there is one."""
    side, channels = export.meta["preprocessing"].get("size"), export.meta.get("in_channels")
    if not get_task(export.meta["task"]).one_size or not isinstance(side, int) or not isinstance(channels, int):
        return None
    return (channels, side, side)


def input_names(export: Export) -> tuple[str, ...]:
    """The names of what goes into the network."""
    return (INPUT, SIZES) if get_task(export.meta["task"]).takes_sizes else (INPUT,)


def fed(names: tuple[str, ...], images: np.ndarray, sizes: np.ndarray | None) -> dict[str, np.ndarray]:
    """What goes into the network, by name."""
    fed = {INPUT: np.ascontiguousarray(images)}
    if SIZES in names:
        whole = np.full((len(images), 2), images.shape[2:], dtype=np.int64)
        fed[SIZES] = whole if sizes is None else np.ascontiguousarray(sizes, dtype=np.int64)
    return fed


def unreadable(path: Path, error: Exception) -> UserError:
    """What to raise when a runtime cannot load a file."""
    return UserError(
        f"{path} cannot be loaded ({first_line(error)}). It may be of a newer version of its runtime than the one "
        "installed: update the runtime (pip install -U 'resurge[export]') or export again."
    )


def refused(images: np.ndarray, error: Exception) -> UserError:
    """What to raise when a runtime cannot run images of this shape."""
    return UserError(f"the exported network cannot take images of shape {images.shape} ({first_line(error)}).")
