"""From a task, a head and a spec to a network: the one place that knows every task's model."""

from __future__ import annotations

from torch import nn

from resurge.arch.backbone import Backbone
from resurge.arch.spec import Spec
from resurge.tasks.classify.model import ClassificationModel
from resurge.tasks.detect.boxes_task import DetectionModel
from resurge.tasks.detect.masks_task import InstanceModel
from resurge.tasks.segment.model import SegmentationModel
from resurge.tasks.settings import Detector, Segmenter, pick_head


def build_task_model(
    task: str,
    spec: Spec,
    num_classes: int,
    in_channels: int = 3,
    head: str | None = None,
    *,
    dropout: float = 0.0,
    detector: Detector | None = None,
    segmenter: Segmenter | None = None,
) -> nn.Module:
    """A network with random weights, in training mode.

    Args:
        task: one of `resurge.tasks.settings.TASKS`.
        spec: of the backbone.
        num_classes: classes of the data; a background class of a detector is not counted.
        in_channels: channels of the images.
        head: one of the task's heads; None for its first.
        dropout: before a classifier.
        detector: the numbers of a detector's or instance segmenter's head.
        segmenter: the numbers of a semantic segmenter's head.

    Raises:
        UserError: the task or the head is unknown (the nearest is suggested), or a number is out of range.
    """
    head = pick_head(task, head)
    if task == "segment":
        settings = segmenter or Segmenter()
        return SegmentationModel(Backbone(spec, in_channels, settings.output_stride), num_classes, head, settings)
    backbone = Backbone(spec, in_channels)
    if task == "detect":
        return DetectionModel(backbone, num_classes, head, detector or Detector())
    if task == "instances":
        return InstanceModel(backbone, num_classes, head, detector or Detector())
    return ClassificationModel(backbone, num_classes, dropout)
