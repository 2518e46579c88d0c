"""RetinaNet (arXiv:1708.02002): every anchor is classified and moved at once, without proposals."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import box_iou
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from resurge.arch.backbone import Backbone
from resurge.arch.layers import BatchNorm2d
from resurge.tasks.detect.head import Detections, Head, by_class, clip, rows, select, taken, top
from resurge.tasks.detect.ops import ABSENT
from resurge.tasks.detect.proposals import Anchors
from resurge.tasks.detect.pyramid import Features, Pyramid
from resurge.tasks.detect.settings import Detector

# Overlap from which an anchor is an object, and below which it is none: arXiv:1708.02002, section 4.
OBJECT, NOTHING = 0.5, 0.4


class RetinaHead(Head):
    """Classes and boxes at three scales and every ratio on each level of the pyramid. The tensors have a class 0 in
    front, which no object has and which is never reported: so the published ones, with one output for each of COCO's
    ids from 0, fit as they are."""

    def __init__(self, pyramid: Pyramid, num_classes: int, settings: Detector) -> None:
        super().__init__()
        self.settings = settings
        self.num_classes = num_classes
        scale = settings.anchor_scale or 4.0
        last = pyramid.strides[-1]
        strides = (*pyramid.strides, 2 * last, 4 * last)
        # whole pixels, as torchvision's; section 4: scales of 2^0, 2^(1/3), 2^(2/3)
        sides = [tuple(float(int(scale * stride * 2 ** (i / 3))) for i in range(3)) for stride in strides]
        self.anchors = Anchors(sides, settings.anchor_ratios)
        norm = BatchNorm2d if settings.head_norm else None
        self.net = RetinaNetHead(
            settings.fpn_channels, 3 * len(settings.anchor_ratios), num_classes + 1, norm_layer=norm
        )
        self.matcher = Matcher(OBJECT, NOTHING, allow_low_quality_matches=True)
        self.coder = BoxCoder((1.0, 1.0, 1.0, 1.0))

    def losses(self, features: Features, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The terms loss_class (focal) and loss_box (L1), each per hit and then averaged over the images."""
        anchors = torch.cat(self.anchors(features))
        matched = [
            self.matcher(box_iou(target["boxes"], anchors))
            if len(target["boxes"])
            else torch.full((len(anchors),), Matcher.BELOW_LOW_THRESHOLD, device=anchors.device)
            for target in targets
        ]
        outputs = {name: value.float() for name, value in self.net(features.levels).items()}
        terms = self.net.compute_loss(targets, outputs, [anchors] * len(targets), matched)
        return {"loss_class": terms["classification"], "loss_box": terms["bbox_regression"]}

    def candidates(self, features: Features) -> Detections:
        """From each level the `rpn_proposals_test` best pairs of a box and a class."""
        most = self.settings.rpn_proposals_test
        scores, labels, moves, bases = [], [], [], []
        for level, anchors in zip(features.levels, self.anchors(features), strict=True):
            outputs = self.net([level])
            score = outputs["cls_logits"].float()[..., 1:].sigmoid()
            # The best pairs are of the boxes whose best class is best: this sorts one number per box.
            best, index = top(score.amax(2), most)
            score = rows(score, index).where((best > -torch.inf)[..., None], ABSENT)
            best, pair = score.flatten(1).topk(most)
            index = index.gather(1, pair // self.num_classes)
            scores.append(best)
            labels.append(pair % self.num_classes)
            moves.append(rows(outputs["bbox_regression"].float(), index))
            bases.append(anchors[index])
        boxes = self.coder.decode_single(torch.cat(moves, 1).flatten(0, 1), torch.cat(bases, 1).flatten(0, 1))
        boxes = boxes.unflatten(0, (features.limits.shape[0], -1))
        return taken(clip(boxes, features.limits[:, None]), torch.cat(scores, 1), torch.cat(labels, 1))

    def detect(self, features: Features) -> Detections:
        boxes, scores, labels, _ = self.candidates(features)
        return select(boxes[:, :, None], by_class(scores, labels, self.num_classes), self.settings)

    def smooth_outputs(self, features: Features, boxes: Tensor, image: Tensor) -> Iterator[Tensor]:
        yield from self.net(features.levels).values()


def retinanet(backbone: Backbone, num_classes: int, settings: Detector) -> tuple[Pyramid, RetinaHead]:
    """Section 4: no level of stride 4, and two beyond the backbone's."""
    channels = settings.fpn_channels
    pyramid = Pyramid(backbone, settings, LastLevelP6P7(channels, channels), finest=8)
    return pyramid, RetinaHead(pyramid, num_classes, settings)
