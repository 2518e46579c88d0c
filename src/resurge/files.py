"""Writing files and folders so that a reader sees the old content or the new one, and never half of either, and so that
nothing of the user's is replaced or removed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fnmatch
import glob
import hashlib
import os
import re
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from resurge.errors import UserError
from resurge.untrusted import open_regular, parse_json, read_bytes

if sys.platform != "win32":
    import fcntl

Json = dict[str, Any]
"""A JSON object, as Python reads and writes it."""

Place = str | os.PathLike[str]

MARK = "written by resurge"
"""Stands near the beginning of the files that the user names, where their format has room for it."""

_HEAD = 1 << 16  # bytes in which a mark is looked for
_LEFT = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}\.(?P<kind>tmp|old)")  # as tempfile names them
_held: set[int] = set()  # file descriptors of `locked`


# ------------------------------------------------------------------------------------------------------ what is ours


def require_free(path: Place, mark: str | None = MARK) -> None:
    """Check early that a file may be written: `require_ours`, and what a killed process left of it is swept."""
    require_ours(path, mark)
    sweep(Path(path).parent, glob.escape(Path(path).name))


def require_ours(path: Place, mark: str | None = MARK) -> None:
    """Check that a file may be written at `path`: nothing is there, or an empty file, or an earlier output.

    Args:
        mark: what the first 64 KiB of an output of this kind hold; None where any ordinary file may be replaced, as its
            folder is ours.

    Raises:
        UserError: something else is there.
    """
    target = Path(path)
    with writing(target, "Name another file."):
        try:
            found = target.stat()
        except FileNotFoundError:
            return
        if stat.S_ISDIR(found.st_mode):
            raise UserError(f"{target} is a folder; expected the name of a file.")
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"{target} is no ordinary file but a device, a pipe or a socket. Name another file.")
        if mark is None or not found.st_size or carries(target, mark):
            return
    raise UserError(
        f"{target} is there already and is no earlier output of this command, so it is not replaced. Move it away, or "
        "name another file."
    )


def carries(path: Path, mark: str) -> bool:
    """Whether a file has a mark near its beginning."""
    with path.open("rb") as file:
        return mark.encode("utf-8", "surrogateescape") in file.read(_HEAD)


def require_apart(out: Place, sources: Iterable[Place | None], option: str = "--out") -> None:
    """Check that what is written lies neither at, nor in, nor above what is read.

    Args:
        out: the file or folder to write.
        sources: files and folders that are read; None and what is no path that exists are passed over.

    Raises:
        UserError: it does. The message calls `out` by its `option`.
    """
    target = Path(out).resolve()
    for source in sources:
        if source is None:
            continue
        expanded = os.path.expanduser(source)  # noqa: PTH111 - raises nothing for an unknown user
        if not os.path.exists(expanded):  # noqa: PTH110 - nor this for a name that is too long
            continue
        place = Path(expanded).resolve()
        how = {place: "is", **dict.fromkeys(place.parents, "lies above")}.get(target)
        if how or place in target.parents:
            raise UserError(
                f"{option} {out} {how or 'lies inside'} {source}, which is to be read. Outputs are kept apart from the "
                "data; name another place."
            )


# ------------------------------------------------------------------------------------------------------------- files


@contextlib.contextmanager
def atomic_write(path: Place, mode: str = "wb", mark: str | None = MARK) -> Iterator[IO[Any]]:
    """Open a temporary neighbour of `path` for writing and rename it onto `path` when the block ends well.

    `mode` is "wb" or "w" (UTF-8; the bytes of a file name that are no text are written as `\\udcff`, which JSON reads
    back as it was). When the block raises, the neighbour is removed and `path` keeps what it had. A link stays a link.
    `mark`: see :func:`require_ours`.

    Raises:
        UserError: something else is there, the folder cannot be written, or the disk is full.
    """
    require_ours(path, mark)
    target = _where(path)
    encoding, errors = (None, None) if "b" in mode else ("utf-8", "backslashreplace")
    with writing(target, "Free some space or choose another place."):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _neighbour(target) as temporary:
            try:
                with temporary.open(mode, encoding=encoding, errors=errors) as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                temporary.chmod(_usual_mode(0o666))  # mkstemp makes files private
                temporary.replace(target)
            except BaseException:
                with contextlib.suppress(OSError):
                    temporary.unlink()
                raise


def _where(path: Place) -> Path:
    """The path, or where it leads to if it is a link: that is what is replaced."""
    target = Path(path)
    return target.resolve() if target.is_symlink() else target


def atomic_write_text(path: Place, text: str, mark: str | None = MARK) -> None:
    """Write `text` as UTF-8; see :func:`atomic_write`."""
    with atomic_write(path, "w", mark) as file:
        file.write(text)


def atomic_write_bytes(path: Place, content: bytes, mark: str | None = MARK) -> None:
    """Write `content`; see :func:`atomic_write`."""
    with atomic_write(path, "wb", mark) as file:
        file.write(content)


# ----------------------------------------------------------------------------------------------------------- folders


@contextlib.contextmanager
def atomic_folder(
    path: Place,
    check: Callable[[], object] = lambda: None,
    hint: str = "Choose another place.",
    ours: Callable[[Path], Collection[str]] = lambda folder: (),
) -> Iterator[Path]:
    """A new folder beside `path` that takes its place when the block ends well. When it raises, the new folder is
    removed, and the folders above it that were made for it; what stood at `path` goes only when the new one stands.

    Args:
        check: is called just before the new folder takes its place, and may raise.
        hint: what the user can do, at the end of a message.
        ours: the names in an older folder at `path` that are replaced; everything else there is kept.

    Raises:
        UserError: the folder cannot be written, or the older one has a file of the user's by the name of a new one.
    """
    target = _where(path).absolute()
    made: list[Path] = []
    try:
        with contextlib.ExitStack() as stack:
            with writing(target, hint):
                made += make_folders(target.parent)
                sweep(target.parent, glob.escape(target.name))
                temporary = stack.enter_context(_neighbour(target, folder=True))
            try:
                yield temporary
                check()
                with writing(target, hint):
                    temporary.chmod(_usual_mode(0o777))  # mkdtemp makes it private
                    _swap(temporary, target, ours(target) if target.is_dir() else ())
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except BaseException:
        remove_empty(made)
        raise


def make_folders(folder: Path) -> list[Path]:
    """Make a folder, and those above it; returns those that were not there, the innermost first."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those of the folders that are there and have nothing in them."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _swap(temporary: Path, target: Path, ours: Collection[str]) -> None:
    """Put a folder in the place of another, with everything of that one that is not ours."""
    if not target.exists():
        temporary.rename(target)
        return
    taken = [path for path in target.iterdir() if path.name not in ours and os.path.lexists(temporary / path.name)]
    if taken:
        raise UserError(f"{taken[0]} is of somebody else and would be replaced. Move it away.")
    _carry(target, temporary, ours)
    if _exchange(temporary, target):
        _carry(temporary, target, ours)  # what came meanwhile
        return
    # Should this be ended between the two renames, `sweep` brings the older folder back.
    with _neighbour(target, folder=True, suffix=".old") as old:
        try:
            target.rename(old / "old")
            try:
                temporary.rename(target)
            except OSError:
                (old / "old").rename(target)
                raise
        finally:
            shutil.rmtree(old, ignore_errors=True)


