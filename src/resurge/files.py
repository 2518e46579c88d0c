"""Writing files so that a reader sees the old content or the new one, and never half of either."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from resurge.errors import UserError


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary neighbour of `path` for writing and rename it onto `path` when the block ends well.

    `mode` is "wb" or "w" (UTF-8; the bytes of a file name that are no text are written as `\\udcff`, which JSON reads
    back as it was). When the block raises, the neighbour is removed and `path` keeps what it had.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    target = Path(path)
    temporary: str | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
        encoding, errors = (None, None) if "b" in mode else ("utf-8", "backslashreplace")
        with os.fdopen(handle, mode, encoding=encoding, errors=errors) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; give the result the permissions an ordinary open() would have given.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {target}: {reason}. Free some space or choose another place.") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def atomic_write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8; see :func:`atomic_write`."""
    with atomic_write(path, "w") as file:
        file.write(text)


def atomic_write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content`; see :func:`atomic_write`."""
    with atomic_write(path, "wb") as file:
        file.write(content)
