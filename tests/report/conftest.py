"""A complete run directory for every test that asks."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_run import make_run


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A complete run directory of the ten digits."""
    return make_run(tmp_path / "digits-demo")
