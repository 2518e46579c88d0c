"""What all tests share: which ones run, where real data is, and randomness that repeats."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hypothesis
import pytest

# Times on shared machines say nothing about the code, so hypothesis measures none; `ci` always draws the same examples.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run tests that take more than half a minute")
    parser.addoption("--network", action="store_true", help="also run tests that talk to the internet")
    parser.addoption("--write-goldens", action="store_true", help="record the values of tests/frozen anew")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow; runs with --slow"))
        if "network" in item.keywords and not config.getoption("--network"):
            item.add_marker(pytest.mark.skip(reason="talks to the internet; runs with --network"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if "gpu" in item.keywords:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def _same_randomness() -> None:
    """Every test starts from the same state of torch's generator, whatever ran before it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the unpacked real data sets; tests that ask for it are skipped where there is none."""
    folder = Path(os.environ.get("RESURGE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real data: name its folder in RESURGE_TEST_DATA")
    return folder
