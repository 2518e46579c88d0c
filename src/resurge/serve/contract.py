"""What the server needs of a predictor; `resurge.infer.predictor.Predictor` is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from resurge.tasks.result import Result


class Predictor(Protocol):
    """A loaded model. `predict` is called from one thread at a time."""

    @property
    def task(self) -> str: ...
    @property
    def classes(self) -> Sequence[str]: ...
    @property
    def meta(self) -> Mapping[str, object]: ...
    @property
    def format(self) -> str: ...
    @property
    def precision(self) -> str: ...

    def predict(self, images: Sequence[Image.Image], *, score: float = 0.0) -> Sequence[Result]:
        """A result for each image, in order; a detector may leave out objects with a lower score.

        Raises:
            UserError: an image cannot be used by this model.
        """
        ...


@dataclass(frozen=True)
class Loaded:
    """A model that can be served.

    explain: the image with a heat map over it, as PNG, called from one thread at a time; None where the model cannot
    show where it looked.
    """

    predictor: Predictor
    explain: Callable[[Image.Image], bytes] | None = None
