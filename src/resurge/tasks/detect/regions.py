"""Detection by regions: proposals, then boxes, then, where asked for, masks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from resurge.arch.backbone import Backbone
from resurge.tasks.detect.cascade import BoxHead
from resurge.tasks.detect.head import Head
from resurge.tasks.detect.masks import MaskHead
from resurge.tasks.detect.ops import ABSENT
from resurge.tasks.detect.proposals import ProposalNetwork
from resurge.tasks.detect.pyramid import Features, Pyramid
from resurge.tasks.detect.settings import Detector
from resurge.tasks.detect.slots import Detections, select, sizable, taken


class RegionHead(Head):
    """Faster, Cascade, Mask and Cascade Mask R-CNN behind the pyramid.

    Args:
        pyramid: whose levels it sees; its extra level is seen by the proposals only.
        num_classes: without the background.
        settings: numbers.
        cascade: one box stage for each of `settings.cascade_ious`, with boxes for all classes; else one stage that
            takes an overlap of a half for a hit, with a box for each class.
        masks: predict masks too.
    """

    smallest = 1e-2  # as torchvision has it

    def __init__(self, pyramid: Pyramid, num_classes: int, settings: Detector, cascade: bool, masks: bool) -> None:
        super().__init__()
        channels, strides = settings.fpn_channels, (*pyramid.strides, 2 * pyramid.strides[-1])
        overlaps = settings.cascade_ious if cascade else (0.5,)
        self.settings = settings
        self.rpn = ProposalNetwork(channels, strides, settings)
        self.box = BoxHead(pyramid, channels, num_classes, settings, overlaps, agnostic=cascade)
        self.mask = MaskHead(pyramid, channels, num_classes, settings, len(overlaps)) if masks else None

    def losses(self, features: Features, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        proposals, terms = self.rpn.losses(features, targets)
        own, samples = self.box.losses(features, proposals, targets)
        terms |= own
        if self.mask is not None:
            terms |= self.mask.losses(features, samples, targets)
        return terms

    def candidates(self, features: Features) -> Detections:
        boxes, scores = self.box.candidates(features, *self.rpn.detect(features))
        labels = torch.arange(scores.shape[2], device=scores.device).expand_as(scores)
        return taken(boxes.expand(*scores.shape, 4).flatten(1, 2), scores.flatten(1), labels.flatten(1))

    def detect(self, features: Features) -> Detections:
        boxes, scores = self.box.candidates(features, *self.rpn.detect(features))
        found = select(boxes, scores.where(sizable(boxes, self.smallest), ABSENT), self.settings)
        return found if self.mask is None else self.mask.detect(features, found)

    def smooth_outputs(self, features: Features, boxes: Tensor, image: Tensor) -> Iterator[Tensor]:
        yield from self.rpn.smooth_outputs(features.levels)
        yield from self.box.smooth_outputs(features, boxes, image)
        if self.mask is not None:
            yield from self.mask.smooth_outputs(features, boxes, image)


def _build(
    backbone: Backbone, num_classes: int, settings: Detector, cascade: bool = False, masks: bool = False
) -> tuple[Pyramid, RegionHead]:
    pyramid = Pyramid(backbone, settings.fpn_channels, LastLevelMaxPool(), norm=settings.head_norm)
    return pyramid, RegionHead(pyramid, num_classes, settings, cascade, masks)


faster_rcnn = _build  # arXiv:1506.01497
cascade_rcnn = partial(_build, cascade=True)  # arXiv:1712.00726
mask_rcnn = partial(_build, masks=True)  # arXiv:1703.06870
cascade_mask_rcnn = partial(_build, cascade=True, masks=True)  # arXiv:1906.09756
