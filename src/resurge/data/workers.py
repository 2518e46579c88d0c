"""The processes that read samples, and how batches come from them."""

from __future__ import annotations

import contextlib
import functools
import logging
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from resurge.data.loading import EpochSampler

log = logging.getLogger(__name__)

T = TypeVar("T")

SHARED_MEMORY = Path("/dev/shm")
"""Where the system keeps memory of several processes; a container often has 64 MB of it."""


Collate = Callable[[list[Any]], Any]


@dataclass(frozen=True)
class _Packed:
    """Writes samples into one text of bytes, which a loader process sends through a pipe, without shared memory; the
    batch is made where they arrive."""

    collate: Collate

    def __call__(self, samples: list[Any]) -> bytes:
        return pickle.dumps(samples, pickle.HIGHEST_PROTOCOL)


def sender(dataset: Dataset[T], collate: Collate, batch_size: int, workers: int) -> Collate:
    """What loader processes do with samples: `collate`, or where the shared memory of the system has no room for the
    batches, which is said, something that `received` makes them of."""
    return collate if not workers or _has_shared_memory(dataset, batch_size, workers) else _Packed(collate)


def received(loader: DataLoader[Any]) -> Iterator[Any]:
    """The batches of a loader; see `sender`."""
    batches, sent = DataLoader.__iter__(loader), loader.collate_fn
    return (sent.collate(pickle.loads(batch)) for batch in batches) if isinstance(sent, _Packed) else batches


def _has_shared_memory(dataset: Dataset[T], batch_size: int, workers: int) -> bool:
    """Whether there is room for the batches that loader processes keep ready, by the first sample."""
    if not SHARED_MEMORY.is_dir():
        return True  # another system, which has it elsewhere
    found = os.statvfs(SHARED_MEMORY)
    free = found.f_bavail * found.f_frsize
    if free >= _ENOUGH:
        return True
    ready = (2 * workers + 1) * batch_size  # two batches per process, and the one that is used
    needed = 2 * ready * len(pickle.dumps(dataset[0]))  # other samples may be larger, and there is another loader
    if needed > free:
        _warn(
            f"{SHARED_MEMORY} has room for {free >> 20} MB, and the batches of {workers} loader processes may need "
            f"{-(-needed >> 20)}: they go through pipes instead. More of it (docker run --shm-size 2g) is faster."
        )
    return needed <= free


@functools.cache
def _warn(text: str) -> None:
    """Once; several loaders are made."""
    log.warning(text)


_ENOUGH = 8 << 30


class ImageLoader(DataLoader[object]):
    """A `DataLoader` whose processes end as soon as it is closed or no longer used.

    torch's own asks them to end and waits up to 5 s for each; those started after CUDA was initialised may not answer.
    """

    _processes: frozenset[multiprocessing.process.BaseProcess] = frozenset()
    _owner = 0  # the process that started them; a loader process has a copy of this loader

    def __iter__(self) -> Iterator[object]:  # type: ignore[override]  # torch's type is private
        if not self.num_workers:
            return received(self)
        before = set(multiprocessing.active_children())
        with _sigterm_blocked():
            iterator = received(self)
        self._processes |= frozenset(multiprocessing.active_children()) - before
        self._owner = os.getpid()
        return iterator

    def close(self) -> None:
        """End the processes; the loader cannot be used any more."""
        started, self._processes = self._processes, frozenset()
        if not started or self._owner != os.getpid():
            return
        for process in started:
            process.terminate()
        for process in started:
            process.join(5)

    def __del__(self) -> None:
        self.close()


@contextlib.contextmanager
def _sigterm_blocked() -> Iterator[None]:
    """Processes started inside receive SIGTERM only once they have torch's handler, see `_start_worker`."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def make_loader(
    dataset: Dataset[T], sampler: EpochSampler, workers: int = 0, pin_memory: bool = False,
    collate_fn: Callable[[list[T]], object] | None = None,
) -> ImageLoader:  # fmt: skip
    """A loader of (images (N, C, H, W) float32, labels (N,) int64), or of what `collate_fn` makes of a list of samples.
    The result does not depend on `workers`."""
    return ImageLoader(
        dataset, batch_sampler=sampler, num_workers=workers, pin_memory=pin_memory, persistent_workers=workers > 0,
        worker_init_fn=_start_worker,
        collate_fn=sender(dataset, collate_fn or default_collate, sampler.batch_size, workers),
    )  # fmt: skip


def _start_worker(worker: int) -> None:
    torch.set_num_threads(1)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    if hasattr(os, "setpgid"):
        # Ctrl-C of a terminal and SIGTERM of torchrun go to the whole process group; a training that takes a last
        # step before it stops still needs its workers. They end when it does.
        os.setpgid(0, 0)
