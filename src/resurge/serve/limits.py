"""The limits of the server, with defaults for an ordinary machine."""

from __future__ import annotations

from dataclasses import dataclass

from resurge.errors import UserError
from resurge.machine import processor_count

ASPECT = 100
"""The longest side of an image, in multiples of its shorter one. Preprocessing that brings the shorter side to a fixed
size would make gigabytes of a line of pixels."""

CONNECTIONS = 512
"""Open at a time; below the usual 1024 files of a process."""

WHILE_DECODED = 16
"""The most bytes per pixel that decoding takes, with the readers' own memory. Measured with images of 40 megapixels:
JPEG 12, PNG 12, GIF 5, AVIF 14, WebP 16; a JPEG of one scan takes 4."""

ON_ITS_WAY = 1.0
"""Seconds after which an open connection that brought nothing is not waited for when the server ends."""

LINGER = 5.0
"""Seconds in which a client that was refused early may go on sending before its connection is cut."""


@dataclass(frozen=True)
class Limits:
    """Sizes are bytes, pixels and images; times are seconds.

    Attributes:
        max_bytes: of the body of a request.
        max_pixels: of an image, by its header, before any pixel is decoded.
        max_side: the longer side of an image.
        max_images: in a request.
        max_batch: images the model is given at a time.
        max_delay: how long an idle model waits for more images that are being decoded.
        queue: accepted images without a result yet, those being decoded or predicted included.
        timeout: from the last byte of a request to its response.
        read_timeout: for a client to send its request, and to take its response.
        grace: for what was accepted to be finished after SIGTERM.
        decoders: threads that decode images.
        per_client: open connections of one address; of IPv6, of one network of 64 bits.
    """

    max_bytes: int = 20_000_000
    max_pixels: int = 40_000_000
    max_side: int = 20_000
    max_images: int = 16
    max_batch: int = 8
    max_delay: float = 0.005
    queue: int = 64
    timeout: float = 30.0
    read_timeout: float = 20.0
    grace: float = 30.0
    decoders: int = max(1, min(4, processor_count()))
    per_client: int = CONNECTIONS // 4

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 0 if name in ("max_delay", "grace") else 1 if isinstance(value, int) else 1e-3
            if not least <= value < float("inf"):
                raise UserError(f"{name}: expected {least} or more, got {value}.")
        if self.max_images > self.queue:
            raise UserError(
                f"a request of max_images={self.max_images} would never fit into queue={self.queue}. Lower the former "
                "or raise the latter."
            )

    @property
    def buffered_bytes(self) -> int:
        """Of all bodies that are being read or wait to be decoded."""
        return 8 * self.max_bytes

    @property
    def decoded_bytes(self) -> int:
        """Of all images that are being decoded, or decoded and without a result yet. One of the largest can be decoded
        while two of them, four bytes per pixel, are with the model."""
        return (WHILE_DECODED + 2 * 4) * self.max_pixels
