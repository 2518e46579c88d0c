"""Test-time augmentation: an image is predicted at several sizes, mirrored or in windows. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
        window = testing.test_window
        return TTA(tuple(testing.test_scales), testing.test_flip, None if window is None else (window[0], window[1]))
