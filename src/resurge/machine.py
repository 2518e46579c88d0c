"""The machine that a measurement was made on, and the packages it was made with."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from importlib import metadata
from pathlib import Path


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def processor_count() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions(*packages: str, absent: str | None = None) -> dict[str, str]:
    """The versions of Python and of packages by name.

    Args:
        absent: what stands for a package that is not installed; None leaves it out.
    """
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            if absent is not None:
                found[name] = absent
    return found


def described(*packages: str) -> dict[str, object]:
    """The processor, `versions` of those packages that are installed, and where torch is one of them how it computes:
    threads, vector instructions, GPU."""
    found: dict[str, object] = {"processor": processor(), **versions(*packages)}
    if "torch" in packages:
        import torch

        found |= {"threads": torch.get_num_threads(), "capability": torch.backends.cpu.get_cpu_capability()}
        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name()
    return found


def keep_freed_memory() -> None:
    """Let the C library keep the memory that a training step frees for the next one.

    glibc gives large blocks back to the system and gets them again page by page. Nothing happens with other C
    libraries, or where the environment sets glibc's limits.
    """
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        with contextlib.suppress(OSError, AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD, its largest value
            mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
