"""The functions most users need: a network by name, a backbone by name, a trained run by its folder.

Wherever a name goes, a `Spec` or its one line of text goes too: `resnest50`, `resnet50 stem=deep(32) gate=se`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from torch import Tensor

from resurge.arch.backbone import Backbone
from resurge.arch.spec import Spec
from resurge.arch.zoo import get_spec, list_models
from resurge.errors import UserError, suggest
from resurge.tasks.classify import ClassificationModel
from resurge.training.run import Run, load_run
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

TASKS = ("classify",)


def create_backbone(model: str | Spec, in_channels: int = 3, output_stride: int = 32) -> Backbone:
    """A network without a head: (N, in_channels, H, W) -> one feature map a stage.

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
    dropout: float = 0.0,
) -> ClassificationModel:
    """A network with a head, in training mode: (N, in_channels, H, W) -> (N, num_classes) logits.

    Args:
        model: a name, a `Spec` or its text.
        num_classes: outputs of the classifier.
        in_channels: channels of the images.
        weights: None for random ones; otherwise what `load_weights` takes (a file, `hub:owner/name`, a state dict,
            `pretrained` for the published ones). A classifier of another size is left random.
        task: what the head does; so far `classify`.
        dropout: probability of dropping a pooled feature in training.

    Raises:
        UserError: the model or task is unknown (the nearest is suggested), a number is out of range, or the weights
            are of another network.
    """
    if task not in TASKS:
        raise UserError(f"expected a task, one of {', '.join(TASKS)}; got {task!r}.{suggest(task, TASKS)}")
    network = ClassificationModel(create_backbone(model, in_channels), num_classes, dropout)
    if weights is not None:
        load_weights(network, weights)
    return network
