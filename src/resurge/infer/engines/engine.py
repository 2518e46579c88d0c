"""What every engine shares: its interface, the names of inputs, and the errors of runtimes."""

from __future__ import annotations

import importlib
import warnings
from abc import ABC, abstractmethod
from types import ModuleType
from typing import ClassVar

import numpy as np

from resurge.errors import UserError, first_line
from resurge.infer.folder import Export
from resurge.tasks.table import get_task

INPUT = "images"
SIDES = ("height", "width")
"""What the open sides of the images are called in an ONNX file."""
SIZES = "sizes"
"""A detector's second input: int64 (N, 2), height and width of each image without its padding."""

Arrays = dict[str, np.ndarray]
"""Inputs or outputs by name."""


class Engine(ABC):
    """A loaded network.

    Attributes:
        format: onnx, openvino, torch, or run.
        precision: what it computes in: fp32, bf16, fp16 or int8.
        notes: what differs from the settings, in sentences.
    """

    format: ClassVar[str]
    precision: str = "fp32"
    notes: tuple[str, ...] = ()

    @abstractmethod
    def run(self, images: np.ndarray, sizes: np.ndarray | None = None) -> Arrays:
        """float32 (N, C, H, W) -> the outputs by name: `logits`, or `classes` and `confidence`. Any thread may call.

        Of a detector: `boxes`, `scores`, `labels`, `masks`; see `resurge.tasks.detect.predict`. Only it uses
        the `sizes` (N, 2) that the images have without their padding; None: they have none.

        Raises:
            UserError: the runtime cannot take images of this shape.
        """


class ExportEngine(Engine):
    """An export in a runtime: a subclass loads it and runs it.

    Class attributes: `errors`, what the runtime raises for images of a shape that the network cannot take.
    """

    errors: ClassVar[tuple[type[Exception], ...]] = (RuntimeError,)

    def __init__(self, export: Export, device: str = "auto", threads: int | None = None) -> None:
        """See `resurge.infer.engines.open_engine`."""
        self.precision = export.precision
        self._sized = get_task(export.meta["task"]).takes_sizes
        try:
            self.load(export, device, threads)
        except UserError:
            raise
        except Exception as error:  # the exceptions of runtimes have no common base but this one
            raise UserError(
                f"{export.file} cannot be loaded ({first_line(error)}). It may be of a newer version of its runtime "
                "than the one installed: update the runtime (pip install -U 'resurge[export]') or export again."
            ) from error

    @abstractmethod
    def load(self, export: Export, device: str, threads: int | None) -> None:
        """Load the file of the export."""

    @abstractmethod
    def outputs(self, inputs: Arrays) -> Arrays:
        """Run the network: contiguous arrays in, arrays out."""

    def run(self, images: np.ndarray, sizes: np.ndarray | None = None) -> Arrays:
        inputs = {INPUT: np.ascontiguousarray(images)}
        if self._sized:
            whole = np.full((len(images), 2), images.shape[2:], dtype=np.int64)
            inputs[SIZES] = whole if sizes is None else np.ascontiguousarray(sizes, dtype=np.int64)
        try:
            return self.outputs(inputs)
        except UserError:
            raise
        except self.errors as error:
            message = f"the exported network cannot take images of shape {images.shape} ({first_line(error)})."
            raise UserError(message) from error


def need(name: str, install: str = "pip install 'resurge[export]'") -> ModuleType:
    """A module of an extra, that of `export` unless `install` says otherwise.

    Raises:
        UserError: it is not installed.
    """
    try:
        with warnings.catch_warnings():  # a runtime's own, about other packages
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise UserError(f"{package} is needed and cannot be imported ({error}): {install}") from None


def expected_shape(export: Export) -> tuple[int, int, int] | None:
    """The shape (C, H, W) of every image that preprocessing makes, where there is one."""
    side, channels = export.meta["preprocessing"].get("size"), export.meta.get("in_channels")
    if not get_task(export.meta["task"]).one_size or not isinstance(side, int) or not isinstance(channels, int):
        return None
    return (channels, side, side)
