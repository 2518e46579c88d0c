"""Object detection and instance segmentation as tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from resurge.config import Section
from resurge.tasks.detect.settings import Detector
from resurge.tasks.segment.task import IDLE_IN_SCENES
from resurge.tasks.task import Inputs, Task
from resurge.tasks.tta import TTA

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import nn

    from resurge.arch.spec import Spec
    from resurge.data.bundle import DataBundle
    from resurge.data.scene_preprocessing import ScenePreprocessing
    from resurge.recipe import Recipe
    from resurge.tasks.objective import Objective
    from resurge.tasks.result import Result, Size
    from resurge.weights.catalog import Source


class Detect(Task):
    """Objects with boxes."""

    name = "detect"
    noun = "detector"
    heads: ClassVar[tuple[str, ...]] = ("faster_rcnn", "cascade_rcnn", "retinanet")
    metrics: ClassVar[tuple[str, ...]] = ("box_ap", "box_ap50")
    annotation = "objects"
    usual_classes = 90
    fixed_cost = False
    raw = True
    predict_options = frozenset({"score", "overlays", "coco_json", "max_size"})
    evaluation_options = frozenset({"max_size"})
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

    def published_preprocessing(self, source: Source | None = None) -> ScenePreprocessing:
        from resurge.data.scene_preprocessing import ScenePreprocessing

        return ScenePreprocessing(800, 1333)  # what torchvision's and detectron2's detectors were trained with

    def batches(self, arrays: Sequence[np.ndarray]) -> Iterator[Inputs]:
        from resurge.tasks.detect.outputs import batched

        yield Inputs(tuple(range(len(arrays))), *batched(arrays))

    def finish(self, outputs: Mapping[str, np.ndarray], export: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
        from resurge.tasks.detect.outputs import Suppression

        suppression = Suppression.of(export)
        return outputs if suppression is None else suppression(outputs)

    def decode(
        self, outputs: Mapping[str, np.ndarray], row: int, seen: Size, size: Size, classes: Sequence[str],
        score: float = 0.0,
    ) -> Result:  # fmt: skip
        from resurge.tasks.detect.outputs import found_in

        return found_in(outputs, row, seen, size, score)

    def predict(
        self, model: nn.Module, inputs: Inputs, sizes: Sequence[Size], classes: Sequence[str], *, score: float = 0.0,
        tta: TTA = TTA(),
    ) -> list[Result]:  # fmt: skip
        from resurge.tasks.detect.live import find

        return list(find(model, inputs, sizes, score))

    def columns(self, top: int = 1) -> list[str]:
        return ["class", "score", "x1", "y1", "x2", "y2"]

    def draw(self, image: Image.Image, result: Result, classes: Sequence[str]) -> Image.Image:
        from resurge.explain.overlays import draw_objects
        from resurge.tasks.detect.predict import Found

        assert isinstance(result, Found)
        return draw_objects(
            image, result.boxes, result.labels.tolist(), classes, scores=result.scores.tolist(), masks=result.decoded()
        )

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
    raw = False
