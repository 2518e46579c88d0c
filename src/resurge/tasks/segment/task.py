"""Semantic segmentation as a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from resurge.config import Section
from resurge.tasks.scenes.task import IDLE_IN_SCENES, SceneTask
from resurge.tasks.segment.heads import HEADS
from resurge.tasks.segment.report import REPORT
from resurge.tasks.segment.settings import Segmenter
from resurge.tasks.tta import TTA

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor, nn

    from resurge.arch.spec import Spec
    from resurge.data.splits import DataBundle, MaskSplit
    from resurge.recipe import Recipe
    from resurge.tasks.objective import Objective
    from resurge.tasks.result import Result, Size
    from resurge.tasks.segment.metrics import MapScores


class Segment(SceneTask):
    """A class per pixel."""

    name = "segment"
    noun = "segmenter"
    metrics = ("miou", "pixel_accuracy")
    annotation = "maps"
    usual_classes = 21
    published_size = (520, 1333)  # what torchvision's segmenters were trained with
    predict_options = frozenset({"overlays", "max_size", "scales", "flip", "window"})
    evaluation_options = frozenset({"max_size", "scales", "flip", "window"})
    section, settings = "segmenter", Segmenter
    idle = IDLE_IN_SCENES
    report = REPORT

    @property
    def heads(self) -> tuple[str, ...]:
        return tuple(HEADS)

    def unused_settings(self, head: str) -> tuple[str, ...]:
        return ("segmenter.atrous_rates",) if head in ("fcn", "pspnet") else ()

    def build(
        self, spec: Spec, num_classes: int, in_channels: int = 3, head: str | None = None,
        settings: Section | None = None, *, dropout: float = 0.0,
    ) -> nn.Module:  # fmt: skip
        from resurge.arch.backbone import Backbone
        from resurge.tasks.segment.model import SegmentationModel

        numbers = settings if isinstance(settings, Segmenter) else Segmenter()
        backbone = Backbone(spec, in_channels, numbers.output_stride)
        return SegmentationModel(backbone, num_classes, head or self.heads[0], numbers)

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

    def compare(
        self, image: Image.Image, result: Result, truth: np.ndarray, classes: Sequence[str], sides: tuple[int, int]
    ) -> tuple[Image.Image, Image.Image]:
        import numpy as np

        from resurge.data.splits import IGNORE
        from resurge.explain.overlays import draw_label_map

        assert result.label_map is not None
        # two maps are compared best where the same pixels are left out
        labels = np.where(truth == IGNORE, truth, result.label_map)
        found, there = (draw_label_map(image, values, classes, legend=False, sides=sides) for values in (labels, truth))
        return found, there

    def scores(self, classes: Sequence[str], *, tta: TTA = TTA(), examples: int | None = None) -> MapScores:
        from resurge.tasks.segment.metrics import MapScores

        return MapScores(self, classes, examples, tta)

    def objective(self, recipe: Recipe, bundle: DataBundle[MaskSplit]) -> Objective:
        from resurge.tasks.segment.loss import Segmentation

        return Segmentation(self, recipe, bundle)
