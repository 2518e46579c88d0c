"""From the bytes of an upload to a picture, with the limits checked before any pixel is decoded.

Formats are those of the web: JPEG, PNG, WebP, GIF, BMP, AVIF. Of an animation the first frame is taken. EXIF
orientation is applied, transparency laid over white. SVG and everything else is refused.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from resurge.data.images import UnreadableImage, decode, pillow_settings, read_header
from resurge.serve.limits import ASPECT, WHILE_DECODED, Limits
from resurge.serve.refusals import Refused

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "AVIF")
"""Pillow's readers that see what strangers send: fewer than for a user's own files. MPO is what many phones write."""

_SCANS = 256
"""Scans a progressive JPEG may have; ordinary ones have about ten. Each costs a pass over all pixels, so that a small
file with thousands of them would keep a thread busy for minutes."""


def check(data: bytes, name: str, limits: Limits) -> int:
    """How many pixels the picture has, by its header.

    Raises:
        Refused: it is no picture of a known format, or larger than the limits.
    """
    try:
        format, (width, height) = _header(data, name, limits)
    except UnreadableImage as error:
        raise Refused.of(error) from error
    if width * height > limits.max_pixels:
        raise Refused(
            413,
            "too-large",
            f"announces {width} x {height} = {width * height:,} pixels; this server takes {limits.max_pixels:,}.",
        )
    if max(width, height) > limits.max_side:
        raise Refused(
            413, "too-large", f"has {width} x {height} pixels; this server takes {limits.max_side:,} on a side."
        )
    if max(width, height) > ASPECT * min(width, height):
        raise Refused(
            422, "too-narrow", f"has {width} x {height} pixels; one side is more than {ASPECT} times the other."
        )
    if format in ("JPEG", "MPO") and data.count(b"\xff\xda") > _SCANS:
        raise Refused(422, "corrupt", f"is a JPEG of more than {_SCANS} scans. Save it anew.")
    return width * height


def _header(data: bytes, name: str, limits: Limits) -> tuple[str, tuple[int, int]]:
    with pillow_settings:
        Image.init()
        try:
            image = Image.open(BytesIO(data), formats=[reader for reader in FORMATS if reader in Image.OPEN])
            return str(image.format), image.size
        except Exception:  # the wording of what is wrong stands in data.images
            pass
    header = read_header(data, name, limits.max_pixels)
    raise Refused(415, "not-an-image", f"is {header.format}. Expected JPEG, PNG, WebP, GIF, BMP or AVIF.")


def read(data: bytes, name: str, limits: Limits) -> Image.Image:
    """The picture, upright, in mode L or RGB.

    Raises:
        Refused: it is truncated, damaged or does not fit into memory.
    """
    try:
        _, image = decode(data, name, limits.max_pixels)
    except UnreadableImage as error:
        raise Refused.of(error) from error
    # Pillow's readers of these formats keep what they decoded from as long as there is the picture that they made.
    return image.copy() if image.format in ("WEBP", "AVIF") else image


class MemoryBudget:
    """At most so many bytes of decoded pictures at a time; who asks first is served first.

    Of one event loop, except `try_take`.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._lock = threading.Lock()

    def try_take(self, count: int) -> bool:
        """Take room for a picture if there is some and nobody waits for it; from any thread."""
        with self._lock:
            if self._line or self.held + count > self.limit:
                return False
            self.held += count
            return True

    async def take(self, count: int) -> None:
        """Wait for room for a picture of `count` bytes, at most `limit`."""
        if self.try_take(count):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            self._line.append((count, turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(count)  # it was let in at the moment it was cancelled
            else:
                self._admit()  # those behind it may fit now
            raise

    def give_back(self, count: int) -> None:
        """So much of what was taken is free again."""
        with self._lock:
            self.held -= count
        self._admit()

    def _admit(self) -> None:
        with self._lock:
            while self._line:
                count, turn = self._line[0]
                if not turn.done():
                    if self.held + count > self.limit:
                        return
                    self.held += count
                    turn.set_result(None)
                self._line.popleft()


class Decoder:
    """Checks and decodes in a few threads, within the limits.

    Args:
        executor: its threads decode; nothing else should keep them busy for long.
    """

    def __init__(self, limits: Limits, executor: Executor) -> None:
        self._limits, self._executor = limits, executor
        self.budget = MemoryBudget(limits.decoded_bytes)

    @asynccontextmanager
    async def open(self, data: bytes, name: str) -> AsyncIterator[Image.Image]:
        """The picture, whose memory counts as held for the block.

        Raises:
            Refused: as `check` and `read`.
        """
        submit = asyncio.get_running_loop().run_in_executor
        # In nearly every case there is room, and one trip to a thread does; the event loop has no time to waste.
        opened = _Opened()
        done: asyncio.Future[Image.Image | None] = submit(self._executor, self._open, data, name, opened)
        try:
            image = await asyncio.shield(done)
            if image is None:
                await self.budget.take(opened.needed)
                opened.held = opened.needed
                done = submit(self._executor, self._read, data, name)
                image = await asyncio.shield(done)
            assert image is not None  # there is room for it now
            kept = image.width * image.height * (1 if image.mode == "L" else 4)  # Pillow keeps RGB in four bytes
            self.budget.give_back(opened.held - kept)
            opened.held = kept
            yield image
        finally:
            if done.done():
                self._close(opened)
            else:  # cancelled; the thread goes on, and with it the memory
                done.add_done_callback(lambda future: self._close(opened, future))

    def _open(self, data: bytes, name: str, opened: _Opened) -> Image.Image | None:
        """The picture; None when there is no room for it now. Runs in a thread."""
        opened.needed = check(data, name, self._limits) * WHILE_DECODED
        if not self.budget.try_take(opened.needed):
            return None
        opened.held = opened.needed
        return self._read(data, name)

    def _read(self, data: bytes, name: str) -> Image.Image | None:
        return read(data, name, self._limits)

    def _close(self, opened: _Opened, future: asyncio.Future[Image.Image | None] | None = None) -> None:
        if future is not None and not future.cancelled():
            future.exception()  # nobody else asks for it any more
        if opened.held:
            self.budget.give_back(opened.held)


@dataclass
class _Opened:
    """What decoding a picture takes of the budget, and what is taken now; in bytes."""

    needed: int = 0
    held: int = 0
