"""Test-time augmentation: an image is predicted at several sizes, mirrored or in windows. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resurge.recipe import Recipe


@dataclass(frozen=True)
class TTA:
    """Test-time augmentation of a segmenter; see `resurge.tasks.segment.sliding.predict_probabilities`."""

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    window: tuple[int, int] | None = None

    @property
    def plain(self) -> bool:
        """Whether one forward pass of the whole image is all."""
        return self == TTA()

    @staticmethod
    def of_recipe(recipe: Recipe | None) -> TTA:
        """What a recipe tests with; nothing without a recipe."""
        if recipe is None:
            return TTA()
        testing = recipe.testing
        return TTA(tuple(testing.test_scales), testing.test_flip, _sides(testing.test_window))

    @staticmethod
    def of_json(values: Mapping[str, Any]) -> TTA:
        """From the fields of one, as an evaluation states them."""
        return TTA(tuple(values["scales"]), values["flip"], _sides(values["window"]))


def _sides(window: Sequence[int] | None) -> tuple[int, int] | None:
    return None if window is None else (window[0], window[1])
