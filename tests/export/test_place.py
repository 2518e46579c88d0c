"""An export takes its place when it is whole; what fails or is ended leaves nothing behind, no empty folder either."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_exports import write_classifier

from resurge.files import atomic_folder


def interrupted(target: Path, *files: Path) -> None:
    """An export to `target` that is interrupted when it and somebody else have written files."""
    with atomic_folder(target) as folder:
        for file in (folder / "file", *files):
            file.touch()
        raise KeyboardInterrupt


def test_folders_made_on_the_way_go_again(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for target in (tmp_path / "new" / "a" / "b", tmp_path / "there" / "a" / "b"):
        with pytest.raises(KeyboardInterrupt):
            interrupted(target)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_folders_that_others_use_meanwhile_stay(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "new" / "a" / "b", tmp_path / "new" / "letter.txt")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["letter.txt"]


def test_what_ends_well_stays(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "new" / "a" / "b") as folder:
        (folder / "file").touch()
    assert [path.name for path in (tmp_path / "new" / "a" / "b").iterdir()] == ["file"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM")
def test_an_export_that_is_terminated_leaves_nothing(tmp_path: Path) -> None:
    run = write_classifier(tmp_path / "run")
    command = [sys.executable, "-m", "resurge", "export", str(run), "--format", "torch"]
    place = tmp_path / "new" / "a"
    with subprocess.Popen([*command, "--out", str(place / "b")], stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 120
        while not list(place.glob(".b.*.tmp")) and time.monotonic() < until and process.poll() is None:
            time.sleep(0.01)
        assert list(place.iterdir())
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 143, said
    assert "ended by SIGTERM" in said
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
