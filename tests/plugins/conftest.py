"""The fixture that installs a package of examples/."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from plugins.installed import Installed

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def install(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Installed]:
    """Install the package of a folder of examples/."""

    def installed(name: str) -> Installed:
        source = tmp_path_factory.mktemp(name) / name  # building writes beside the source
        shutil.copytree(EXAMPLES / name, source)
        target = tmp_path_factory.mktemp("packages")
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation",
             "--disable-pip-version-check", "--target", str(target), str(source)],
            check=True,
        )  # fmt: skip
        return Installed(target)

    return installed