def _carry(old: Path, new: Path, ours: Collection[str]) -> None:
    """Link what is in a folder and not ours into another one, where it is not there yet."""
    for path in old.iterdir():
        if path.name not in ours and path.is_dir() and not path.is_symlink():
            shutil.copytree(path, new / path.name, symlinks=True, copy_function=_link, dirs_exist_ok=True)
        elif path.name not in ours:
            _link(path, new / path.name)


def _link(source: Place, target: Place) -> None:
    """The same file under a second name; a copy where the file system has no such links."""
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        pass
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two files or folders in one step; False where the system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2  # Linux's
    except (AttributeError, OSError, TypeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), os.fspath(other))


# ------------------------------------------------------------------------------------------- other processes, and dead


@contextlib.contextmanager
def _neighbour(target: Path, *, folder: bool = False, suffix: str = ".tmp") -> Iterator[Path]:
    """A new temporary file or folder beside `target`, locked so that `sweep` of another process leaves it alone."""
    with contextlib.ExitStack() as stack:
        while True:
            if folder:
                made = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=suffix))
            else:
                handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=suffix)
                os.close(handle)
                made = Path(name)
            with contextlib.suppress(FileNotFoundError):  # it was swept before it was locked
                stack.enter_context(_lock(made))
                if made.exists():
                    break
        yield made


