"""What every head of a detector offers, and what heads share; see `resurge.tasks.detect.heads` for the table of them.

How many objects there are depends on the image; a tensor with a slot for each object that there may be has a shape that
follows from the batch alone. So evaluation, prediction and exported networks compute the same thing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resurge.tasks.detect.ops import ABSENT, suppress
from resurge.tasks.detect.pyramid import Features
from resurge.tasks.detect.settings import Detector


class Detections(NamedTuple):
    """The objects of N images in D slots per image, the highest score first."""

    boxes: Tensor  # float32 (N, D, 4), left, top, right and bottom in pixels of the batch
    scores: Tensor  # float32 (N, D), 0 in a free slot
    labels: Tensor  # int64 (N, D) from 0, -1 in a free slot
    masks: Tensor | None = None  # float32 (N, D, s, s), probabilities inside each box; None without masks

    def as_list(self) -> list[dict[str, Tensor]]:
        """For each image the n slots that are taken: boxes (n, 4), scores (n,), labels (n,) and masks (n, 1, s, s)."""
        found = []
        for row, count in enumerate((self.scores > 0).sum(1).tolist()):
            own = {name: getattr(self, name)[row, :count] for name in ("boxes", "scores", "labels")}
            found.append(own if self.masks is None else own | {"masks": self.masks[row, :count, None]})
        return found


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


def taken(boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
    """Boxes (N, D, 4) with scores and labels (N, D), of which those with the score `ABSENT` or 0 are free slots."""
    there = scores > 0
    return Detections(boxes, scores.where(there, 0.0), labels.where(there, -1))


def select(boxes: Tensor, scores: Tensor, settings: Detector) -> Detections:
    """The best candidates, after the score threshold and suppression within each class; see `ops.suppress`."""
    scores = scores.where(scores > settings.score_threshold, ABSENT)
    index = suppress(boxes, scores, settings.nms_threshold, settings.max_detections)
    there, index, classes = index >= 0, index.clamp(min=0), scores.shape[2]
    own = index if boxes.shape[2] > 1 else index // classes
    return taken(
        rows(boxes.flatten(1, 2), own), scores.flatten(1).gather(1, index).where(there, ABSENT), index % classes
    )


def by_class(scores: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Scores (N, n) of candidates that have one label (N or 1, n) each -> (N, n, K), `ABSENT` for other classes."""
    own = labels[..., None] == torch.arange(classes, device=labels.device)
    return scores[..., None].where(own, ABSENT)


def occupied(there: Tensor) -> Tensor:
    """Places int64 (M,) among the N * n of bool (N, n): the slots that go through the layers of a head. A runtime's
    layers need not take an empty batch: an exported network computes one more slot, which is not used."""
    index = there.flatten().nonzero()[:, 0]
    return torch.cat([index, index.new_zeros(1)]) if torch.compiler.is_exporting() else index


def put_back(values: Tensor, index: Tensor, there: Tensor, rest: float) -> Tensor:
    """Values (M, ...) of the slots at `index` -> (N, n, ...), with `rest` in the slots that are free."""
    count = there.shape[0] * there.shape[1]
    every = values.new_zeros((count, *values.shape[1:])).index_put((index,), values)
    every = every.unflatten(0, (there.shape[0], there.shape[1]))  # type: ignore[no-untyped-call]
    result: Tensor = every.where(there[(..., *[None] * (values.ndim - 1))], rest)
    return result


def rows(values: Tensor, index: Tensor) -> Tensor:
    """Rows (N, k, ...) of (N, n, ...) by their indices (N, k)."""
    return values.gather(1, index[:, :, None].expand(-1, -1, values.shape[2]))


def top(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` highest of (N, n) and their indices; where n is less, the rest are -inf with the index 0."""
    there = cast(int, torch.sym_min(count, scores.shape[1]))  # `min`, where the number may be a symbol of torch.export
    best, index = scores.topk(there)
    return F.pad(best, (0, count - there), value=-torch.inf), F.pad(index, (0, count - there))


def clip(boxes: Tensor, limits: Tensor) -> Tensor:
    """Boxes (..., 4) inside their images, whose width, height, width and height are in `limits` (..., 4)."""
    return torch.minimum(boxes.clamp(min=0), limits)


def sizable(boxes: Tensor, smallest: float) -> Tensor:
    """Whether both sides of boxes (..., 4) are at least this long, in pixels."""
    return (boxes[..., 2] - boxes[..., 0] >= smallest) & (boxes[..., 3] - boxes[..., 1] >= smallest)
