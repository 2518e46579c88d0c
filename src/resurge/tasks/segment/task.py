"""Semantic segmentation as a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resurge.config import Section
from resurge.tasks.scenes.task import IDLE_IN_SCENES, SceneTask
from resurge.tasks.segment.heads import HEADS
from resurge.tasks.segment.settings import Segmenter
from resurge.tasks.task import Network
from resurge.tasks.tta import TTA

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from PIL import Image
    from torch import Tensor, nn

    from resurge.arch.spec import Spec
    from resurge.data.preprocessing import ScenePreprocessing
    from resurge.data.splits import DataBundle, MaskSplit
    from resurge.recipe import Recipe
    from resurge.tasks.objective import Objective
    from resurge.tasks.report import Report
    from resurge.tasks.result import Result, Size
    from resurge.tasks.segment.metrics import MapScores
    from resurge.weights.catalog import Source


class Segment(SceneTask):
    """A class per pixel."""

    name = "segment"
    noun = "segmenter"
    metrics = ("miou", "pixel_accuracy")
    annotation = "maps"
    usual_classes = 21
    decides = True
    predict_options = frozenset({"overlays", "max_size", "scales", "flip", "window"})
    evaluation_options = frozenset({"max_size", "scales", "flip", "window"})
    maps_out = True
    section = "segmenter"
    idle = IDLE_IN_SCENES

    @property
    def heads(self) -> tuple[str, ...]:
        return tuple(HEADS)

    def default_settings(self) -> Segmenter:
        return Segmenter()

    def build(
        self, spec: Spec, num_classes: int, in_channels: int = 3, head: str | None = None,
        settings: Section | None = None, *, dropout: float = 0.0,
    ) -> nn.Module:  # fmt: skip
        from resurge.arch.backbone import Backbone
        from resurge.tasks.segment.model import SegmentationModel

        numbers = settings if isinstance(settings, Segmenter) else self.default_settings()
        backbone = Backbone(spec, in_channels, numbers.output_stride)
        return SegmentationModel(backbone, num_classes, self.head(head), numbers)

    def published_preprocessing(self, source: Source | None = None) -> ScenePreprocessing:
        from resurge.data.preprocessing import ScenePreprocessing

        return ScenePreprocessing(520, 1333)  # what torchvision's segmenters were trained with

    def decode(
        self, outputs: Mapping[str, np.ndarray], row: int, seen: Size, size: Size, classes: Sequence[str],
        score: float = 0.0,
    ) -> Result:  # fmt: skip
        from resurge.tasks.result import finite
        from resurge.tasks.segment.predict import LabelMap

        if "logits" in outputs:
            return LabelMap.of(finite(outputs["logits"][row]), size)
        return LabelMap.of_decided(outputs["classes"][row], finite(outputs["confidence"][row]), size)

    def outputs(self, model: nn.Module, images: Tensor, sizes: Tensor, tta: TTA = TTA()) -> dict[str, Tensor]:
        from resurge.tasks.segment.sliding import class_values

        return {"logits": class_values(model, images, tta)}

    def columns(self, top: int = 1) -> list[str]:
        return ["class", "pixels", "share"]

    def draw(self, image: Image.Image, result: Result, classes: Sequence[str]) -> Image.Image:
        from resurge.explain.overlays import draw_label_map

        assert result.label_map is not None
        return draw_label_map(image, result.label_map, classes)

    def scores(self, classes: Sequence[str], *, tta: TTA = TTA(), examples: int | None = None) -> MapScores:
        from resurge.tasks.segment.metrics import EXAMPLES, MapScores

        return MapScores(self, classes, EXAMPLES if examples is None else examples, tta)

    def score_lines(self, scores: Mapping[str, Any], classes: Sequence[str]) -> list[str]:
        from resurge.tasks.segment.report import score_lines

        return score_lines(scores, classes)

    def report(self) -> Report:
        from resurge.tasks.segment.report import REPORT

        return REPORT

    def write_pictures(
        self, network: Network, folder: Path, evaluation: dict[str, Any], split: MaskSplit, tta: TTA = TTA()
    ) -> None:
        from resurge.tasks.segment.draw import write_pictures

        write_pictures(self, network, folder, evaluation, split, tta)

    def objective(self, recipe: Recipe, bundle: DataBundle) -> Objective:
        from resurge.tasks.segment.loss import Segmentation

        return Segmentation(self, recipe, bundle)
