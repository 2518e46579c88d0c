"""RetinaNet (arXiv:1708.02002): every anchor is classified and moved at once, without proposals."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import box_iou, clip_boxes_to_image

from resurge.arch.layers import BatchNorm2d
from resurge.tasks.detect.boxes import suppressed
from resurge.tasks.detect.proposals import make_anchors
from resurge.tasks.detect.pyramid import Pyramid, Size
from resurge.tasks.detect.settings import Detector

# Overlap from which an anchor is an object, and below which it is none: arXiv:1708.02002, section 4.
OBJECT, NOTHING = 0.5, 0.4


class RetinaHead(nn.Module):
    """Classes and boxes at three scales and every ratio on each level of the pyramid.

    The tensors have a class 0 in front, which no object has and which is never reported: so the published ones, with
    one output for each of COCO's ids from 0, fit as they are.
    """

    def __init__(self, pyramid: Pyramid, num_classes: int, settings: Detector) -> None:
        super().__init__()
        self.settings = settings
        scale = settings.anchor_scale or 4.0
        last = pyramid.strides[-1]
        strides = (*pyramid.strides, 2 * last, 4 * last)
        # whole pixels, as torchvision's; section 4: scales of 2^0, 2^(1/3), 2^(2/3)
        sides = [tuple(float(int(scale * stride * 2 ** (i / 3))) for i in range(3)) for stride in strides]
        self.anchors = make_anchors(sides, settings.anchor_ratios)
        norm = BatchNorm2d if settings.head_norm else None
        self.net = RetinaNetHead(
            settings.fpn_channels, 3 * len(settings.anchor_ratios), num_classes + 1, norm_layer=norm
        )
        self.matcher = Matcher(OBJECT, NOTHING, allow_low_quality_matches=True)
        self.coder = BoxCoder((1.0, 1.0, 1.0, 1.0))

    def predict(self, levels: dict[str, Tensor]) -> dict[str, Tensor]:
        """cls_logits (N, A, K + 1) and bbox_regression (N, A, 4) of all anchors, level by level."""
        return {key: value.float() for key, value in self.net(list(levels.values())).items()}

    def losses(
        self, batch: ImageList, levels: dict[str, Tensor], targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The terms loss_class (focal) and loss_box (L1), each per hit and then averaged over the images."""
        anchors = self.anchors(batch, list(levels.values()))
        matched = [
            self.matcher(box_iou(target["boxes"], own))
            if len(target["boxes"])
            else torch.full((len(own),), Matcher.BELOW_LOW_THRESHOLD, device=own.device)
            for own, target in zip(anchors, targets, strict=True)
        ]
        terms = self.net.compute_loss(targets, self.predict(levels), anchors, matched)
        return {"loss_class": terms["classification"], "loss_box": terms["bbox_regression"]}

    def detect(self, batch: ImageList, levels: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        anchors = self.anchors(batch, list(levels.values()))
        outputs = self.predict(levels)
        cells = [level.shape[-2] * level.shape[-1] for level in levels.values()]
        counts = [n * len(anchors[0]) // sum(cells) for n in cells]
        return [
            self.choose(scores.split(counts), offsets.split(counts), own.split(counts), size)
            for scores, offsets, own, size in zip(
                outputs["cls_logits"][..., 1:].sigmoid(),
                outputs["bbox_regression"],
                anchors,
                batch.image_sizes,
                strict=True,
            )
        ]

    def choose(
        self, scores: Sequence[Tensor], offsets: Sequence[Tensor], anchors: Sequence[Tensor], size: Size
    ) -> dict[str, Tensor]:
        """Detections of one image. From each level come at most `rpn_proposals_test`, before suppression."""
        found: dict[str, list[Tensor]] = {"boxes": [], "scores": [], "labels": []}
        for score, offset, anchor in zip(scores, offsets, anchors, strict=True):
            row, label = torch.where(score > self.settings.score_threshold)
            best, order = score[row, label].topk(min(self.settings.rpn_proposals_test, len(row)))
            row = row[order]
            boxes = self.coder.decode_single(offset[row], anchor[row])
            found["boxes"].append(clip_boxes_to_image(boxes, size))
            found["scores"].append(best)
            found["labels"].append(label[order])
        return suppressed({key: torch.cat(parts) for key, parts in found.items()}, self.settings)
