"""What runs in a race: a network made ready for one cell, with what making it ready took.

`ours` is the one place that says how a network of this project is run in each runtime and precision: the way
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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from resurge.bench.files import Files
from resurge.bench.settings import Cell
from resurge.bench.subjects import Subject
from resurge.errors import UserError, first_line
from resurge.infer.engines import open_engine
from resurge.infer.folder import Export
from resurge.optimize.autotune import optimize
from resurge.optimize.rewrite import rewrite

Ask = Callable[[np.ndarray], np.ndarray]
"""float32 (N, C, H, W) -> the first output, float32."""

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LAYOUTS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}


@dataclass(frozen=True)
class Job:
    """A cell with all that is the same for both sides: the images, the threads, the device."""

    cell: Cell
    images: np.ndarray
    threads: int
    device: torch.device


@dataclass(frozen=True)
class Contestant:
    """A network that is ready.

    setting: how it is run, in a word or two. ask: what it answers to some images. run: one pass over the images of the
    job. load_s: seconds from the file, or from the network in memory, to the first answer. memory_mb: what that added
    to the process (on a GPU: to what torch holds there), 10^6 bytes; None where it cannot be told.
    """

    setting: str
    ask: Ask
    run: Callable[[], Any]
    load_s: float
    memory_mb: float | None
    notes: tuple[str, ...] = ()


def ready(
    setting: str, job: Job, load: Callable[[], tuple[Ask, Callable[[], Any]]], notes: tuple[str, ...] = ()
) -> Contestant:
    """Load something and let it answer once, with an eye on the clock and the memory."""
    before = occupied(job.device)
    begin = time.perf_counter()
    ask, run = load()
    run()
    load_s = time.perf_counter() - begin
    after = occupied(job.device)
    memory = None if before is None or after is None else max(after - before, 0) / 1e6
    return Contestant(setting, ask, run, load_s, memory, notes)


def occupied(device: torch.device) -> int | None:
    """Bytes that this process occupies, or that torch holds on a GPU; None where the system does not say."""
    gc.collect()
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back, so that it does not hide what comes
        with contextlib.suppress(OSError):
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE")
    return None


def in_torch(
    setting: str, net: nn.Module, job: Job, *, layout: str = "channels-last", autocast: bool = False,
    compiled: Mapping[str, Any] | None = None,
) -> Contestant:  # fmt: skip
    """A network in torch, in the precision of the job.

    Args:
        autocast: keep the weights in fp32 and let torch cast, in place of casting the network once.
        compiled: options of torch.compile; None does not compile.
    """
    kind = torch.float32 if autocast else TYPES[job.cell.precision]
    order = LAYOUTS[layout]

    def load() -> tuple[Ask, Callable[[], Any]]:
        own: Any = copy.deepcopy(net).to(job.device, kind).to(memory_format=order)
        if compiled is not None:
            own = torch.compile(own, options=dict(compiled) or None)

        def given(images: np.ndarray) -> Tensor:
            return torch.from_numpy(images).to(job.device, kind).contiguous(memory_format=order)

        def step(images: Tensor) -> Any:
            casting = torch.autocast(job.device.type, torch.bfloat16) if autocast else contextlib.nullcontext()
            with torch.inference_mode(), casting:
                found = own(images)
                if images.is_cuda:
                    torch.cuda.synchronize(images.device)
                return found

        return lambda images: step(given(images)).float().cpu().numpy(), partial(step, given(job.images))

    return ready(setting, job, load)


def in_engine(setting: str, export: Export, job: Job) -> Contestant:
    """An export, through the engine that `resurge predict` and `resurge serve` run it with."""
    notes: list[str] = []

    def load() -> tuple[Ask, Callable[[], Any]]:
        engine = open_engine(export, "cpu", job.threads)
        notes.extend(engine.notes)
        return lambda images: next(iter(engine.run(images).values())), partial(engine.run, job.images)

    made = ready(setting, job, load)
    return Contestant(made.setting, made.ask, made.run, made.load_s, made.memory_mb, tuple(notes))


def ours(subject: Subject, job: Job, files: Files) -> Contestant:
    """A network of this project, the way it is deployed.

    Raises:
        UserError: it cannot be exported, a package is missing, or an export is asked for another runtime.
    """
    runtime, precision = job.cell.runtime, job.cell.precision
    if subject.export is not None:
        return in_engine("export", subject.export, job)
    assert subject.run is not None
    model = subject.run.model
    if runtime == "eager":
        example = torch.from_numpy(job.images).to(job.device, TYPES[precision])
        return in_torch("optimized", optimize(model, example, device=job.device).model, job)
    if runtime == "compile":
        try:
            return in_torch("rewritten, frozen", rewrite(model), job, compiled={"freezing": True})
        except RuntimeError as error:
            raise UserError(
                f"torch.compile does not work here ({first_line(error)}). Leave compile out of --runtimes."
            ) from error
    return in_engine("export", files.ours(subject, runtime, precision), job)
