"""The box head: one stage is Faster R-CNN's (arXiv:1506.01497), several in a row are Cascade R-CNN's.

Cascade R-CNN (arXiv:1712.00726; 1906.09756, section 4): every stage pools the boxes that the stage before has moved,
classifies them and moves them again. A stage learns from hits of a higher overlap than the one before, and from box
offsets in finer units. In evaluation the class probabilities are averaged over the stages, and the last boxes stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign, box_iou, clip_boxes_to_image, remove_small_boxes
from torchvision.ops.poolers import LevelMapper

from resurge.arch.layers import BatchNorm2d
from resurge.tasks.detect.boxes import choose
from resurge.tasks.detect.pyramid import Pyramid, Size
from resurge.tasks.detect.settings import Detector

HITS_SHARE = 0.25  # of the sampled proposals; arXiv:1504.08083, section 2.3
SMALLEST = 1e-3  # pixels; a shorter side cannot be the unit of an offset
BETA = 1 / 9  # where the smooth L1 loss of a box turns from square to straight
# What the first stage's offsets are multiplied by, x y w h, to have a variance of about one. Later stages see smaller
# offsets: twice as much for the second, three times for the third (arXiv:1712.00726, section 4.1, the authors' code).
WEIGHTS = (10.0, 10.0, 5.0, 5.0)


@dataclass(frozen=True)
class Sample:
    """What one stage learns from; each a list with one tensor an image.

    Attributes:
        proposals: boxes (n, 4).
        labels: (n,), 0 for the background.
        matched: (n,), the target that belongs to a proposal; 0 for the background.
    """

    proposals: list[Tensor]
    labels: list[Tensor]
    matched: list[Tensor]


class BoxHead(nn.Module):
    """Proposals -> detections, in one stage for each number of `overlaps`.

    Args:
        pyramid: whose levels are pooled.
        channels: of every level.
        num_classes: without the background, which comes first in every tensor.
        settings: numbers.
        overlaps: of a proposal with an object from which it is a hit, a stage each.
        agnostic: one box for all classes instead of one for each.
    """

    def __init__(
        self,
        pyramid: Pyramid,
        channels: int,
        num_classes: int,
        settings: Detector,
        overlaps: Sequence[float],
        agnostic: bool,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.pool = make_pool(pyramid, settings.box_size, settings)
        self.heads = nn.ModuleList(_make_layers(channels, settings) for _ in overlaps)
        self.predictors = nn.ModuleList(_make_predictor(settings, num_classes, agnostic) for _ in overlaps)
        self.matchers = [Matcher(overlap, overlap, allow_low_quality_matches=False) for overlap in overlaps]
        self.coders = [BoxCoder(_weights(stage)) for stage in range(len(overlaps))]
        self.sampler = BalancedPositiveNegativeSampler(settings.roi_batch, HITS_SHARE)

    def losses(
        self,
        levels: dict[str, Tensor],
        proposals: list[Tensor],
        targets: list[dict[str, Tensor]],
        sizes: Sequence[Size],
    ) -> tuple[dict[str, Tensor], list[Sample]]:
        """The terms loss_class and loss_box, with _1, _2, ... behind the name when there are several stages."""
        terms: dict[str, Tensor] = {}
        samples: list[Sample] = []
        several = len(self.heads) > 1
        for stage, (matcher, coder) in enumerate(zip(self.matchers, self.coders, strict=True)):
            sample = self.sample(matcher, proposals, targets)
            logits, offsets = self.predict(stage, levels, sample.proposals, sizes)
            objects = [_rows(t["boxes"], m) for t, m in zip(targets, sample.matched, strict=True)]
            wanted = torch.cat(coder.encode(objects, sample.proposals))
            by_class, by_box = box_losses(logits, offsets, torch.cat(sample.labels), wanted)
            suffix = f"_{stage + 1}" if several else ""
            terms |= {f"loss_class{suffix}": by_class, f"loss_box{suffix}": by_box}
            samples.append(sample)
            if stage + 1 < len(self.heads):
                moved = self.move(coder, offsets.detach(), sample.proposals, sizes)
                proposals = [boxes[remove_small_boxes(boxes, SMALLEST)] for boxes in moved]
        return terms, samples

    def detect(
        self, levels: dict[str, Tensor], proposals: list[Tensor], sizes: Sequence[Size]
    ) -> list[dict[str, Tensor]]:
        """For each image boxes (n, 4), scores (n,) and labels (n,) from 0."""
        counts = [len(boxes) for boxes in proposals]
        probabilities = []
        for stage, coder in enumerate(self.coders):
            logits, offsets = self.predict(stage, levels, proposals, sizes)
            probabilities.append(logits.softmax(1))
            if stage + 1 < len(self.heads):
                proposals = self.move(coder, offsets, proposals, sizes)
        scores = torch.stack(probabilities).mean(0) if len(probabilities) > 1 else probabilities[0]
        boxes = self.coders[-1].decode_single(offsets, torch.cat(proposals))
        boxes = boxes.reshape(len(scores), offsets.shape[1] // 4, 4)
        if boxes.shape[1] > 1:
            boxes = boxes[:, 1:]
        return [
            choose(own, score, size, self.settings)
            for own, score, size in zip(boxes.split(counts), scores[:, 1:].split(counts), sizes, strict=True)
        ]

    def predict(
        self, stage: int, levels: dict[str, Tensor], proposals: list[Tensor], sizes: Sequence[Size]
    ) -> tuple[Tensor, Tensor]:
        """Class logits (n, K + 1) and box offsets (n, 4 (K + 1)), or (n, 4), of all images' proposals in a row."""
        pooled = self.pool(levels, proposals, list(sizes))
        share_gradient(pooled, len(self.heads))
        logits, offsets = self.predictors[stage](self.heads[stage](pooled))
        return logits.float(), offsets.float()

    def sample(self, matcher: Matcher, proposals: list[Tensor], targets: list[dict[str, Tensor]]) -> Sample:
        """Assign proposals, and the objects' own boxes beside them, to objects, and draw from both kinds."""
        pool, matched, labels = [], [], []
        for boxes, target in zip(proposals, targets, strict=True):
            boxes = torch.cat([boxes, target["boxes"]])
            if len(target["boxes"]):
                index = matcher(box_iou(target["boxes"], boxes))
                label = target["labels"][index.clamp(min=0)].where(index >= 0, 0)
            else:
                index = label = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
            pool.append(boxes)
            matched.append(index.clamp(min=0))
            labels.append(label)
        drawn = [torch.where(hits | rest)[0] for hits, rest in zip(*self.sampler(labels), strict=True)]
        return Sample(*([part[i] for part, i in zip(parts, drawn, strict=True)] for parts in (pool, labels, matched)))

    def move(self, coder: BoxCoder, offsets: Tensor, proposals: list[Tensor], sizes: Sequence[Size]) -> list[Tensor]:
        """The proposals (n, 4) moved by offsets (all, 4), clipped to their images."""
        moved = coder.decode_single(offsets, torch.cat(proposals)).split([len(boxes) for boxes in proposals])
        return [clip_boxes_to_image(boxes, size) for boxes, size in zip(moved, sizes, strict=True)]


