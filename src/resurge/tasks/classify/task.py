"""Image classification as a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from resurge.config import Section
from resurge.tasks.classify.report import REPORT
from resurge.tasks.task import Network, Task
from resurge.tasks.tta import TTA

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from torch import nn

    from resurge.arch.spec import Spec
    from resurge.data.bands import Picture
    from resurge.data.loading import SomeSplit
    from resurge.data.preprocessing import Preprocessing
    from resurge.data.splits import DataBundle, Split
    from resurge.files import Json
    from resurge.recipe import Recipe
    from resurge.tasks.classify.metrics import ClassifierScores, LabelBatch
    from resurge.tasks.evaluation import Evaluation
    from resurge.tasks.objective import Objective
    from resurge.tasks.result import Result, Size
    from resurge.weights.download import Source


class Classify(Task):
    """One class per image."""

    name = "classify"
    noun = "classifier"
    heads: ClassVar[tuple[str, ...]] = ("linear",)
    metrics = ("top1", "top5")
    train_metrics = ("top1",)
    annotation = "labels"
    usual_classes = 1000
    one_size = True
    in_catalog = True
    explains_classes = True
    predict_options = frozenset({"top"})
    evaluation_options = frozenset({"crop_pct"})
    predict_batch = 32
    evaluation_batch = 128
    report = REPORT
    idle = (
        "images.max_size", "augmentation.vflip", "augmentation.rotate90", "augmentation.photometric",
        "augmentation.short_sides", "augmentation.scale_jitter", "augmentation.crop_size",
        "reading.threshold", "reading.exif",
    )  # fmt: skip

    def build(
        self, spec: Spec, num_classes: int, in_channels: int = 3, head: str | None = None,
        settings: Section | None = None, *, dropout: float = 0.0,
    ) -> nn.Module:  # fmt: skip
        from resurge.arch.backbone import Backbone
        from resurge.tasks.classify.model import ClassificationModel

        return ClassificationModel(Backbone(spec, in_channels), num_classes, dropout)

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

    def label(self, split: SomeSplit, index: int) -> int:
        """The class of an image in evaluation."""
        return split.labels[index]

    def about(self, split: SomeSplit, image: Picture, index: int) -> int:
        return self.label(split, index)

    def collate(self, samples: Sequence[Any]) -> LabelBatch:
        from resurge.tasks.classify.metrics import collate

        return collate(samples)

    def scores(self, classes: Sequence[str], *, tta: TTA = TTA(), examples: int | None = None) -> ClassifierScores:
        from resurge.tasks.classify.metrics import ClassifierScores

        return ClassifierScores(self, classes, examples)

    def summary(self, result: Json) -> dict[str, float | None]:
        return super().summary(result) | {name: result[name] for name in ("nll", "ece")}

    def write_pictures(self, network: Network, folder: Path, evaluation: Evaluation, split: SomeSplit) -> None:
        from resurge.tasks.classify.draw import write_pictures

        write_pictures(network, folder, evaluation, self.prepared(split, network.preprocessing))

    def objective(self, recipe: Recipe, bundle: DataBundle[Split]) -> Objective:
        from resurge.tasks.classify.loss import Classification

        return Classification(self, recipe, bundle)
