"""Object detection and instance segmentation as tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from resurge.config import Section
from resurge.data.annotations import Annotation
from resurge.tasks.detect.heads import BOX_HEADS, MASK_HEADS
from resurge.tasks.detect.settings import Detector
from resurge.tasks.scenes.task import IDLE_IN_SCENES, SceneTask
from resurge.tasks.task import Inputs, Network
from resurge.tasks.tta import TTA

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from PIL import Image
    from torch import Tensor, nn

    from resurge.arch.spec import Spec
    from resurge.data.preprocessing import ScenePreprocessing
    from resurge.data.splits import DataBundle, ObjectSplit
    from resurge.recipe import Recipe
    from resurge.tasks.detect.coco_file import CocoFile
    from resurge.tasks.detect.scores import ObjectScores
    from resurge.tasks.detect.slots import Detections
    from resurge.tasks.objective import Objective
    from resurge.tasks.report import Report
    from resurge.tasks.result import Result, Size
    from resurge.weights.catalog import Source


class Detect(SceneTask):
    """Objects with boxes."""

    name = "detect"
    noun = "detector"
    metrics: ClassVar[tuple[str, ...]] = ("box_ap", "box_ap50")
    annotation: ClassVar[Annotation] = "boxes"
    usual_classes = 90
    fixed_cost = False
    raw = True
    shown_score = 0.5
    predict_options = frozenset({"score", "overlays", "coco_json", "max_size"})
    evaluation_options = frozenset({"max_size"})
    takes_sizes = True
    section = "detector"
    idle = (*IDLE_IN_SCENES, "regularization.class_weights")

    @property
    def heads(self) -> tuple[str, ...]:
        return tuple(MASK_HEADS if self.masks else BOX_HEADS)

    def default_settings(self) -> Detector:
        return Detector()

    def build(
        self, spec: Spec, num_classes: int, in_channels: int = 3, head: str | None = None,
        settings: Section | None = None, *, dropout: float = 0.0,
    ) -> nn.Module:  # fmt: skip
        from resurge.arch.backbone import Backbone
        from resurge.tasks.detect.model import DetectionModel

        numbers = settings if isinstance(settings, Detector) else self.default_settings()
        return DetectionModel(Backbone(spec, in_channels), num_classes, self.head(head), numbers)

    def published_preprocessing(self, source: Source | None = None) -> ScenePreprocessing:
        from resurge.data.preprocessing import ScenePreprocessing

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

    def outputs(self, model: nn.Module, images: Tensor, sizes: Tensor, tta: TTA = TTA()) -> dict[str, Tensor]:
        found: Detections = model.detect(images, sizes)  # type: ignore[operator]
        return {name: values for name, values in found._asdict().items() if values is not None}

    def columns(self, top: int = 1) -> list[str]:
        return ["class", "score", "x1", "y1", "x2", "y2"]

    def annotation_file(self, path: Path, classes: Sequence[str]) -> CocoFile:
        from resurge.tasks.detect.coco_file import CocoFile

        return CocoFile(path, classes)

    def draw(self, image: Image.Image, result: Result, classes: Sequence[str]) -> Image.Image:
        from resurge.tasks.detect.draw import draw

        return draw(image, result, classes)

    def scores(self, classes: Sequence[str], *, tta: TTA = TTA(), examples: int | None = None) -> ObjectScores:
        from resurge.tasks.detect.scores import EXAMPLES, ObjectScores

        return ObjectScores(self, classes, EXAMPLES if examples is None else examples)

    def summary(self, result: Mapping[str, Any]) -> dict[str, float | None]:
        named = [(name, *name.split("_", 1)) for name in self.metrics]  # box_ap is result["box"]["ap"]
        return {name: result[kind][key] for name, kind, key in named}

    def score_lines(self, scores: Mapping[str, Any], classes: Sequence[str]) -> list[str]:
        from resurge.tasks.detect.report import score_lines

        return score_lines(scores, classes)

    def report(self) -> Report:
        from resurge.tasks.detect.report import report

        return report(self.masks)

    def write_pictures(
        self, network: Network, folder: Path, evaluation: dict[str, Any], split: ObjectSplit, tta: TTA = TTA()
    ) -> None:
        from resurge.tasks.detect.draw import write_pictures

        write_pictures(self, network, folder, evaluation, split)

    def objective(self, recipe: Recipe, bundle: DataBundle) -> Objective:
        from resurge.tasks.detect.loss import Detection

        return Detection(self, recipe, bundle)


class Instances(Detect):
    """Objects with boxes and masks."""

    name = "instances"
    noun = "instance segmenter"
    metrics: ClassVar[tuple[str, ...]] = ("mask_ap", "mask_ap50", "box_ap", "box_ap50")
    annotation = "masks"
    masks = True
    raw = False
