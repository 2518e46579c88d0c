"""A new export takes the place it was asked to have only when it is whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from resurge.errors import UserError
from resurge.infer.folder import is_export


def require_free(target: Path, overwrite: bool) -> None:
    """Raises UserError when `target` is taken, unless by an export that may be replaced."""
    if not target.exists():
        return
    if not target.is_dir():
        raise UserError(f"{target} is a file. Name a folder that is not there yet with --out.")
    if any(target.iterdir()) and not (overwrite and is_export(target)):
        what = "an export" if is_export(target) else "a folder with other files in it"
        hint = "Pass --overwrite to replace it" if what == "an export" else "Name another one"
        raise UserError(f"{target} is there already, {what}. {hint}.")


@contextmanager
def beside(target: Path, overwrite: bool) -> Iterator[Path]:
    """A new folder beside `target` that takes its place when the block ends well, and is removed otherwise, with the
    folders above it that were made for it."""
    parent = target.absolute().parent
    with _parents(parent, target):
        with _writing(target):
            temporary = Path(tempfile.mkdtemp(dir=parent, prefix=f".{target.name}.", suffix=".tmp"))
        try:
            yield temporary
            require_free(target, overwrite)  # it may have been made meanwhile
            with _writing(target):
                umask = os.umask(0)
                os.umask(umask)
                temporary.chmod(0o777 & ~umask)  # mkdtemp makes it private
                _swap(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _parents(parent: Path, target: Path) -> Iterator[None]:
    """`parent` is there in the block; what was made for that goes again when the block fails."""
    made: list[Path] = []
    try:
        with _writing(target):
            made += [folder for folder in (parent, *parent.parents) if not folder.exists()]
            parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in made:  # the innermost first
            with suppress(OSError):  # it was not made, or somebody else has put something there
                folder.rmdir()
        raise


def _swap(temporary: Path, target: Path) -> None:
    """Rename, and what stood there goes only when the new one stands."""
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


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {target}: {error.strerror or error}. Choose another place with --out."
        ) from error
