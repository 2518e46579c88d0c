"""The box head: one stage is Faster R-CNN's (arXiv:1506.01497), several in a row are Cascade R-CNN's.

Cascade R-CNN (arXiv:1712.00726; 1906.09756, section 4): every stage pools the boxes that the stage before has moved,
classifies them and moves them again. A stage learns from hits of a higher overlap than the one before, and from box
offsets in finer units. In evaluation the class probabilities are averaged over the stages, and the last boxes stand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.ops import box_iou
from torchvision.ops.poolers import LevelMapper

from resurge.arch.layers import BatchNorm2d
from resurge.tasks.detect.ops import ABSENT, pool, pooled
from resurge.tasks.detect.pyramid import Features, Pyramid
from resurge.tasks.detect.settings import Detector
from resurge.tasks.detect.slots import clip, occupied, put_back, sizable

HITS_SHARE = 0.25  # of the sampled proposals; arXiv:1504.08083, section 2.3
SMALLEST = 1e-3  # pixels; a shorter side cannot be the unit of an offset
SAMPLES = 2  # of RoIAlign, along each side of a cell
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


class LevelPool(nn.Module):
    """RoIAlign from the level that fits the size of a box (arXiv:1612.03144, equation 1).

    torchvision's MultiScaleRoIAlign guesses the strides from the first batch that it sees, wrongly if its images fill
    little of their padding, and takes lists of boxes, which torch.export does not trace.

    Args:
        pyramid: whose levels of the backbone are pooled.
        size: side of the pooled map.
        canonical: side in pixels of a box that is pooled from the level of stride 16.
    """

    def __init__(self, pyramid: Pyramid, size: int, canonical: int) -> None:
        super().__init__()
        low, high = (int(stride).bit_length() - 1 for stride in (pyramid.strides[0], pyramid.strides[-1]))
        self.scales = [1 / stride for stride in pyramid.strides]
        self.size = size
        self.map_levels = LevelMapper(low, high, canonical_scale=canonical, canonical_level=4)

    def forward(self, levels: Sequence[Tensor], boxes: Tensor, image: Tensor) -> Tensor:
        """(M, C, size, size) of boxes (M, 4) of the images int64 (M,), in the type of the levels.

        Coordinates and sums are at least float32.
        """
        kind = torch.float64 if levels[0].dtype == torch.float64 else torch.float32
        of_backbone = [level.to(kind) for level in levels[: len(self.scales)]]
        align = pooled if torch.compiler.is_exporting() else pool  # the operator has no gradient
        found: Tensor = align(
            of_backbone, boxes.to(kind), image, self.map_levels([boxes]), self.scales, self.size, SAMPLES
        )
        return found.to(levels[0].dtype)


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
        self.pool = LevelPool(pyramid, settings.box_size, settings.pool_scale)
        self.heads = nn.ModuleList(_make_layers(channels, settings) for _ in overlaps)
        self.predictors = nn.ModuleList(_make_predictor(settings, num_classes, agnostic) for _ in overlaps)
        self.matchers = [Matcher(overlap, overlap, allow_low_quality_matches=False) for overlap in overlaps]
        self.coders = [BoxCoder(_weights(stage)) for stage in range(len(overlaps))]
        self.sampler = BalancedPositiveNegativeSampler(settings.roi_batch, HITS_SHARE)

    def losses(
        self, features: Features, proposals: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[dict[str, Tensor], list[Sample]]:
        """The terms loss_class and loss_box, with _1, _2, ... behind the name when there are several stages."""
        terms: dict[str, Tensor] = {}
        samples: list[Sample] = []
        several = len(self.heads) > 1
        for stage, (matcher, coder) in enumerate(zip(self.matchers, self.coders, strict=True)):
            sample = self.sample(matcher, proposals, targets)
            boxes, image = joined(sample.proposals)
            logits, offsets = self.predict(stage, features, boxes, image)
            objects = [_rows(t["boxes"], m) for t, m in zip(targets, sample.matched, strict=True)]
            wanted = torch.cat(coder.encode(objects, sample.proposals))
            by_class, by_box = box_losses(logits, offsets, torch.cat(sample.labels), wanted)
            suffix = f"_{stage + 1}" if several else ""
            terms |= {f"loss_class{suffix}": by_class, f"loss_box{suffix}": by_box}
            samples.append(sample)
            if stage + 1 < len(self.heads):
                moved = clip(coder.decode_single(offsets.detach(), boxes), features.limits[image])
                proposals = [own[sizable(own, SMALLEST)] for own in moved.split([len(own) for own in sample.proposals])]
        return terms, samples

    def candidates(self, features: Features, proposals: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes and scores of every class.

        Args:
            proposals: (N, R, 4). there: bool (N, R), whether there is one.

        Returns:
            boxes (N, R, K, 4) inside their images, or (N, R, 1, 4) of one box for all classes; scores (N, R, K),
            `ABSENT` where there is no proposal.
        """
        place = occupied(there)
        image, boxes = place // there.shape[1], proposals.flatten(0, 1)[place]
        limits, probabilities = features.limits[image], []
        for stage, coder in enumerate(self.coders):
            logits, offsets = self.predict(stage, features, boxes, image)
            probabilities.append(logits.softmax(1))
            if stage + 1 < len(self.coders):
                boxes = clip(coder.decode_single(offsets, boxes), limits)
        scores = torch.stack(probabilities).mean(0) if len(probabilities) > 1 else probabilities[0]
        moved = self.coders[-1].decode_single(offsets, boxes).unflatten(1, (-1, 4))
        moved = clip(moved[:, 1:] if moved.shape[1] > 1 else moved, limits[:, None])
        return put_back(moved, place, there, 0.0), put_back(scores[:, 1:], place, there, ABSENT)

    def predict(self, stage: int, features: Features, boxes: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (M, K + 1) and offsets (M, 4 (K + 1)), or (M, 4), of boxes (M, 4) of the images (M,)."""
        pooled = self.pool(features.levels, boxes, image)
        share_gradient(pooled, len(self.heads))
        logits, offsets = self.predictors[stage](self.heads[stage](pooled))
        return logits.float(), offsets.float()

    def smooth_outputs(self, features: Features, boxes: Tensor, image: Tensor) -> Iterator[Tensor]:
        """Logits and offsets of each stage for given boxes (M, 4), in the type of the layers."""
        pooled = self.pool(features.levels, boxes, image)
        for layers, predictor in zip(self.heads, self.predictors, strict=True):
            yield from predictor(layers(pooled))

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


def joined(boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The boxes (n, 4) of each image as one (M, 4), and the image int64 (M,) of each."""
    whole = torch.cat(list(boxes))
    counts = torch.tensor([len(own) for own in boxes], device=whole.device)
    return whole, torch.arange(len(boxes), device=whole.device).repeat_interleave(counts, output_size=len(whole))


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
