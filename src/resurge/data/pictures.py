"""What the pictures of a data set say of themselves: their headers, read in parallel without decoding a pixel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from resurge.data.images import LATE_TAGS, MAX_BYTES, ImageHeader, UnreadableImage, read_header
from resurge.untrusted import open_regular

_START, _MORE = 1 << 14, 1 << 17  # bytes: mostly enough for a header, and with the thumbnails that cameras put first
_CHUNK = 64  # files that a thread takes at a time


def read_headers(root: Path, names: Iterable[str], threads: int = 4) -> dict[str, ImageHeader]:
    """The headers of the files that can be read, by name below `root`."""
    distinct = list(dict.fromkeys(names))
    chunks = [distinct[at : at + _CHUNK] for at in range(0, len(distinct), _CHUNK)]
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(lambda chunk: [_header(root / name) for name in chunk], chunks)
        headers = [header for chunk in found for header in chunk]
    return {name: header for name, header in zip(distinct, headers, strict=True) if header is not None}


def _header(path: Path) -> ImageHeader | None:
    try:
        with open_regular(path) as file:
            data = file.read(_START)
            # The tags of a PNG may stand behind its pixels.
            if data.startswith(b"\x89PNG") and any(tag in _end(file) for tag in LATE_TAGS):
                data += file.read(MAX_BYTES)
            for more in (_MORE, MAX_BYTES, 0):
                with contextlib.suppress(UnreadableImage):
                    return read_header(data, str(path))
                data += file.read(more)
    except (OSError, ValueError):
        pass
    return None


def _end(file: IO[bytes]) -> bytes:
    """The last bytes of what is left of a file, which stays where it is."""
    at = file.tell()
    file.seek(max(file.seek(0, 2) - _START, at))
    end = file.read()
    file.seek(at)
    return end
