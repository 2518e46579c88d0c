"""What the server asks of a predictor; `resurge.infer.predictor.Predictor` is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from PIL import Image


class Answer(Protocol):
    """What a model says of one image."""

    def to_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """As plain data: `predictions`, `objects` or `classes`, best first."""
        ...


class Predictor(Protocol):
    """A loaded model. `predict` is called from one thread at a time."""

    @property
    def task(self) -> str: ...
    @property
    def classes(self) -> Sequence[str]: ...
    @property
    def meta(self) -> Mapping[str, Any]: ...
    @property
    def format(self) -> str: ...
    @property
    def precision(self) -> str: ...

    def predict(self, images: Sequence[Image.Image], *, score: float = 0.0) -> Sequence[Answer]:
        """An answer for each image, in order; a detector may leave out objects of a lower score.

        Raises:
            UserError: an image cannot be used by this model.
        """
        ...


class Explainer(Protocol):
    """Shows where a network looked."""

    def __call__(self, image: Image.Image) -> bytes:
        """The image with a heat map over it, as PNG. Called from one thread at a time."""
        ...
