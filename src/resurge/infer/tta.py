"""How a segmenter is asked: at which sizes, mirrored, in windows. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Views:
    """How a segmenter is asked; see `resurge.tasks.segment.sliding.predict_probabilities`."""

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    window: tuple[int, int] | None = None

    @property
    def plain(self) -> bool:
        """Whether one forward pass of the whole image is all."""
        return self == Views()

    @staticmethod
    def of_recipe(recipe: Any) -> Views:
        """What a run's recipe tests with; plain where there is none."""
        if recipe is None:
            return Views()
        window = recipe.testing.test_window
        sides = None if window is None else (window[0], window[1])
        return Views(tuple(recipe.testing.test_scales), recipe.testing.test_flip, sides)

    @staticmethod
    def of(options: Any, own: Views) -> Views:
        """What the command line says (`scales`, `flip` and `window`, None where it says nothing), otherwise `own`."""
        return Views(
            own.scales if options.scales is None else options.scales,
            own.flip if options.flip is None else options.flip,
            own.window if options.window is None else options.window[0],
        )
