"""Detection by regions: proposals, then boxes, then, where asked for, masks."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from resurge.tasks.detect.cascade import BoxHead
from resurge.tasks.detect.masks import MaskHead
from resurge.tasks.detect.proposals import make_proposer, propose
from resurge.tasks.detect.pyramid import Pyramid
from resurge.tasks.detect.settings import Detector


class RegionHead(nn.Module):
    """Faster, Cascade, Mask and Cascade Mask R-CNN behind the pyramid.

    Args:
        pyramid: whose levels it sees; its extra level is seen by the proposals only.
        num_classes: without the background.
        settings: numbers.
        cascade: one box stage for each of `settings.cascade_ious`, with boxes for all classes; else one stage that
            takes an overlap of a half for a hit, with a box for each class.
        masks: predict masks too.
    """

    def __init__(self, pyramid: Pyramid, num_classes: int, settings: Detector, cascade: bool, masks: bool) -> None:
        super().__init__()
        channels, strides = settings.fpn_channels, (*pyramid.strides, 2 * pyramid.strides[-1])
        overlaps = settings.cascade_ious if cascade else (0.5,)
        self.rpn = make_proposer(channels, strides, settings)
        self.box = BoxHead(pyramid, channels, num_classes, settings, overlaps, agnostic=cascade)
        self.mask = MaskHead(pyramid, channels, num_classes, settings, len(overlaps)) if masks else None

    def losses(
        self, batch: ImageList, levels: dict[str, Tensor], targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        proposals, terms = propose(self.rpn, batch, levels, targets)
        own, samples = self.box.losses(levels, proposals, targets, batch.image_sizes)
        terms |= own
        if self.mask is not None:
            terms |= self.mask.losses(levels, samples, targets, batch.image_sizes)
        return terms

    def detect(self, batch: ImageList, levels: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        proposals, _ = propose(self.rpn, batch, levels)
        detections = self.box.detect(levels, proposals, batch.image_sizes)
        if self.mask is not None:
            detections = self.mask.detect(levels, detections, batch.image_sizes)
        return detections
