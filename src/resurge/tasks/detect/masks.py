"""The mask head (arXiv:1703.06870, section 3), one for each stage of the box head.

In a cascade (arXiv:1906.09756, section 6.2, strategy d) every stage's mask head learns from the hits of its own stage;
in evaluation all of them see the final boxes and their probabilities are averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import maskrcnn_loss

from resurge.arch.layers import BatchNorm2d
from resurge.tasks.detect.cascade import LevelPool, Sample, joined, share_gradient, start_small
from resurge.tasks.detect.pyramid import Features, Pyramid
from resurge.tasks.detect.settings import Detector
from resurge.tasks.detect.slots import Detections, occupied, put_back


class MaskHead(nn.Module):
    """Boxes -> masks of twice `settings.mask_size` a side, one per class."""

    def __init__(self, pyramid: Pyramid, channels: int, num_classes: int, settings: Detector, stages: int) -> None:
        super().__init__()
        width = settings.mask_channels
        norm = BatchNorm2d if settings.head_norm else None
        self.pool = LevelPool(pyramid, settings.mask_size, settings.pool_scale)
        self.heads = nn.ModuleList(MaskRCNNHeads(channels, [width] * 4, 1, norm_layer=norm) for _ in range(stages))
        self.predictors = nn.ModuleList(MaskRCNNPredictor(width, width, num_classes + 1) for _ in range(stages))
        for predictor in self.predictors:
            # He's initialisation by fan-out makes huge logits of few classes; every pixel starts at about one half
            start_small(predictor.get_submodule("mask_fcn_logits"), 0.001)

    def losses(
        self, features: Features, samples: Sequence[Sample], targets: Sequence[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The term loss_mask, or loss_mask_1, ...: binary cross entropy of the mask of the right class, over hits."""
        terms = {}
        masks = [target["masks"] for target in targets]
        labels = [target["labels"] for target in targets]
        for stage, sample in enumerate(samples):
            hits = [torch.where(label > 0)[0] for label in sample.labels]
            boxes = [own[hit] for own, hit in zip(sample.proposals, hits, strict=True)]
            matched = [own[hit] for own, hit in zip(sample.matched, hits, strict=True)]
            logits = self.predict(stage, features, *joined(boxes))
            name = f"loss_mask_{stage + 1}" if len(samples) > 1 else "loss_mask"
            terms[name] = maskrcnn_loss(logits, boxes, masks, labels, matched)
        return terms

    def detect(self, features: Features, found: Detections) -> Detections:
        """The detections with masks: probabilities inside each box, of its own class; 0 in free slots."""
        there = found.scores > 0
        place = occupied(there)
        boxes, image = found.boxes.flatten(0, 1)[place], place // there.shape[1]
        index = (found.labels.flatten()[place] + 1)[:, None, None, None]
        masks = []
        for stage in range(len(self.heads)):
            logits = self.predict(stage, features, boxes, image)
            masks.append(logits.gather(1, index.expand(-1, 1, *logits.shape[2:]))[:, 0].sigmoid())
        mean = torch.stack(masks).mean(0) if len(masks) > 1 else masks[0]
        return found._replace(masks=put_back(mean, place, there, 0.0))

    def predict(self, stage: int, features: Features, boxes: Tensor, image: Tensor) -> Tensor:
        """Logits (M, K + 1, s, s) of boxes (M, 4) of the images (M,)."""
        pooled = self.pool(features.levels, boxes, image)
        share_gradient(pooled, len(self.heads))
        logits: Tensor = self.predictors[stage](self.heads[stage](pooled)).float()
        return logits

    def smooth_outputs(self, features: Features, boxes: Tensor, image: Tensor) -> Iterator[Tensor]:
        """Logits of each stage for given boxes (M, 4), in the type of the layers."""
        pooled = self.pool(features.levels, boxes, image)
        for layers, predictor in zip(self.heads, self.predictors, strict=True):
            yield predictor(layers(pooled))
