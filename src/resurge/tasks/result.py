"""What a network predicts for an image. Every task has a class of results in its own folder. Imports no torch.

A result is in the pixels of the image as it was given, upright, whatever size the network saw it at.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np

from resurge.errors import UserError
from resurge.files import Json

Size = tuple[int, int]
"""Height and width, pixels."""


class Result(ABC):
    """The result for one image. `classes` are their names by label, `top` is how many are shown where a result ranks
    them."""

    @abstractmethod
    def to_json(
        self, classes: Sequence[str], top: int | None = None, *, score: float = 0.0, masks: bool = True
    ) -> Json:
        """As plain data: `predictions`, `objects` or `classes`, the best first. `top` None is all classes; objects with
        a lower score than `score` are left out, and their masks without `masks`."""

    @abstractmethod
    def to_text(self, classes: Sequence[str], top: int = 1) -> str:
        """In one line, for people."""

    @abstractmethod
    def to_rows(self, classes: Sequence[str], top: int = 1) -> Iterator[list[str]]:
        """As rows of a table with the columns that `Task.columns` names, without the path of the image."""

    def from_score(self, score: float) -> Result:
        """Without the objects that have a lower score; as it is where there are no objects."""
        return self

    @property
    def label_map(self) -> np.ndarray | None:
        """uint8 (H, W), the class of every pixel; None where the result is no label map."""
        return None


def finite(values: np.ndarray) -> np.ndarray:
    """The same values. Raises UserError when one of them is not a finite number."""
    if not np.isfinite(values).all():
        raise UserError(
            "the network's output is not a number: its weights are damaged, or, in fp16, numbers above 65,504 came up. "
            "Train or export it again, in bf16 or fp32."
        )
    return values


# Bilinear resizing of maps (K, h, w), as `F.interpolate` does with align_corners=False.


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
