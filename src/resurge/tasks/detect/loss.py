"""The training of a detector or instance segmenter; the losses are those of its head."""

from __future__ import annotations

from torch import Tensor, nn

from resurge.data.loading import SceneBatch
from resurge.tasks.objective import Sums
from resurge.tasks.scenes.loss import SceneObjective


class Detection(SceneObjective):
    """Boxes with classes, and masks where the task has them."""

    def losses(self, net: nn.Module, batch: SceneBatch) -> tuple[dict[str, Tensor], Sums]:
        return net.losses(batch.images, batch.targets, batch.sizes), {}  # type: ignore[operator]
