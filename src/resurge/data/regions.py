"""The pixels of one object as a small value: polygons or run lengths, in COCO's sense of both.

Decoding is that of faster-coco-eval's mask routines, which give pycocotools' pixels to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from faster_coco_eval.core import mask as coco_mask

from resurge.errors import UserError

Box = tuple[float, float, float, float]

LONGEST = 1e7
"""Pixels that an outline may be long."""


class Rle(TypedDict):
    """COCO's compressed run lengths as faster-coco-eval takes them; size is [height, width]."""

    size: list[int]
    counts: bytes


@dataclass(frozen=True)
class RunLengths:
    """A mask of height x width pixels as COCO's compressed run lengths, column by column."""

    height: int
    width: int
    counts: bytes

    def decode(self, height: int, width: int) -> np.ndarray:
        """bool (height, width). Raises UserError when the mask was made for an image of another size."""
        if (height, width) != (self.height, self.width):
            raise UserError(
                f"the mask of an object has {self.width} x {self.height} pixels, but its image has {width} x {height}. "
                "`resurge check-data` lists such masks; --fix leaves them out."
            )
        result: np.ndarray = coco_mask.decode(self.to_coco()).astype(bool)
        return result

    def area(self) -> int:
        """Number of pixels."""
        return int(coco_mask.area(self.to_coco()))

    def box(self) -> Box:
        """The smallest box (x1, y1, x2, y2) around the pixels; zeros when there are none."""
        x, y, w, h = (float(value) for value in coco_mask.toBbox(self.to_coco()))
        return (x, y, x + w, y + h)

    def to_coco(self) -> Rle:
        return {"size": [self.height, self.width], "counts": self.counts}


@dataclass(frozen=True)
class Polygons:
    """Closed outlines in pixels; the object is what any of them encloses. Each is float64 x, y, x, y, … as bytes."""

    outlines: tuple[bytes, ...]

    def decode(self, height: int, width: int) -> np.ndarray:
        """bool (height, width)."""
        return self.run_lengths(height, width).decode(height, width)

    def run_lengths(self, height: int, width: int) -> RunLengths:
        """The same pixels of an image of that size as run lengths."""
        parts = coco_mask.frPyObjects(self.points(), height, width)
        return RunLengths(height, width, coco_mask.merge(parts)["counts"])

    def box(self) -> Box:
        """The smallest box (x1, y1, x2, y2) around the points."""
        points = np.frombuffer(b"".join(self.outlines), dtype=np.float64).reshape(-1, 2)
        (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return (x1, y1, x2, y2)

    def moved(self, move: Callable[[np.ndarray], np.ndarray]) -> Polygons:
        """With points float64 (n, 2) moved as `move` says."""
        points = (np.frombuffer(outline, dtype=np.float64).reshape(-1, 2) for outline in self.outlines)
        return Polygons(tuple(np.ascontiguousarray(move(each), dtype=np.float64).tobytes() for each in points))

    def points(self) -> list[list[float]]:
        """The outlines as lists x, y, x, y, …"""
        return [np.frombuffer(outline, dtype=np.float64).tolist() for outline in self.outlines]


def polygons(outlines: list[list[float]]) -> Polygons:
    """Outlines given as lists x, y, x, y, …; each needs three points or more, and finite numbers. Raises ValueError
    when an outline is none, or far too long to lie in an image: the decoder takes memory for each pixel of it."""
    packed = []
    for outline in outlines:
        values = np.asarray(outline, dtype=np.float64)
        if values.ndim != 1 or len(values) < 6 or len(values) % 2 or not np.isfinite(values).all():
            raise ValueError("an outline needs three points or more, as finite numbers x, y, x, y, …")
        points = values.reshape(-1, 2)
        if np.abs(values).max() * len(values) > LONGEST and np.abs(np.diff(points, axis=0)).sum() > LONGEST:
            raise ValueError(f"an outline reaches to {values[np.abs(values).argmax()]:g}, far out of any image")
        packed.append(values.tobytes())
    if not packed:
        raise ValueError("there is no outline")
    return Polygons(tuple(packed))


def run_lengths_of(mask: np.ndarray) -> RunLengths:
    """The run lengths of a mask (height, width): bool, or numbers that are not 0 on the object.

    COCO counts down the columns. Only those that hold the object are turned round, which takes longer than all else.
    """
    height, width = mask.shape
    columns = np.flatnonzero(mask.any(axis=0))
    left, right = (int(columns[0]), int(columns[-1]) + 1) if columns.size else (0, 0)
    pixels = np.zeros((right - left) * height + 2, dtype=bool)
    pixels[1:-1].reshape(-1, height)[:] = mask[:, left:right].T != 0
    edges = left * height + np.flatnonzero(pixels[1:] != pixels[:-1])
    counts = np.diff(edges, prepend=0, append=height * width).tolist()
    return _packed(counts[:-1] if len(counts) > 1 and counts[-1] == 0 else counts, height, width)


def nearest(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W) to (height, width), each pixel that of the nearest centre."""
    # By index: several times faster than torchvision's resize of masks, which besides rounds coordinates down and
    # so shifts them by up to half a pixel against the picture.
    if values.shape == (height, width):
        return values
    rows, columns = (
        ((np.arange(new) + 0.5) * (old / new)).astype(np.int64)
        for new, old in zip((height, width), values.shape, strict=True)
    )
    result: np.ndarray = values[rows][:, columns]
    return result


def _packed(counts: list[int], height: int, width: int) -> RunLengths:
    packed = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return RunLengths(height, width, packed["counts"])


def coco_run_lengths(value: dict[str, object]) -> RunLengths:
    """A COCO annotation's run lengths {"size": [h, w], "counts": list of lengths or compressed text}. Raises ValueError
    when the value is of another form, or the lengths do not fill the size."""
    size, counts = value.get("size"), value.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
        raise ValueError("run lengths need a size of two whole numbers, height and width")
    height, width = size
    if height * width >= 2**31:
        raise ValueError(f"run lengths of {height} x {width} pixels are of no image")
    if isinstance(counts, list):
        if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != height * width:
            raise ValueError(f"run lengths must be whole numbers that add up to {height} x {width}")
        return _packed(counts, height, width)
    if isinstance(counts, (str, bytes)):
        packed = counts.encode("ascii") if isinstance(counts, str) else counts
        if _total(packed) != height * width:
            raise ValueError(f"compressed run lengths do not fill {height} x {width} pixels")
        return RunLengths(height, width, packed)
    raise ValueError("run lengths need counts: a list of lengths, or compressed text")


def _total(packed: bytes) -> int:
    """Sum of the lengths in COCO's compressed text: groups of five bits, lowest first, from the third length on as
    differences to the last but one. Counted here because the decoder trusts its input and would read past its end."""
    lengths: list[int] = []
    at = 0
    while at < len(packed):
        value, shift, more = 0, 0, True
        while more:
            if at >= len(packed) or not 48 <= packed[at] < 112:
                raise ValueError("compressed run lengths are cut short or hold other characters")
            group = packed[at] - 48
            value |= (group & 31) << shift
            shift += 5
            at += 1
            more = bool(group & 32)
        if group & 16:
            value -= 1 << shift
        if len(lengths) > 2:
            value += lengths[-2]
        if value < 0:
            raise ValueError("compressed run lengths hold a negative length")
        lengths.append(value)
    return sum(lengths)
