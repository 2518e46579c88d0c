"""What runs in torch: the network of a run, and a program of torch.export."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from resurge.infer.engines.archive import vetted
from resurge.infer.engines.engine import Arrays, Engine, ExportEngine
from resurge.infer.folder import Export
from resurge.runs import Run
from resurge.tasks.detect import ops as detection_ops  # noqa: F401  registers the operators of a detector
from resurge.tasks.running import pick_device
from resurge.tasks.table import get_task


class Live(Engine):
    """The network of a run, on the device where it is."""

    format = "run"

    def __init__(self, run: Run) -> None:
        self._task, self._model = get_task(run.task), run.model

    def run(self, images: np.ndarray, sizes: np.ndarray | None = None) -> Arrays:
        if sizes is None:
            sizes = np.full((len(images), 2), images.shape[2:], dtype=np.int64)
        return self._task.run(self._model, np.ascontiguousarray(images), sizes)


class ProgramEngine(ExportEngine):
    """A program of torch.export, in torch."""

    format = "torch"
    errors = (RuntimeError, AssertionError, ValueError)

    def load(self, export: Export, device: str, threads: int | None) -> None:
        self._device = pick_device(device)
        if self._device.type == "cpu" and not _has_arithmetic(self.precision):
            self.notes = (
                f"this processor has no {self.precision} arithmetic: torch emulates it and is slower than in fp32.",
            )
        if threads is not None:
            torch.set_num_threads(threads)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(vetted(export.file))
            if self._device.type != "cpu":
                from torch.export.passes import move_to_device_pass

                program = move_to_device_pass(program, str(self._device))
            self._module = program.module()
        self._names = list(export.meta["export"]["outputs"])

    def outputs(self, inputs: Arrays) -> Arrays:
        given = [torch.from_numpy(array).to(self._device) for array in inputs.values()]
        given[0] = given[0].to(memory_format=torch.channels_last)
        with torch.inference_mode():
            found = self._module(*given)
        values = found if isinstance(found, (tuple, list)) else (found,)
        return {name: value.cpu().numpy() for name, value in zip(self._names, values, strict=True)}


_ARITHMETIC = {
    "bf16": ("avx512_bf16", "amx_bf16", "avx_ne_convert", "avx10_2", "bf16", "sve_bf16"),
    "fp16": ("avx512_fp16", "amx_fp16", "avx_ne_convert", "avx10_2", "fp16_arith"),
}
"""Where a processor has any of these, by their names in torch, oneDNN convolves in this precision without emulation."""


def _has_arithmetic(precision: str) -> bool:
    """Whether this processor has instructions for a precision; true where torch is too old to know."""
    known = getattr(torch.cpu, "get_capabilities", None)
    if known is None or precision not in _ARITHMETIC:
        return True
    found = known()
    return any(found.get(name) for name in _ARITHMETIC[precision])
