"""Images that Pillow cannot hold: any number of bands, of any depth. No torch here.

`Bands` has the few methods of `PIL.Image.Image` that reading and preparing an image use, so that code about size, crops
and resizing takes either.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image

from resurge.errors import UserError

Depth = Literal["8-bit", "integer", "float"]
"""What the values of an image are: 0 to 255; whole numbers of more bits; floating point."""

_TURNS = {Image.Transpose.ROTATE_90: 1, Image.Transpose.ROTATE_180: 2, Image.Transpose.ROTATE_270: 3}


@dataclass(frozen=True, eq=False)
class Bands:
    """An image as `planes` (C, H, W): the values of its file, or float32 in units of 0..1 once `scaled`."""

    planes: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.width, self.height

    @property
    def width(self) -> int:
        return int(self.planes.shape[2])

    @property
    def height(self) -> int:
        return int(self.planes.shape[1])

    @property
    def nbytes(self) -> int:
        return self.planes.nbytes

    @property
    def mode(self) -> str:
        """Type and number of bands: "uint16 x 4"."""
        return f"{self.planes.dtype.name} x {len(self.planes)}"

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return self.planes if dtype is None else self.planes.astype(dtype)

    def tobytes(self) -> bytes:
        """The values, band after band."""
        return self.planes.tobytes()

    def scaled(self, low: float, high: float, neutral: tuple[float, ...]) -> Bands:
        """float32, with `low` at 0 and `high` at 1; values that are no number become the band's in `neutral`."""
        exact = np.dtype(np.float32 if self.planes.dtype.itemsize <= 2 else np.float64)
        first, last = np.array([low, high], dtype=exact)
        planes: np.ndarray = (self.planes.astype(exact) - first) / (last - first)
        if self.planes.dtype.kind == "f":
            planes = np.where(np.isfinite(planes), planes, np.asarray(neutral)[:, None, None])
        return Bands(planes.astype(np.float32, copy=False))

    def shown(self, low: float, high: float) -> Image.Image:
        """For people: the first three bands as RGB, or the first in grey, black at `low` and white at `high`."""
        values = self.planes[: 3 if len(self.planes) >= 3 else 1].astype(np.float64)
        values = np.nan_to_num((values - low) / (high - low), posinf=1.0, neginf=0.0)
        pixels = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
        return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)) if len(pixels) == 3 else pixels[0])

    def crop(self, box: tuple[int, int, int, int]) -> Bands:
        """The part from (left, top) to (right, bottom), inside the image."""
        left, top, right, bottom = box
        return Bands(self.planes[:, top:bottom, left:right])

    def resize(
        self, size: tuple[int, int], resample: int = Image.Resampling.BICUBIC,
        box: tuple[float, float, float, float] | None = None,
    ) -> Bands:  # fmt: skip
        """As Pillow's, with the same antialiased filters, each band in floating point."""
        return Bands(np.stack([np.asarray(band.resize(size, resample, box)) for band in self._images()]))

    def reduce(self, factor: int) -> Bands:
        """As Pillow's: smaller by a whole factor, by averaging."""
        return Bands(np.stack([np.asarray(band.reduce(factor)) for band in self._images()]))

    def transpose(self, method: Image.Transpose) -> Bands:
        """As Pillow's: turned by quarters, or mirrored."""
        if method in _TURNS:
            return Bands(np.rot90(self.planes, _TURNS[method], (1, 2)))
        if method in (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM):
            return Bands(np.flip(self.planes, 2 if method == Image.Transpose.FLIP_LEFT_RIGHT else 1))
        turned = self.planes if method == Image.Transpose.TRANSPOSE else np.rot90(self.planes, 2, (1, 2))
        return Bands(turned.swapaxes(1, 2))

    def _images(self) -> list[Image.Image]:
        return [Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32)) for plane in self.planes]


class OtherBands(UserError):
    """An image has other bands, or values of another depth, than a network or the rest of a data set."""


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Put the name of an image in front of an `OtherBands`."""
    try:
        yield
    except OtherBands as error:
        raise OtherBands(f"{name}: {error}") from None


Picture: TypeAlias = Image.Image | Bands
"""An image as it is read: 8 bits in grey or RGB, or whatever else there is."""


def depth_of(kind: np.dtype) -> Depth:
    """The depth of values of this type."""
    return "float" if kind.kind == "f" else "8-bit" if kind.itemsize == 1 else "integer"


def bands_of(picture: Picture) -> tuple[int, Depth]:
    """(number of bands, depth)."""
    if isinstance(picture, Bands):
        return len(picture.planes), depth_of(picture.planes.dtype)
    return len(picture.getbands()), "8-bit"


def is_plain(bands: int, depth: Depth | str) -> bool:
    """Whether Pillow holds such images: 8 bits, grey or RGB."""
    return depth == "8-bit" and bands in (1, 3)


def bands_in_words(bands: int, depth: Depth | str) -> str:
    """ "4 bands of 8 bits"."""
    values = {"8-bit": "8 bits", "integer": "integers of more than 8 bits", "float": "floating point values"}[depth]
    return f"{bands} band{'' if bands == 1 else 's'} of {values}"


def same_bands(images: Mapping[str, tuple[int, Depth]]) -> tuple[int, Depth] | None:
    """The (bands, depth) of all images of a data set, from those of each by name; None without images. Grey among
    colours of 8 bits makes all of them coloured.

    Raises:
        OtherBands: they are of several kinds; names a file of each.
    """
    first: dict[tuple[int, Depth], str] = {}
    for name, found in images.items():
        first.setdefault((3, "8-bit") if is_plain(*found) else found, name)
    if len(first) > 1:
        (kind, name), *others = first.items()
        has = "; ".join(f"{other} has {_in_words(kind)}" for kind, other in others[:3])
        raise OtherBands(
            f"the images are of several kinds: {name} has {_in_words(kind)}; {has}. A network takes images of one "
            "kind: convert or remove the others."
        )
    if not first:
        return None
    return max(set(images.values())) if all(is_plain(*found) for found in images.values()) else next(iter(first))


def _in_words(kind: tuple[int, Depth]) -> str:
    return "8 bits in grey or colour" if is_plain(*kind) else bands_in_words(*kind)
