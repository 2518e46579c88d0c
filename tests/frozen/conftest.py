"""The recorded values, and what is made once for all workers of a test run."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from frozen.goldens import Goldens


@pytest.fixture(scope="session")
def goldens(pytestconfig: pytest.Config) -> Goldens:
    return Goldens(pytestconfig.getoption("--write-goldens"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """How a sum is split over threads changes its last bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """`once(name, make)`: the folder that `make` fills; the workers of pytest-xdist share it, and one fills it."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def folder(name: str, make: Callable[[Path], None]) -> Path:
        place = root / f"frozen-{name}"
        with FileLock(root / f"frozen-{name}.lock"):
            done = place / "done"
            if not done.exists():
                place.mkdir(exist_ok=True)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # other tests see to those; here only results matter
                    make(place)
                done.touch()
        return place

    return folder


@pytest.fixture(scope="session")
def recorded(once: Callable[[str, Callable[[Path], None]], Path]) -> Callable[[str], dict[str, Any]]:
    """The record of a task's tiny training; see tiny_runs.py."""
    from frozen import tiny_runs

    def make(task: str, folder: Path) -> None:
        tiny_runs.train(task, folder)
        (folder / "record.json").write_text(json.dumps(tiny_runs.record(task, folder)))

    def of(task: str) -> dict[str, Any]:
        folder = once(task, lambda folder: make(task, folder))
        found: dict[str, Any] = json.loads((folder / "record.json").read_text())
        return found

    return of
