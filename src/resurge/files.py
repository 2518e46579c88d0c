"""Writing files and folders so that a reader sees the old content or the new one, and never half of either."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from resurge.errors import UserError
from resurge.untrusted import open_regular, parse_json, read_bytes

Json = dict[str, Any]
"""A JSON object, as Python reads and writes it."""


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary neighbour of `path` for writing and rename it onto `path` when the block ends well.

    `mode` is "wb" or "w" (UTF-8; the bytes of a file name that are no text are written as `\\udcff`, which JSON reads
    back as it was). When the block raises, the neighbour is removed and `path` keeps what it had.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    target = Path(path)
    encoding, errors = (None, None) if "b" in mode else ("utf-8", "backslashreplace")
    with writing(target, "Free some space or choose another place."):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, mode, encoding=encoding, errors=errors) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, _usual_mode(0o666))  # mkstemp makes files private
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def atomic_write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8; see :func:`atomic_write`."""
    with atomic_write(path, "w") as file:
        file.write(text)


def atomic_write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content`; see :func:`atomic_write`."""
    with atomic_write(path, "wb") as file:
        file.write(content)


@contextlib.contextmanager
def atomic_folder(
    path: str | os.PathLike[str], check: Callable[[], object] = lambda: None, hint: str = "Choose another place."
) -> Iterator[Path]:
    """A new folder beside `path` that takes its place when the block ends well. When it raises, the new folder is
    removed, and the folders above it that were made for it; what stood at `path` goes only when the new one stands.

    Args:
        check: is called just before the new folder is renamed, and may raise.
        hint: what the user can do, at the end of a message.

    Raises:
        UserError: the folder cannot be written.
    """
    target = Path(path)
    parent = target.absolute().parent
    made: list[Path] = []
    try:
        with writing(target, hint):
            made += [folder for folder in (parent, *parent.parents) if not folder.exists()]
            parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(dir=parent, prefix=f".{target.name}.", suffix=".tmp"))
        try:
            yield temporary
            check()
            with writing(target, hint):
                temporary.chmod(_usual_mode(0o777))  # mkdtemp makes it private
                _swap(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except BaseException:
        for folder in made:  # the innermost first
            with contextlib.suppress(OSError):  # it was not made, or somebody else has put something there
                folder.rmdir()
        raise


def _swap(temporary: Path, target: Path) -> None:
    if not target.exists():
        temporary.rename(target)
        return
    old = Path(tempfile.mkdtemp(dir=temporary.parent, prefix=f".{target.name}.", suffix=".old"))
    try:
        target.rename(old / "old")
        try:
            temporary.rename(target)
        except OSError:
            (old / "old").rename(target)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


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
