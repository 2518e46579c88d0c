"""What the pictures of a data set say of themselves: their headers, read in parallel without decoding a pixel."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from resurge.data.images import LATE_TAGS, MAX_BYTES, ImageHeader, UnreadableImage, read_header
from resurge.untrusted import open_regular

_START = 1 << 16  # bytes


def read_headers(root: Path, names: Iterable[str], threads: int = 8) -> dict[str, ImageHeader]:
    """The headers of the files that can be read, by name below `root`."""
    distinct = list(dict.fromkeys(names))
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(lambda name: _header(root / name), distinct)
        return {name: header for name, header in zip(distinct, found, strict=True) if header is not None}


def _header(path: Path) -> ImageHeader | None:
    try:
        with open_regular(path) as file:
            data = file.read(_START)
            rest = b""
            if data.startswith(b"\x89PNG") and len(data) == _START:
                # The tags of a PNG may stand behind its pixels.
                file.seek(max(file.seek(0, 2) - _START, _START))
                rest = file.read()
            try:
                if not any(tag in rest for tag in LATE_TAGS):
                    return read_header(data, str(path))
            except UnreadableImage:
                pass
            file.seek(0)
            return read_header(file.read(), str(path))
    except (OSError, ValueError, UnreadableImage):
        return None
