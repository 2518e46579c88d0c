"""Object detection and instance segmentation as tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from resurge.config import Section
from resurge.tasks.detect.settings import Detector
from resurge.tasks.segment.task import IDLE_IN_SCENES
from resurge.tasks.task import Task

if TYPE_CHECKING:
    from torch import nn

    from resurge.arch.spec import Spec
    from resurge.data.bundle import DataBundle
    from resurge.data.scene_preprocessing import ScenePreprocessing
    from resurge.recipe import Recipe
    from resurge.tasks.objective import Objective


class Detect(Task):
    """Objects with boxes."""

    name = "detect"
    noun = "detector"
    heads: ClassVar[tuple[str, ...]] = ("faster_rcnn", "cascade_rcnn", "retinanet")
    metrics: ClassVar[tuple[str, ...]] = ("box_ap", "box_ap50")
    annotation = "objects"
    takes_sizes = True
    section = "detector"
    idle = (*IDLE_IN_SCENES, "regularization.class_weights")

    def default_settings(self) -> Detector:
        return Detector()

    def build(
        self, spec: Spec, num_classes: int, in_channels: int = 3, head: str | None = None,
        settings: Section | None = None, *, dropout: float = 0.0,
    ) -> nn.Module:  # fmt: skip
        from resurge.arch.backbone import Backbone
        from resurge.tasks.detect.boxes_task import DetectionModel
        from resurge.tasks.detect.masks_task import InstanceModel

        numbers = settings if isinstance(settings, Detector) else self.default_settings()
        kind = InstanceModel if self.masks else DetectionModel
        return kind(Backbone(spec, in_channels), num_classes, self.head(head), numbers)

    def read_preprocessing(self, values: Mapping[str, Any]) -> ScenePreprocessing:
        from resurge.data.scene_preprocessing import ScenePreprocessing

        return ScenePreprocessing.from_json(dict(values))

    def objective(self, recipe: Recipe, bundle: DataBundle) -> Objective:
        from resurge.tasks import scene_objectives

        return (scene_objectives.Instances if self.masks else scene_objectives.Detection)(recipe, bundle)


class Instances(Detect):
    """Objects with boxes and masks."""

    name = "instances"
    noun = "instance segmenter"
    heads: ClassVar[tuple[str, ...]] = ("mask_rcnn", "cascade_mask_rcnn")
    metrics: ClassVar[tuple[str, ...]] = ("mask_ap", "mask_ap50", "box_ap", "box_ap50")
    masks = True
