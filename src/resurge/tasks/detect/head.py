"""What every head of a detector offers; see `resurge.tasks.detect.heads` for the table of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor, nn

from resurge.tasks.detect.pyramid import Features
from resurge.tasks.detect.slots import Detections


class Head(nn.Module, ABC):
    """A head on a feature pyramid. All but `losses` can be traced by torch.export.

    Attributes:
        smallest: side in pixels below which a candidate is no detection.
    """

    smallest: ClassVar[float] = 0.0

    @abstractmethod
    def losses(self, features: Features, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The terms of the training loss, scalars, by name. A target has the boxes (n, 4), labels (n,) from 1 and, for
        masks, masks (n, h, w) of an image."""

    @abstractmethod
    def candidates(self, features: Features) -> Detections:
        """All boxes with a score of every class, before the score threshold and suppression."""

    @abstractmethod
    def detect(self, features: Features) -> Detections:
        """The objects of each image."""

    @abstractmethod
    def smooth_outputs(self, features: Features, boxes: Tensor, image: Tensor) -> Iterator[Tensor]:
        """All outputs of the layers that are smooth functions of the images, for given boxes (n, 4) of the images
        int64 (n,)."""
