"""OpenVINO, on the processor."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from resurge.errors import UserError
from resurge.infer.engines.engine import expected_shape, fed, input_names, need, refused, unreadable
from resurge.infer.engines.shapes import CompiledShapes
from resurge.infer.folder import Export

if TYPE_CHECKING:
    import openvino


def openvino_core() -> openvino.Core:
    """The one OpenVINO core of this process.

    Its processor plugin gives the thread an alternative signal stack and takes it away when the last core ends. One
    core that never ends leaves no signal, Ctrl-C for example, without a stack.

    Raises:
        UserError: OpenVINO is not installed.
    """
    return _made_once(need("openvino").Core)


def openvino_settings(precision: str, threads: int | None = None) -> dict[str, str | int]:
    """How OpenVINO is told to run a network: for the shortest time of one batch, in this arithmetic.

    Left to itself it takes bf16 wherever the processor has it; for what int8 leaves unquantised that is its own choice.
    """
    settings: dict[str, str | int] = {"PERFORMANCE_HINT": "LATENCY"}
    hint = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}.get(precision)
    if hint is not None:
        settings["INFERENCE_PRECISION_HINT"] = hint
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    return settings


@functools.cache
def _made_once(kind: type[openvino.Core]) -> openvino.Core:
    return kind()


class OpenVinoEngine:
    """OpenVINO, on the processor."""

    format = "openvino"
    notes: tuple[str, ...] = ()

    def __init__(self, export: Export, device: str, threads: int | None) -> None:
        if device not in ("auto", "cpu"):
            raise UserError(f"an openvino export runs on the processor; expected --device cpu or auto, got {device!r}.")
        core = openvino_core()
        able = set(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        self.precision = export.precision
        if self.precision in ("bf16", "fp16") and self.precision.upper() not in able:
            self.notes = (f"this processor has no {self.precision} arithmetic: OpenVINO computes in fp32.",)
            self.precision = "fp32"
        settings = openvino_settings(self.precision, threads)
        try:
            _require_ir(export.file)
            self._shapes = CompiledShapes(
                # not mapped: it is compiled again for other shapes, when another file may be in the place of this one
                core.read_model(export.file, config={"ENABLE_MMAP": False}),
                lambda model: core.compile_model(model, "CPU", settings),
                always_fixed=self.precision == "int8",
                expected=expected_shape(export),
            )
        except RuntimeError as error:
            raise unreadable(export.file, error) from error

        self._inputs = input_names(export)

    def run(self, images: np.ndarray, sizes: np.ndarray | None = None) -> dict[str, np.ndarray]:
        try:
            return self._shapes(fed(self._inputs, images, sizes))
        except RuntimeError as error:
            raise refused(images, error) from error


def _require_ir(path: Path) -> None:
    """Raises UserError if a file is of another format than OpenVINO's own, for which OpenVINO would load a reader."""
    with path.open("rb") as file:
        if file.read(1) != b"<":
            raise UserError(f"{path} is not OpenVINO's XML. Copy it again or export again.")
