"""Nothing of somebody else's is replaced or removed; what takes another one's place does so in one step."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from resurge import files
from resurge.errors import UserError
from resurge.files import MARK, atomic_folder, atomic_write, atomic_write_text, locked, require_apart, sweep

ENDLESS = """
import os, sys, time
from pathlib import Path
from resurge.files import atomic_folder, atomic_write, locked
with {what}:
    {then}
    print("in", flush=True)
    time.sleep(300)
"""


def begun(what: str, then: str = "pass") -> subprocess.Popen[str]:
    """Another process that is in the middle of something."""
    code = ENDLESS.format(what=what, then=then)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    return process


def killed(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(timeout=60)
    assert process.stdout is not None
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL


def test_a_file_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "found.csv"
    file.write_text("precious")
    with pytest.raises(UserError, match="is not replaced"):
        atomic_write_text(file, "new")
    assert file.read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["found.csv"]


def test_our_own_file_and_an_empty_one_are_replaced(tmp_path: Path) -> None:
    file = tmp_path / "found.svg"
    file.touch()
    for text in (f"<!-- {MARK} --> one", "two"):
        atomic_write_text(file, text)
        assert file.read_text() == text
    with pytest.raises(UserError, match="is not replaced"):  # "two" carries no mark
        atomic_write_text(file, "three")


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    atomic_write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"
    (tmp_path / "there").mkdir()
    (tmp_path / "out").symlink_to("there")
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "file").touch()
    assert (tmp_path / "out").is_symlink()
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["file"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link", "out", "there"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
@pytest.mark.parametrize("mark", [MARK, None])
def test_a_pipe_is_not_replaced(mark: str | None, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(UserError, match="no ordinary file"):
            atomic_write_text(tmp_path / name, "new", mark)
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("way", ["exchange", "two renames"])
def test_what_is_not_ours_survives_in_a_folder_that_is_replaced(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way != "exchange":
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    target = tmp_path / "out"
    (target / "notes" / "deep").mkdir(parents=True)
    (target / "ours.txt").write_text("old")
    (target / "gone.txt").write_text("old")
    (target / "mine.txt").write_text("mine")
    (target / "notes" / "deep" / "mine.txt").write_text("deep")
    (target / "link").symlink_to("nowhere")
    with atomic_folder(target, ours=lambda folder: ("ours.txt", "gone.txt")) as folder:
        (folder / "ours.txt").write_text("new")
    assert sorted(path.name for path in target.iterdir()) == ["link", "mine.txt", "notes", "ours.txt"]
    assert (target / "ours.txt").read_text() == "new"
    assert (target / "mine.txt").read_text() == "mine"
    assert (target / "notes" / "deep" / "mine.txt").read_text() == "deep"
    assert (target / "link").readlink() == Path("nowhere")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_of_the_user_by_the_name_of_a_new_one_is_an_error(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "model.xml").write_text("mine")
    with pytest.raises(UserError, match=r"model\.xml is of somebody else"), atomic_folder(target) as folder:
        (folder / "model.xml").write_text("new")
    assert (target / "model.xml").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux's")
def test_folders_are_exchanged_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    monkeypatch.setattr(Path, "rename", lambda self, target: pytest.fail("there is a moment without the folder"))
    with atomic_folder(tmp_path / "out", ours=lambda folder: ("old",)) as folder:
        (folder / "new").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]


def test_a_folder_that_was_moved_aside_by_a_killed_process_comes_back(tmp_path: Path) -> None:
    aside = tmp_path / ".out.abcd1234.old" / "old"
    aside.mkdir(parents=True)
    (aside / "mine.txt").write_text("mine")
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "out"):
        raise KeyboardInterrupt
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no locks")
@pytest.mark.parametrize("what", ["atomic_write({!r})", "atomic_folder({!r})"])
def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(what: str, tmp_path: Path) -> None:
    target = tmp_path / "out"
    mine = tmp_path / ".other.abcd1234.tmp"
    mine.touch()
    process = begun(what.format(str(target)))
    sweep(tmp_path, "out")
    assert len(list(tmp_path.glob(".out.*.tmp"))) == 1
    killed(process)
    assert len(list(tmp_path.glob(".out.*.tmp"))) == 1
    sweep(tmp_path, "out")
    assert list(tmp_path.iterdir()) == [mine]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no locks")
def test_a_lock_goes_with_its_process_and_not_with_the_children_it_forked(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    fork = f"child = os.fork(); child or time.sleep(300); Path({str(tmp_path / 'child')!r}).write_text(str(child))"
    process = begun(f"locked(Path({str(file)!r}), 'ours', 'busy')", fork)
    try:
        with pytest.raises(UserError, match=f"busy .process {process.pid} on "), locked(file, "ours", "busy"):
            pass
        killed(process)
        with locked(file, "ours", "busy"):
            assert file.read_text().startswith("ours\n")
        with locked(file, "ours", "busy"):
            pass
    finally:
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


@pytest.mark.parametrize(
    "out, how",
    [("data", "is"), ("data/new", "lies inside"), ("data/a/b/new", "lies inside"), (".", "lies above"), ("link", "is"),
     ("other/../data", "is")],
)  # fmt: skip
def test_outputs_are_kept_apart_from_the_data(out: str, how: str, tmp_path: Path) -> None:
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to("data")
    with pytest.raises(UserError, match=f"--out .* {how} .*data"):
        require_apart(tmp_path / out, (None, "digits", tmp_path / "data"))
    require_apart(tmp_path / "data2", (tmp_path / "data",))
    require_apart(tmp_path / "other" / "new", (tmp_path / "data",))


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_write(tmp_path / "file") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []
