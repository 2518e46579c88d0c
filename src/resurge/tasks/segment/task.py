"""Semantic segmentation as a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from resurge.config import Section
from resurge.tasks.segment.settings import Segmenter
from resurge.tasks.task import Task

if TYPE_CHECKING:
    from torch import nn

    from resurge.arch.spec import Spec
    from resurge.data.bundle import DataBundle
    from resurge.data.scene_preprocessing import ScenePreprocessing
    from resurge.recipe import Recipe
    from resurge.tasks.objective import Objective

IDLE_IN_SCENES = (
    "augmentation.pad_crop", "augmentation.affine_degrees", "augmentation.affine_translate",
    "augmentation.affine_scale", "augmentation.affine_shear", "augmentation.auto_augment",
    "augmentation.random_erasing", "optimization.balanced_sampling", "regularization.label_smoothing",
    "regularization.mixup", "regularization.cutmix", "regularization.dropout",
)  # fmt: skip
"""Fields of a recipe that only a classifier's training heeds."""


class Segment(Task):
    """A class per pixel."""

    name = "segment"
    noun = "segmenter"
    heads = ("deeplabv3", "fcn", "pspnet")
    metrics = ("miou", "pixel_accuracy")
    annotation = "maps"
    section = "segmenter"
    idle = IDLE_IN_SCENES

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

    def read_preprocessing(self, values: Mapping[str, Any]) -> ScenePreprocessing:
        from resurge.data.scene_preprocessing import ScenePreprocessing

        return ScenePreprocessing.from_json(dict(values))

    def objective(self, recipe: Recipe, bundle: DataBundle) -> Objective:
        from resurge.tasks.scene_objectives import Segmentation

        return Segmentation(recipe, bundle)
