"""What a network says of an image. Every task has a class of results in its own folder. Imports no torch.

A result is in the pixels of the image as it was given, upright, whatever size the network saw it at.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from resurge.errors import UserError

Size = tuple[int, int]
"""Height and width, pixels."""


class Result(ABC):
    """The result for one image.

    In the methods, `classes` are the names of the classes by label, and `top` is the number of classes per image where
    a result ranks them.
    """

    @abstractmethod
    def to_json(
        self, classes: Sequence[str], top: int | None = None, *, score: float = 0.0, masks: bool = True
    ) -> dict[str, Any]:
        """As plain data: `predictions`, `objects` or `classes`, the best first.

        Args:
            top: None for all classes.
            score: objects with a lower score are left out.
            masks: whether objects have their masks.
        """

    @abstractmethod
    def to_text(self, classes: Sequence[str], top: int = 1) -> str:
        """In one line, for people."""

    @abstractmethod
    def to_rows(self, classes: Sequence[str], top: int = 1) -> Iterator[list[str]]:
        """As rows of a table with the columns that `Task.columns` names, without the path of the image."""

    @property
    def label_map(self) -> np.ndarray | None:
        """uint8 (H, W), the class of every pixel; None where the result is no label map."""
        return None


def finite(values: np.ndarray) -> np.ndarray:
    """The same values.

    Raises:
        UserError: one of them is not a finite number.
    """
    if not np.isfinite(values).all():
        raise UserError(
            "the network's answer is not a number: its weights are damaged, or, in fp16, numbers above 65,504 came up. "
            "Train or export it again, in bf16 or fp32."
        )
    return values
