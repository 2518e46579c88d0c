"""torchvision's detectors with random weights that find many things, and real photos to find them in."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torchvision.models import detection

from alive import enliven

CLASSES = 5  # without the background


def photos() -> list[Tensor]:
    """Two photos (3, H, W) of different sizes, in 0..1."""
    temple, flower = (torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 for image in load_sample_images().images)
    return [temple, flower[:, 40:, 100:480].contiguous()]


@torch.no_grad()
def torchvision_detector(name: str, side: int = 160) -> nn.Module:
    """The detector `name` of torchvision for images of short side `side`, in evaluation mode.

    Its layers are scaled until what they put out on the photos is spread as a trained detector's: objectness and class
    logits by 2, offsets by a tenth of a box, mask logits by 3.
    """
    torch.manual_seed(1)
    model = getattr(detection, name)(
        weights=None, weights_backbone=None, num_classes=CLASSES + 1, min_size=side, max_size=2 * side
    )
    batch, _ = model.eval().transform(photos())
    enliven(model.backbone, batch.tensors, seed=3)
    if hasattr(model, "rpn"):
        heads = [
            (model.rpn.head.cls_logits, 2.0),
            (model.rpn.head.bbox_pred, 0.2),
            (model.roi_heads.box_predictor.cls_score, 2.0),
            (model.roi_heads.box_predictor.bbox_pred, 0.5),
        ]
        if "mask" in name:
            heads.append((model.roi_heads.mask_predictor.mask_fcn_logits, 3.0))
        for norm in (m for m in model.roi_heads.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.running_var.fill_(0.5)
            norm.running_mean.normal_(std=0.1)
    else:
        heads = [(model.head.classification_head.cls_logits, 1.0), (model.head.regression_head.bbox_reg, 0.2)]
        for layer in model.head.modules():  # born so small that nothing of the image reaches the outputs
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
    for layer, spread in heads:
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        seen: list[Tensor] = []
        hook = layer.register_forward_hook(lambda _module, _inputs, output, seen=seen: seen.append(output.flatten()))
        model(photos())
        hook.remove()
        layer.weight.mul_(spread / torch.cat(seen).std())
        nn.init.normal_(layer.bias, std=0.1)
    if not hasattr(model, "rpn"):
        heads[0][0].bias.sub_(3.0)
    return model