def sweep(folder: Path, *names: str) -> None:
    """Remove what killed processes left in `folder` on their way to files and folders of these names (patterns with *).

    What a process is still writing is locked, and stays. A folder that was moved aside comes back.
    """
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            found = _LEFT.fullmatch(entry.name)
            if found is None or entry.is_symlink() or not any(fnmatch.fnmatchcase(found["name"], n) for n in names):
                continue
            with contextlib.suppress(OSError), _lock(entry.path) as free:
                if not free:  # or nobody knows
                    continue
                if found["kind"] == "old" and not (folder / found["name"]).exists():
                    Path(entry.path, "old").rename(folder / found["name"])
                if entry.is_dir():
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)


@contextlib.contextmanager
def _lock(path: Place) -> Iterator[bool | None]:
    """Lock a file or folder for as long as the block runs; see `_try_lock`."""
    if sys.platform == "win32":  # which renames nothing that is open
        yield None
        return
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield _try_lock(handle)
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool | None:
    """Lock an open file; False when another process has it, None where the system or its files know no locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextlib.contextmanager
def locked(path: Path, text: str, busy: str) -> Iterator[None]:
    """Hold the file `path` alone, which is made where there is none. However this process ends, the file is free then.

    On file systems without locks, and on Windows, nothing is held.

    Args:
        text: the first line of the file; who holds it follows.
        busy: how the message begins when another process holds it.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    with writing(path, "Choose a folder you may write to."):
        handle = _opened_and_locked(path, busy)
    _held.add(handle)
    try:
        os.truncate(handle, 0)
        os.write(handle, f"{text}\nprocess {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        if handle in _held:
            _held.remove(handle)
            os.close(handle)


def _opened_and_locked(path: Path, busy: str) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        if _try_lock(handle) is False:
            who = os.read(handle, 1000).decode(errors="replace").splitlines()[1:2]
            os.close(handle)
            raise UserError(f"{busy} ({' '.join(who) or 'another process'}). Wait until it has ended, or end it.")
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        os.close(handle)  # the process that held it has removed it


def _let_go() -> None:
    """In a process that was forked: what is locked belongs to its parent, and must be free when that has ended."""
    for handle in _held:
        with contextlib.suppress(OSError):
            os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


# -------------------------------------------------------------------------------------------------------------- others


@contextlib.contextmanager
def writing(target: Path, hint: str) -> Iterator[None]:
    """Errors of the system inside the block say that `target` cannot be written, why, and what can be done."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}. {hint}") from error


def _usual_mode(mode: int) -> int:
    """The permissions that an ordinary file or folder gets."""
    umask = os.umask(0)
    os.umask(umask)
    return mode & ~umask


MOST_JSON = 1 << 28
"""Bytes of a JSON file that is not a data set's: of a run, an export or a cache."""


def read_json(path: Path, hint: str) -> Json:
    """Read a JSON object; `hint` is what the user can do, at the end of a message.

    Raises:
        UserError: the file cannot be read, is damaged, or holds something else.
    """
    try:
        value = parse_json(read_bytes(path, MOST_JSON))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged or was cut short ({error}). {hint}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(value).__name__}. {hint}")
    return value


def sha256(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
