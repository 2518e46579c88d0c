"""The fixture that installs a package of examples/."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from plugins.installed import Installed

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Installed]]:
    """Install the package of a folder of examples/, and start a process that has it."""
    running = []

    def installed(name: str) -> Installed:
        source = tmp_path_factory.mktemp(name) / name  # building writes beside the source
        shutil.copytree(EXAMPLES / name, source)
        target = tmp_path_factory.mktemp("packages")
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation",
             "--disable-pip-version-check", "--target", str(target), str(source)],
            check=True,
        )  # fmt: skip
        running.append(Installed(target))
        return running[-1]

    yield installed
    for each in running:
        each.close()
