"""The mask head (arXiv:1703.06870, section 3), one for each stage of the box head.

In a cascade (arXiv:1906.09756, section 6.2, strategy d) every stage's mask head learns from the hits of its own stage;
in evaluation all of them see the final boxes and their probabilities are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import maskrcnn_loss

from resurge.arch.layers import BatchNorm2d
from resurge.tasks.detect.cascade import Sample, make_pool, share_gradient, start_small
from resurge.tasks.detect.pyramid import Pyramid, Size
from resurge.tasks.detect.settings import Detector


class MaskHead(nn.Module):
    """Boxes -> masks of twice `settings.mask_size` a side, one a class."""

    def __init__(self, pyramid: Pyramid, channels: int, num_classes: int, settings: Detector, stages: int) -> None:
        super().__init__()
        width = settings.mask_channels
        norm = BatchNorm2d if settings.head_norm else None
        self.pool = make_pool(pyramid, settings.mask_size, settings)
        self.heads = nn.ModuleList(MaskRCNNHeads(channels, [width] * 4, 1, norm_layer=norm) for _ in range(stages))
        self.predictors = nn.ModuleList(MaskRCNNPredictor(width, width, num_classes + 1) for _ in range(stages))
        for predictor in self.predictors:
            # He's initialisation by fan-out makes huge logits of few classes; every pixel starts at about one half
            start_small(predictor.get_submodule("mask_fcn_logits"), 0.001)

    def losses(
        self,
        levels: dict[str, Tensor],
        samples: Sequence[Sample],
        targets: Sequence[dict[str, Tensor]],
        sizes: Sequence[Size],
    ) -> dict[str, Tensor]:
        """The term loss_mask, or loss_mask_1, ...: binary cross entropy of the mask of the right class, over hits."""
        terms = {}
        masks = [target["masks"] for target in targets]
        labels = [target["labels"] for target in targets]
        for stage, sample in enumerate(samples):
            hits = [torch.where(label > 0)[0] for label in sample.labels]
            boxes = [own[hit] for own, hit in zip(sample.proposals, hits, strict=True)]
            matched = [own[hit] for own, hit in zip(sample.matched, hits, strict=True)]
            logits = self.predict(stage, levels, boxes, sizes)
            name = f"loss_mask_{stage + 1}" if len(samples) > 1 else "loss_mask"
            terms[name] = maskrcnn_loss(logits, boxes, masks, labels, matched)
        return terms

    def detect(
        self, levels: dict[str, Tensor], detections: Sequence[dict[str, Tensor]], sizes: Sequence[Size]
    ) -> list[dict[str, Tensor]]:
        """The detections with masks (n, 1, s, s): probabilities inside each box, of its own class."""
        boxes = [found["boxes"] for found in detections]
        labels = torch.cat([found["labels"] for found in detections]) + 1
        index = torch.arange(len(labels), device=labels.device)
        stages = range(len(self.heads))
        one_each = [self.predict(stage, levels, boxes, sizes)[index, labels].sigmoid() for stage in stages]
        masks = torch.stack(one_each).mean(0) if len(one_each) > 1 else one_each[0]
        parts = masks[:, None].split([len(own) for own in boxes])
        return [{**found, "masks": part} for found, part in zip(detections, parts, strict=True)]

    def predict(self, stage: int, levels: dict[str, Tensor], boxes: list[Tensor], sizes: Sequence[Size]) -> Tensor:
        """Logits (n, K + 1, s, s) of all images' boxes in a row."""
        pooled = self.pool(levels, boxes, list(sizes))
        share_gradient(pooled, len(self.heads))
        logits: Tensor = self.predictors[stage](self.heads[stage](pooled)).float()
        return logits
