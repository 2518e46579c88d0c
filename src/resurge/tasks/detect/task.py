"""Object detection and instance segmentation as tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from resurge.config import Section
from resurge.data.annotations import Annotation
from resurge.tasks.detect.heads import BOX_HEADS, MASK_HEADS, UNUSED
from resurge.tasks.detect.report import report
from resurge.tasks.detect.settings import Detector
from resurge.tasks.scenes.task import IDLE_IN_SCENES, SceneTask
from resurge.tasks.task import Inputs
from resurge.tasks.tta import TTA

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from PIL import Image
    from torch import Tensor, nn

    from resurge.arch.spec import Spec
    from resurge.data.splits import Objects
    from resurge.files import Json
    from resurge.tasks.detect.head import Detections
    from resurge.tasks.detect.metrics import ObjectScores
    from resurge.tasks.detect.predict import CocoFile
    from resurge.tasks.result import Result, Size


class Detect(SceneTask):
    """Objects with boxes."""

    name = "detect"
    noun = "detector"
    metrics: ClassVar[tuple[str, ...]] = ("box_ap", "box_ap50")
    annotation: ClassVar[Annotation] = "boxes"
    usual_classes = 90
    published_size = (800, 1333)  # what torchvision's and detectron2's detectors were trained with
    shown_score = 0.5
    predict_options = frozenset({"score", "overlays", "coco_json", "max_size"})
    evaluation_options = frozenset({"max_size"})
    takes_sizes = True
    section, settings = "detector", Detector
    idle = (*IDLE_IN_SCENES, "regularization.class_weights", "reading.threshold")
    report = report(masks=False)

    @property
    def heads(self) -> tuple[str, ...]:
        return tuple(MASK_HEADS if self.masks else BOX_HEADS)

    def unused_settings(self, head: str) -> tuple[str, ...]:
        return tuple(f"detector.{name}" for name in UNUSED.get(head, ()))

    def build(
        self, spec: Spec, num_classes: int, in_channels: int = 3, head: str | None = None,
        settings: Section | None = None, *, dropout: float = 0.0,
    ) -> nn.Module:  # fmt: skip
        from resurge.arch.backbone import Backbone
        from resurge.tasks.detect.model import DetectionModel

        numbers = settings if isinstance(settings, Detector) else Detector()
        return DetectionModel(Backbone(spec, in_channels), num_classes, head or self.heads[0], numbers)

    def batches(self, arrays: Sequence[np.ndarray]) -> Iterator[Inputs]:
        from resurge.tasks.detect.predict import batched

        yield Inputs(tuple(range(len(arrays))), *batched(arrays))

    def finish(self, outputs: Mapping[str, np.ndarray], export: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
        from resurge.tasks.detect.predict import Suppression

        suppression = Suppression.of(export)
        return outputs if suppression is None else suppression(outputs)

    def decode(
        self, outputs: Mapping[str, np.ndarray], row: int, seen: Size, size: Size, classes: Sequence[str],
        score: float = 0.0,
    ) -> Result:  # fmt: skip
        from resurge.tasks.detect.predict import found_in

        return found_in(outputs, row, seen, size, score)

    def outputs(self, model: nn.Module, images: Tensor, sizes: Tensor, tta: TTA = TTA()) -> dict[str, Tensor]:
        found: Detections = model.detect(images, sizes)  # type: ignore[operator]
        return {name: values for name, values in found._asdict().items() if values is not None}

    def columns(self, top: int = 1) -> list[str]:
        return ["class", "score", "x1", "y1", "x2", "y2"]

    def annotation_file(self, path: Path, classes: Sequence[str]) -> CocoFile:
        from resurge.tasks.detect.predict import CocoFile

        return CocoFile(path, classes)

    def draw(self, image: Image.Image, result: Result, classes: Sequence[str], **sides: Any) -> Image.Image:
        from resurge.explain.overlays import draw_objects
        from resurge.tasks.detect.predict import Found

        assert isinstance(result, Found)
        labels, scores = result.labels.tolist(), result.scores.tolist()
        return draw_objects(image, result.boxes, labels, classes, scores=scores, masks=result.decoded(), **sides)

    def compare(
        self, image: Image.Image, result: Result, truth: Objects, classes: Sequence[str], sides: tuple[int, int]
    ) -> tuple[Image.Image, Image.Image]:
        from resurge.explain.overlays import draw_objects

        regions = truth.regions
        masks = None if regions is None else (region.decode(image.height, image.width) for region in regions)
        notes = ["(crowd)" if crowd else "" for crowd in truth.crowd.tolist()]
        there = draw_objects(image, truth.boxes, truth.labels.tolist(), classes, masks=masks, notes=notes, sides=sides)
        return self.draw(image, result, classes, sides=sides), there

    def scores(self, classes: Sequence[str], *, tta: TTA = TTA(), examples: int | None = None) -> ObjectScores:
        from resurge.tasks.detect.metrics import ObjectScores

        return ObjectScores(self, classes, examples)

    def summary(self, result: Json) -> dict[str, float | None]:
        named = [(name, *name.split("_", 1)) for name in self.metrics]  # box_ap is result["box"]["ap"]
        scores: dict[str, float | None] = {name: result[kind][key] for name, kind, key in named}
        return {**scores, **result.get("plugin_metrics", {})}


class Instances(Detect):
    """Objects with boxes and masks."""

    name = "instances"
    noun = "instance segmenter"
    metrics: ClassVar[tuple[str, ...]] = ("mask_ap", "mask_ap50", "box_ap", "box_ap50")
    annotation = "masks"
    report = report(masks=True)
