"""Image classification as a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resurge.config import Section
from resurge.tasks.task import Task

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from resurge.arch.spec import Spec
    from resurge.data.bundle import DataBundle
    from resurge.data.preprocessing import Preprocessing
    from resurge.recipe import Recipe
    from resurge.tasks.objective import Objective
    from resurge.tasks.result import Result, Size
    from resurge.weights.catalog import Source


class Classify(Task):
    """One class per image."""

    name = "classify"
    noun = "classifier"
    heads = ("linear",)
    metrics = ("top1", "top5")
    train_metrics = ("top1",)
    annotation = "labels"
    usual_classes = 1000
    one_size = True
    in_catalog = True
    quick = True
    explains_classes = True
    predict_options = frozenset({"top"})
    evaluation_options = frozenset({"crop_pct"})
    predict_batch = 32
    evaluation_batch = 128
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

    def published_preprocessing(self, source: Source | None = None) -> Preprocessing:
        from resurge.data.preprocessing import Preprocessing

        if source is None:
            return Preprocessing(size=224)
        return Preprocessing(
            size=source.size,
            crop_pct=source.crop_pct,
            mean=source.mean,
            std=source.std,
            channels=len(source.mean),
            interpolation=source.interpolation,
        )

    def decode(
        self, outputs: Mapping[str, np.ndarray], row: int, seen: Size, size: Size, classes: Sequence[str],
        score: float = 0.0,
    ) -> Result:  # fmt: skip
        from resurge.tasks.classify.predict import Classified
        from resurge.tasks.result import finite

        return Classified.of(finite(outputs["logits"][row]), classes)

    def columns(self, top: int = 1) -> list[str]:
        return [f"{what}_{k}" for k in range(1, top + 1) for what in ("class", "score")]

    def objective(self, recipe: Recipe, bundle: DataBundle) -> Objective:
        from resurge.tasks.classify.objective import Classification

        return Classification(recipe, bundle)