def box_losses(logits: Tensor, offsets: Tensor, labels: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy, and smooth L1 of the hits' offsets as a share of all proposals (arXiv:1504.08083, section 2.3).

    logits (n, K + 1), offsets (n, 4 (K + 1)) or (n, 4), labels (n,) with 0 for the background, wanted (n, 4). Without
    proposals both are 0, and still depend on the network.
    """
    if not len(labels):
        return logits.sum() * 0, offsets.sum() * 0
    hit = torch.where(labels > 0)[0]
    own = offsets.reshape(len(labels), -1, 4)
    own = own[hit, labels[hit] if own.shape[1] > 1 else 0]
    by_box = F.smooth_l1_loss(own, wanted[hit], beta=BETA, reduction="sum") / len(labels)
    return F.cross_entropy(logits, labels), by_box


def make_pool(pyramid: Pyramid, size: int, settings: Detector) -> MultiScaleRoIAlign:
    """RoIAlign from the levels of the backbone, by the size of a box (arXiv:1612.03144, equation 1)."""
    pool = MultiScaleRoIAlign(list(pyramid.names), size, sampling_ratio=2)
    # torchvision guesses the strides from the first batch it sees, wrongly if its images fill little of their
    # padding; here they are known.
    low, high = (int(stride).bit_length() - 1 for stride in (pyramid.strides[0], pyramid.strides[-1]))
    pool.scales = [1 / stride for stride in pyramid.strides]
    pool.map_levels = LevelMapper(low, high, canonical_scale=settings.pool_scale, canonical_level=4)
    return pool


def share_gradient(x: Tensor, stages: int) -> None:
    """Let several heads on the same map move it as much as one head would: their gradients are averaged.

    This is the authors' averaging of the stages' losses with the heads' learning rate multiplied by their number.
    """
    if stages > 1 and x.requires_grad:
        x.register_hook(lambda gradient: gradient / stages)


def start_small(layer: nn.Module, std: float) -> None:
    """Normal weights and no bias."""
    for name, parameter in layer.named_parameters():
        if name == "bias":
            nn.init.zeros_(parameter)
        else:
            nn.init.normal_(parameter, std=std)


def _weights(stage: int) -> tuple[float, ...]:
    return tuple(weight * (stage + 1) for weight in WEIGHTS)


def _rows(boxes: Tensor, index: Tensor) -> Tensor:
    """`boxes[index]`; zeros where there are no boxes at all, for proposals that are all background."""
    return boxes[index] if len(boxes) else boxes.new_zeros((len(index), 4))


def _make_layers(channels: int, settings: Detector) -> nn.Module:
    layers: nn.Module
    if settings.box_head == "2fc":
        layers = TwoMLPHead(channels * settings.box_size**2, settings.box_channels)
    else:
        norm = BatchNorm2d if settings.head_norm else None
        size = (channels, settings.box_size, settings.box_size)
        layers = FastRCNNConvFCHead(size, [channels] * 4, [settings.box_channels], norm_layer=norm)
    return layers


def _make_predictor(settings: Detector, num_classes: int, agnostic: bool) -> nn.Module:
    predictor: nn.Module = FastRCNNPredictor(settings.box_channels, num_classes + 1)
    if agnostic:
        predictor.bbox_pred = nn.Linear(settings.box_channels, 4)
    # arXiv:1504.08083, section 2.3: classes start about equally likely, boxes start where the proposals are
    start_small(predictor.get_submodule("cls_score"), 0.01)
    start_small(predictor.get_submodule("bbox_pred"), 0.001)
    return predictor
