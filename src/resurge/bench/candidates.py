"""A network made ready to run in one configuration, with what making it ready took.

`ours` alone decides how a network of this project runs in each runtime and precision: the way
`resurge.optimize` and `resurge export` go.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import gc
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from resurge.bench.files import Files
from resurge.bench.settings import Configuration
from resurge.bench.subjects import Subject
from resurge.errors import UserError, first_line
from resurge.infer.engines import open_engine
from resurge.infer.folder import Export
from resurge.optimize.autotune import optimize
from resurge.optimize.rewrite import rewrite

Predict = Callable[[np.ndarray], np.ndarray]
"""float32 (N, C, H, W) -> the first output, float32."""
Run = Callable[[], object]
"""One pass over the images of the workload."""
Load = Callable[[], tuple[Predict, Run, tuple[str, ...]]]
"""Loads a network; gives notes in sentences, too."""

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LAYOUTS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}
LARGEST_DIFFERENCE = {"fp32": 1e-3, "bf16": 0.25}
"""How far outputs may be from the network's own in fp32, as a share of the largest: beyond it nothing is timed.

fp32 stays below a thousandth even in networks this deep, and bf16 does not, so that fp32 is known to be fp32. What int8
loses is reported and not judged: random weights tell little about it.
"""


@dataclass(frozen=True)
class Workload:
    """A configuration with all that is the same for every candidate: the images, the threads, the device."""

    configuration: Configuration
    images: np.ndarray
    threads: int
    device: torch.device


@dataclass(frozen=True)
class Candidate:
    """A network that is ready.

    Attributes:
        predict: its outputs for some images.
        run: what is timed.
        load_s: seconds from the file, or from the network in memory, to the first output.
        memory_mb: what that added to the process (on a GPU: to what torch holds there), 10^6 bytes; None where it is
            not known.
        notes: of the engine, in sentences.
        difference: of the outputs from those expected, as a share of the largest; None where nothing is expected.
        agreement: share of the decisions that are as expected.
    """

    predict: Predict
    run: Run
    load_s: float
    memory_mb: float | None
    notes: tuple[str, ...] = ()
    difference: float | None = None
    agreement: float | None = None

    def compared(self, images: np.ndarray, expected: np.ndarray | None) -> Candidate:
        """The same, with the difference of its outputs for these images from those expected."""
        if expected is None:
            return self
        found = self.predict(images)
        same = float((found.argmax(1) == expected.argmax(1)).mean())
        return replace(self, difference=difference(found, expected), agreement=same)

    def fits(self, precision: str) -> bool:
        """Whether the outputs are near enough for the precision; where nothing is expected they are."""
        return self.difference is None or self.difference <= LARGEST_DIFFERENCE.get(precision, np.inf)

    def costs(self) -> dict[str, float | None]:
        """What loading took, for a row."""
        return {"load_s": self.load_s, "memory_mb": self.memory_mb}

    def to_json(self) -> dict[str, float | None]:
        """What loading took, and how far the outputs are from those expected."""
        return {**self.costs(), "difference": self.difference, "agreement": self.agreement}


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest, as a share of the largest value expected; not a number where one of them is not."""
    peak = max(float(np.abs(expected).max()), 1e-30)
    return float(np.abs(found.astype(np.float64) - expected).max()) / peak


def outputs(net: nn.Module, images: np.ndarray) -> np.ndarray:
    """The outputs of a network in torch, as it stands, for images float32 (N, C, H, W)."""
    with torch.inference_mode():
        found: np.ndarray = net(torch.from_numpy(images)).numpy()
    return found


def ready(work: Workload, load: Load) -> Candidate:
    """Load something and run it once, measuring time and memory."""
    before = _occupied(work.device)
    begin = time.perf_counter()
    predict, run, notes = load()
    run()
    load_s = time.perf_counter() - begin
    after = _occupied(work.device)
    memory = None if before is None or after is None else round(max(after - before, 0) / 1e6, 1)
    return Candidate(predict, run, round(load_s, 3), memory, notes)


def _occupied(device: torch.device) -> int | None:
    """Bytes that this process occupies, or that torch holds on a GPU; None where the system does not tell."""
    gc.collect()
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if not sys.platform.startswith("linux"):
        return None
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back, so that it does not hide what comes
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def in_torch(
    net: nn.Module, work: Workload, *, layout: str = "channels-last", autocast: bool = False,
    compiled: Mapping[str, bool] | None = None,
) -> Candidate:  # fmt: skip
    """A network in torch, in the precision of the workload.

    Args:
        autocast: keep the weights in fp32 and let torch cast, in place of casting the network once.
        compiled: options of torch.compile; None does not compile.
    """
    kind = torch.float32 if autocast else TYPES[work.configuration.precision]
    order = LAYOUTS[layout]

    def load() -> tuple[Predict, Run, tuple[str, ...]]:
        own: Callable[[Tensor], Tensor] = copy.deepcopy(net).to(work.device, kind).to(memory_format=order)
        if compiled is not None:
            own = torch.compile(own, options=dict(compiled) or None)

        def given(images: np.ndarray) -> Tensor:
            return torch.from_numpy(images).to(work.device, kind).contiguous(memory_format=order)

        def step(images: Tensor) -> Tensor:
            with torch.inference_mode(), torch.autocast(work.device.type, torch.bfloat16, enabled=autocast):
                found = own(images)
                if images.is_cuda:
                    torch.cuda.synchronize(images.device)
                return found

        return lambda images: step(given(images)).float().cpu().numpy(), partial(step, given(work.images)), ()

    return ready(work, load)


def in_engine(export: Export, work: Workload) -> Candidate:
    """An export, through the engine that `resurge predict` and `resurge serve` run it with."""

    def load() -> tuple[Predict, Run, tuple[str, ...]]:
        engine = open_engine(export, "cpu", work.threads)
        return (
            lambda images: next(iter(engine.run(images).values())), partial(engine.run, work.images), engine.notes,
        )  # fmt: skip

    return ready(work, load)


def ours(subject: Subject, work: Workload, files: Files) -> Candidate:
    """A network of this project, the way it is deployed.

    Raises:
        UserError: it cannot be exported, or a package is missing.
    """
    runtime, precision, model = work.configuration.runtime, work.configuration.precision, subject.run.model
    if subject.export is not None:
        return in_engine(subject.export, work)
    if runtime == "eager":
        example = torch.from_numpy(work.images).to(work.device, TYPES[precision])
        return in_torch(optimize(model, example, device=work.device).model, work)
    if runtime == "compile":
        try:
            return in_torch(rewrite(model), work, compiled={"freezing": True})
        except RuntimeError as error:
            raise UserError(
                f"torch.compile does not work here ({first_line(error)}). Leave compile out of --runtimes."
            ) from error
    return in_engine(files.ours(subject, runtime, precision), work)
