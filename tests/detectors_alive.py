"""torchvision's detectors with random weights that find many things, and real photos to find them in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import torch
from alive import enliven
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torchvision.models import detection

HEADS = {
    "faster_rcnn": "detect",
    "cascade_rcnn": "detect",
    "retinanet": "detect",
    "mask_rcnn": "instances",
    "cascade_mask_rcnn": "instances",
}
"""Every head for objects that has boxes, with its task."""

CLASSES = 5  # without the background
PROPOSALS = 150  # an image; few, because the heads cost most of the time
MASKS = 20  # an image


def photos() -> list[Tensor]:
    """Two photos (3, H, W) of different sizes, in 0..1."""
    temple, flower = (torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 for image in load_sample_images().images)
    return [temple, flower[:, 40:, 100:480].contiguous()]


@torch.no_grad()
def torchvision_detector(name: str, side: int = 128) -> nn.Module:
    """The detector `name` of torchvision for images of short side `side` and few proposals, in evaluation mode.

    Its layers are scaled until what they put out on the photos is spread as a trained detector's: objectness and class
    logits by 2, offsets by a tenth of a box, mask logits by 3.
    """
    torch.manual_seed(1)
    few = {f"rpn_{when}_nms_top_n_{mode}": PROPOSALS for when in ("pre", "post") for mode in ("train", "test")}
    more = {"topk_candidates": PROPOSALS} if "retinanet" in name else few | {"box_batch_size_per_image": 64}
    if "mask" in name:
        more["box_detections_per_img"] = MASKS
    model = getattr(detection, name)(
        weights=None, weights_backbone=None, num_classes=CLASSES + 1, min_size=side, max_size=2 * side, **more
    )
    batch, _ = model.eval().transform(photos())
    enliven(model.backbone, batch.tensors, seed=3, passes=1)
    if hasattr(model, "rpn"):
        box, proposer = model.roi_heads.box_predictor, model.rpn.head
        rounds = [
            [(proposer.cls_logits, 2.0), (proposer.bbox_pred, 0.2)],
            [(box.cls_score, 2.0), (box.bbox_pred, 0.5)],
        ]
        if "mask" in name:
            rounds.append([(model.roi_heads.mask_predictor.mask_fcn_logits, 3.0)])
        for norm in (m for m in model.roi_heads.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.running_var.fill_(0.5)
            norm.running_mean.normal_(std=0.1)
    else:
        for layer in model.head.modules():  # born so small that nothing of the image reaches the outputs
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
        rounds = [[(model.head.classification_head.cls_logits, 1.0), (model.head.regression_head.bbox_reg, 0.2)]]
    for layers in rounds:
        for layer, spread in layers:
            nn.init.zeros_(layer.bias)
            layer.register_forward_hook(_rescale(layer, spread))
        model(photos())
        for layer, _ in layers:
            layer._forward_hooks.clear()
            layer.bias.add_(0.1 * torch.randn(layer.bias.shape))
    if not hasattr(model, "rpn"):
        rounds[0][0][0].bias.sub_(3.0)
        rounds[0][0][0].bias[:: CLASSES + 1] = -30.0  # of the class that no object has
    return model


def _rescale(layer: nn.Module, spread: float) -> Callable[..., Tensor]:
    """A hook that scales and shifts the layer: what it first puts out has this deviation, and no mean."""
    done: list[bool] = []

    def hook(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        if done:
            return output
        done.append(True)
        middle = output.mean([0, *range(2, output.ndim)])
        factor = spread / output.std()
        layer.weight.mul_(factor)
        layer.bias.copy_(-middle * factor)
        return (output - middle.reshape(-1, *[1] * (output.ndim - 2))) * factor

    return hook


@contextmanager
def unfilled() -> Iterator[None]:
    """Layers that are built inside keep whatever is in their memory: saves seconds where weights follow anyway."""
    names = ("kaiming_uniform_", "kaiming_normal_", "normal_", "uniform_")
    with patch.multiple("torch.nn.init", **{name: lambda tensor, *_args, **_named: tensor for name in names}):
        yield
