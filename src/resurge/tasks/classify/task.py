"""Image classification as a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from resurge.config import Section
from resurge.tasks.task import Task

if TYPE_CHECKING:
    from torch import nn

    from resurge.arch.spec import Spec
    from resurge.data.bundle import DataBundle
    from resurge.data.preprocessing import Preprocessing
    from resurge.recipe import Recipe
    from resurge.tasks.objective import Objective


class Classify(Task):
    """One class per image."""

    name = "classify"
    noun = "classifier"
    heads = ("linear",)
    metrics = ("top1", "top5")
    train_metrics = ("top1",)
    annotation = "labels"
    one_size = True
    idle = (
        "images.max_size", "augmentation.vflip", "augmentation.rotate90", "augmentation.photometric",
        "augmentation.short_sides", "augmentation.scale_jitter", "augmentation.crop_size",
    )  # fmt: skip

    def build(
        self, spec: Spec, num_classes: int, in_channels: int = 3, head: str | None = None,
        settings: Section | None = None, *, dropout: float = 0.0,
    ) -> nn.Module:  # fmt: skip
        from resurge.arch.backbone import Backbone
        from resurge.tasks.classify.model import ClassificationModel

        self.head(head)
        return ClassificationModel(Backbone(spec, in_channels), num_classes, dropout)

    def read_preprocessing(self, values: Mapping[str, Any]) -> Preprocessing:
        from resurge.data.preprocessing import Preprocessing

        return Preprocessing.from_json(dict(values))

    def objective(self, recipe: Recipe, bundle: DataBundle) -> Objective:
        from resurge.tasks.classify.objective import Classification

        return Classification(recipe, bundle)
