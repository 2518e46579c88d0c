"""The functions most users need: a network by name, a backbone by name, a trained run by its folder.

Wherever a name goes, a `Spec` or its one line of text goes too: `resnest50`, `resnet50 stem=deep(32) gate=se`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from torch import Tensor, nn

from resurge.arch.backbone import Backbone
from resurge.arch.spec import Spec
from resurge.arch.zoo import get_spec, list_models
from resurge.config import Section
from resurge.runs import Run, load_run
from resurge.tasks.detect.settings import Detector
from resurge.tasks.segment.settings import Segmenter
from resurge.tasks.table import build_task_model, get_task
from resurge.weights.checkpoint import export_weights, load_weights

__all__ = [
    "Run",
    "create_backbone",
    "create_model",
    "export_weights",
    "get_spec",
    "list_models",
    "load_run",
    "load_weights",
]


def create_backbone(model: str | Spec, in_channels: int = 3, output_stride: int = 32) -> Backbone:
    """A network without a head: (N, in_channels, H, W) -> one feature map per stage.

    Its `.channels` and `.strides` say what the maps are. With `output_stride` 16 or 8 the last stages are dilated
    instead of strided; the weights are the same.

    Raises:
        UserError: the model is unknown (the nearest is suggested) or a number is out of range.
    """
    return Backbone(get_spec(model), in_channels=in_channels, output_stride=output_stride)


def create_model(
    model: str | Spec,
    num_classes: int = 1000,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | Mapping[str, Tensor] | None = None,
    task: str = "classify",
    head: str | None = None,
    *,
    dropout: float = 0.0,
    detector: Detector | None = None,
    segmenter: Segmenter | None = None,
) -> nn.Module:
    """A network with a head, in training mode.

    A classifier maps (N, in_channels, H, W) to (N, num_classes) logits, a segmenter to (N, num_classes, H, W). A
    detector gives one dict of boxes, scores, labels (and masks) per image in evaluation mode. All but the classifier
    have `losses(...)`; see `resurge.tasks`.

    Args:
        model: a name, a `Spec` or its text.
        num_classes: classes of the data; the background of a detector is not counted.
        in_channels: channels of the images.
        weights: None for random ones; otherwise what `load_weights` takes (a file, `hub:owner/name`, a state dict,
            `pretrained` for the published ones). A head of another size is left random.
        task: classify, segment, detect or instances.
        head: what the task puts on the backbone, such as cascade_rcnn; None for the task's first, see
            `resurge.tasks.table.TASKS`.
        dropout: classify: probability of dropping a pooled feature in training.
        detector: the numbers of a detector's head.
        segmenter: the numbers of a segmenter's head.

    Raises:
        UserError: the model, task or head is unknown (the nearest is suggested), a number is out of range, or the
            weights are of another network.
    """
    given: dict[str | None, Section | None] = {"detector": detector, "segmenter": segmenter}
    settings = given.get(get_task(task).section)
    network = build_task_model(task, get_spec(model), num_classes, in_channels, head, settings, dropout=dropout)
    if weights is not None:
        load_weights(network, weights)
    return network
