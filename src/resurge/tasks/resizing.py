"""Bilinear resizing of maps (K, h, w) in NumPy, as `F.interpolate` does with align_corners=False. Imports no torch."""

from __future__ import annotations

import numpy as np

from resurge.tasks.result import Size


def enlarged(values: np.ndarray, size: Size) -> np.ndarray:
    """float32 (K, h, w) resized to (K, *size), all at once."""
    _, rows, columns = values.shape
    return mixed(mixed(values, 1, *between(rows, size[0])), 2, *between(columns, size[1]))


def between(count: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `wanted` pixels: the two of `count` it lies between, and how near it is to the second."""
    at = np.maximum((np.arange(wanted) + 0.5) * (count / wanted) - 0.5, 0)
    first = np.minimum(at.astype(np.int64), count - 1)
    return first, np.minimum(first + 1, count - 1), (at - first).astype(np.float32)


def mixed(values: np.ndarray, axis: int, first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The mean of the values at `first` and `second` along an axis (1 or 2 of three), weighted by `share`."""
    near, far = values.take(first, axis=axis), values.take(second, axis=axis)
    far -= near
    far *= share[:, None] if axis == 1 else share
    near += far
    return near
