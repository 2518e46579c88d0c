"""From the bytes of an upload to an image, with the limits checked before any pixel is decoded.

Formats are those of the web: JPEG, PNG, WebP, GIF, BMP, AVIF; and TIFF and .npy where the network takes other images
than of 8 bits in grey or colour. Of an animation the first frame is taken. EXIF orientation is applied, transparency
laid over white. SVG and every other format is an error.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from io import BytesIO

from PIL import Image

from resurge.data.band_files import deep
from resurge.data.bands import Bands, Picture
from resurge.data.images import MAX_PIXELS, UnreadableImage, decode, pillow_settings, read_header
from resurge.serve.limits import ASPECT, WHILE_DECODED, Limits
from resurge.serve.responses import ServeError

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "AVIF")
"""Pillow's readers for uploads: fewer than for a user's own files. Many phones write MPO."""

_COPIES = 8
"""How often the values of an image of more bits or bands are in memory while it is decoded, at most."""

_SCANS = 256
"""The most scans of a progressive JPEG; ordinary ones have about ten. Each costs a pass over all pixels, so a small
file with thousands of them would keep a thread busy for minutes."""


def check(data: bytes, name: str, limits: Limits, any_bands: bool = False) -> int:
    """The bytes that decoding an image takes, by its header. `any_bands`: TIFF and .npy are read.

    Raises:
        UnreadableImage: it is empty or damaged.
        ServeError: its format is not read, or it is larger than the limits.
    """
    format, (width, height), values = _header(data, name, limits, any_bands)
    size = f"{width} x {height}"
    if width * height > limits.max_pixels:
        message = f"announces {size} = {width * height:,} pixels; this server takes {limits.max_pixels:,}."
        raise ServeError(413, "too-large", message)
    if max(width, height) > limits.max_side:
        raise ServeError(413, "too-large", f"has {size} pixels; this server takes {limits.max_side:,} on a side.")
    if max(width, height) > ASPECT * min(width, height):
        raise ServeError(422, "too-narrow", f"has {size} pixels; one side is more than {ASPECT} times the other.")
    if format in ("JPEG", "MPO") and data.count(b"\xff\xda") > _SCANS:
        raise ServeError(422, "corrupt", f"is a JPEG of more than {_SCANS} scans. Save it anew.")
    held = max(WHILE_DECODED * width * height, _COPIES * values)
    if held > WHILE_DECODED * limits.max_pixels:
        message = f"has {values:,} bytes of values; this server takes {WHILE_DECODED * limits.max_pixels // _COPIES:,}."
        raise ServeError(413, "too-large", message)
    return held


def _header(data: bytes, name: str, limits: Limits, any_bands: bool) -> tuple[str, tuple[int, int], int]:
    """(format, (width, height), bytes of its values where they are not of 8 bits in grey or colour, else 0)"""
    if any_bands:
        with contextlib.suppress(UnreadableImage):
            header = read_header(data, name, max(limits.max_pixels, MAX_PIXELS))
            if header.format in (*FORMATS, "TIFF", "NPY"):
                return header.format, header.size, header.nbytes
    with pillow_settings:
        Image.init()
        try:
            image = Image.open(BytesIO(data), formats=[reader for reader in FORMATS if reader in Image.OPEN])
            raster = deep(image, data)
            return str(image.format), image.size, 0 if raster is None else raster.nbytes
        except Exception:  # the wording of what is wrong stands in data.images
            pass
    header = read_header(data, name, limits.max_pixels)
    expected = "JPEG, PNG, WebP, GIF, BMP, AVIF, TIFF or .npy" if any_bands else "JPEG, PNG, WebP, GIF, BMP or AVIF"
    raise ServeError(415, "not-an-image", f"is {header.format}. Expected {expected}.")


def read(data: bytes, name: str, limits: Limits) -> Picture:
    """The image, upright. Raises UnreadableImage when it is damaged or does not fit into memory."""
    _, image = decode(data, name, limits.max_pixels)
    # Pillow's readers of these formats keep their input for as long as the image exists.
    return image.copy() if isinstance(image, Image.Image) and image.format in ("WEBP", "AVIF") else image


class MemoryBudget:
    """At most so many bytes at a time; the requests that wait for room are served in order. For one event loop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._turn = asyncio.Lock()
        self._returned = asyncio.Event()

    def try_take(self, count: int) -> bool:
        """Take room if there is some and nobody waits for it."""
        if self._turn.locked() or self.held + count > self.limit:
            return False
        self.held += count
        return True

    async def take(self, count: int) -> None:
        """Wait for room for `count` bytes, at most `limit`."""
        async with self._turn:
            while self.held + count > self.limit:
                self._returned.clear()
                await self._returned.wait()
            self.held += count

    def give_back(self, count: int) -> None:
        """Return bytes that were taken."""
        self.held -= count
        self._returned.set()


class Decoder:
    """Checks and decodes in a few threads, within the limits.

    Args:
        executor: its threads decode; nothing else should keep them busy for long.
    """

    def __init__(self, limits: Limits, executor: Executor) -> None:
        self._limits, self._executor = limits, executor
        self.budget = MemoryBudget(limits.decoded_bytes)

    @asynccontextmanager
    async def open(self, data: bytes, name: str, any_bands: bool = False) -> AsyncIterator[Picture]:
        """The image, whose memory counts as held for the block. `any_bands` as for `check`.

        Raises:
            UnreadableImage, ServeError: as `check` and `read`.
        """
        submit = asyncio.get_running_loop().run_in_executor
        held = await submit(self._executor, check, data, name, self._limits, any_bands)
        await self.budget.take(held)
        done = submit(self._executor, read, data, name, self._limits)
        try:
            image = await asyncio.shield(done)
            each = 1 if image.mode == "L" else 4  # Pillow keeps RGB in four bytes
            kept = image.nbytes if isinstance(image, Bands) else image.width * image.height * each
            self.budget.give_back(held - kept)
            held = kept
            yield image
        finally:
            if done.done():
                self.budget.give_back(held)
            else:  # cancelled; the thread goes on, and keeps its memory
                done.add_done_callback(lambda future: self._release(future, held))

    def _release(self, done: asyncio.Future[Picture], held: int) -> None:
        if not done.cancelled():
            done.exception()  # nobody else asks for it any more
        self.budget.give_back(held)
