"""Detection by regions: proposals, then boxes, then, with some heads, masks.

One box stage is Faster R-CNN's (arXiv:1506.01497), several in a row are Cascade R-CNN's (arXiv:1712.00726; 1906.09756,
section 4): every stage pools the boxes that the stage before has moved, classifies them and moves them again. A stage
learns from hits of a higher overlap than the one before, and from box offsets in finer units. In evaluation the class
probabilities are averaged over the stages, and the last boxes stand.

The mask head (arXiv:1703.06870, section 3) has a stage for each of the box head. In a cascade (arXiv:1906.09756,
section 6.2, strategy d) every stage learns from the hits of its own box stage; in evaluation all of them see the final
boxes and their probabilities are averaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss, maskrcnn_loss
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.poolers import LevelMapper

from resurge.arch.backbone import Backbone
from resurge.arch.layers import BatchNorm2d
from resurge.tasks.detect.head import Detections, Head, clip, occupied, put_back, select, sizable, taken
from resurge.tasks.detect.ops import ABSENT, pool, pooled
from resurge.tasks.detect.proposals import ProposalNetwork
from resurge.tasks.detect.pyramid import Features, Pyramid
from resurge.tasks.detect.settings import Detector

HITS_SHARE = 0.25  # of the sampled proposals; arXiv:1504.08083, section 2.3
SMALLEST = 1e-3  # pixels; a shorter side cannot be the unit of an offset
SAMPLES = 2  # of RoIAlign, along each side of a cell
# What the first stage's offsets are multiplied by, x y w h, to have a variance of about one. Later stages see smaller
# offsets: twice as much for the second, three times for the third (arXiv:1712.00726, section 4.1, the authors' code).
WEIGHTS = (10.0, 10.0, 5.0, 5.0)


class Sample(NamedTuple):
    """What one stage learns from, one tensor per image in each list: boxes (n, 4), the target (n,) that belongs to each
    (0 for the background), labels (n,) with 0 for the background, and the offsets to the target (n, 4)."""

    proposals: list[Tensor]
    matched: list[Tensor]
    labels: list[Tensor]
    offsets: list[Tensor]


class LevelPool(nn.Module):
    """RoIAlign to maps of `size` a side, from the level that fits the size of a box (arXiv:1612.03144, equation 1);
    a box of `canonical` pixels a side is pooled from stride 16.

    torchvision's MultiScaleRoIAlign guesses the strides from the first batch that it sees, wrongly if its images fill
    little of their padding, and takes lists of boxes, which torch.export does not trace.
    """

    def __init__(self, pyramid: Pyramid, size: int, canonical: int) -> None:
        super().__init__()
        low, high = (int(stride).bit_length() - 1 for stride in (pyramid.strides[0], pyramid.strides[-1]))
        self.scales = [1 / stride for stride in pyramid.strides]
        self.size = size
        self.map_levels = LevelMapper(low, high, canonical_scale=canonical, canonical_level=4)

    def forward(self, levels: Sequence[Tensor], boxes: Tensor, image: Tensor) -> Tensor:
        """(M, C, size, size) of boxes (M, 4) of the images int64 (M,), in the type of the levels. Coordinates and sums
        are at least float32."""
        kind = torch.float64 if levels[0].dtype == torch.float64 else torch.float32
        of_backbone = [level.to(kind) for level in levels[: len(self.scales)]]
        align = pooled if torch.compiler.is_exporting() else pool  # the operator has no gradient
        found: Tensor = align(
            of_backbone, boxes.to(kind), image, self.map_levels([boxes]), self.scales, self.size, SAMPLES
        )
        return found.to(levels[0].dtype)


class Stages(nn.Module):
    """For each stage a head and a predictor behind it, on maps that are pooled for boxes."""

    def __init__(self, pool: LevelPool, heads: Iterable[nn.Module], predictors: Iterable[nn.Module]) -> None:
        super().__init__()
        self.pool = pool
        self.heads, self.predictors = nn.ModuleList(heads), nn.ModuleList(predictors)

    def predict(self, stage: int, features: Features, boxes: Tensor, image: Tensor) -> tuple[Tensor, ...]:
        """The outputs of a stage, float32, for boxes (M, 4) of the images (M,).

        The gradients of the stages are averaged where they meet, so that all heads move the map as much as one would.
        This is the authors' averaging of the stages' losses with the heads' learning rate multiplied by their number.
        """
        stages, region = len(self.heads), self.pool(features.levels, boxes, image)
        if stages > 1 and region.requires_grad:
            region.register_hook(lambda gradient: gradient / stages)
        return tuple(values.float() for values in self._outputs(stage, region))

    def smooth_outputs(self, features: Features, boxes: Tensor, image: Tensor) -> Iterator[Tensor]:
        """The outputs of each stage for given boxes (M, 4), in the type of the layers."""
        region = self.pool(features.levels, boxes, image)
        for stage in range(len(self.heads)):
            yield from self._outputs(stage, region)

    def _outputs(self, stage: int, region: Tensor) -> tuple[Tensor, ...]:
        found = self.predictors[stage](self.heads[stage](region))
        return found if isinstance(found, tuple) else (found,)

    def _term(self, name: str, stage: int) -> str:
        return f"{name}_{stage + 1}" if len(self.heads) > 1 else name


class BoxHead(Stages):
    """Proposals -> detections; the background comes first in every tensor.

    Args:
        overlaps: of a proposal with an object from which it is a hit, one per stage.
        agnostic: one box for all classes instead of one for each.
    """

    def __init__(
        self, pyramid: Pyramid, num_classes: int, settings: Detector, overlaps: Sequence[float], agnostic: bool
    ) -> None:
        super().__init__(
            LevelPool(pyramid, settings.box_size, settings.pool_scale),
            (_make_layers(settings) for _ in overlaps),
            (_make_predictor(settings, num_classes, agnostic) for _ in overlaps),
        )
        # Only the assignment and sampling of proposals is used of torchvision's RoIHeads; it has no parameters.
        self.samplers = [
            RoIHeads(
                None, None, None, overlap, overlap, settings.roi_batch, HITS_SHARE,
                tuple(weight * stage for weight in WEIGHTS), 0, 0, 0,
            )
            for stage, overlap in enumerate(overlaps, 1)
        ]  # fmt: skip
        self.coders = [sampler.box_coder for sampler in self.samplers]

    def losses(
        self, features: Features, proposals: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[dict[str, Tensor], list[Sample]]:
        """The terms loss_class and loss_box, with _1, _2, ... behind the name when there are several stages."""
        terms: dict[str, Tensor] = {}
        samples: list[Sample] = []
        for stage, coder in enumerate(self.coders):
            sample = Sample(*self.samplers[stage].select_training_samples(proposals, targets))
            boxes, image = joined(sample.proposals)
            logits, offsets = self.predict(stage, features, boxes, image)
            by_class, by_box = box_losses(logits, offsets, sample)
            terms |= {self._term("loss_class", stage): by_class, self._term("loss_box", stage): by_box}
            samples.append(sample)
            if stage + 1 < len(self.coders):
                moved = clip(coder.decode_single(offsets.detach(), boxes), features.limits[image])
                proposals = [own[sizable(own, SMALLEST)] for own in moved.split([len(own) for own in sample.proposals])]  # type: ignore[no-untyped-call]
        return terms, samples

    def candidates(self, features: Features, proposals: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Proposals (N, R, 4), and bool (N, R) whether there is one -> boxes (N, R, K, 4) inside their images, or
        (N, R, 1, 4) of one box for all classes, and scores (N, R, K), `ABSENT` where there is no proposal."""
        index = occupied(there)
        image, boxes = index // there.shape[1], proposals.flatten(0, 1)[index]
        limits, probabilities = features.limits[image], []
        for stage, coder in enumerate(self.coders):
            logits, offsets = self.predict(stage, features, boxes, image)
            probabilities.append(logits.softmax(1))
            if stage + 1 < len(self.coders):
                boxes = clip(coder.decode_single(offsets, boxes), limits)
        moved = self.coders[-1].decode_single(offsets, boxes).unflatten(1, (-1, 4))
        moved = clip(moved[:, 1:] if moved.shape[1] > 1 else moved, limits[:, None])
        return put_back(moved, index, there, 0.0), put_back(_mean(probabilities)[:, 1:], index, there, ABSENT)


class MaskHead(Stages):
    """Boxes -> masks of twice `settings.mask_size` a side, one per class."""

    def __init__(self, pyramid: Pyramid, num_classes: int, settings: Detector, stages: int) -> None:
        channels, width = settings.fpn_channels, settings.mask_channels
        norm = BatchNorm2d if settings.head_norm else None
        super().__init__(
            LevelPool(pyramid, settings.mask_size, settings.pool_scale),
            (MaskRCNNHeads(channels, [width] * 4, 1, norm_layer=norm) for _ in range(stages)),
            (MaskRCNNPredictor(width, width, num_classes + 1) for _ in range(stages)),
        )
        for predictor in self.predictors:
            # He's initialisation by fan-out makes huge logits of few classes; every pixel starts at about one half
            _start_small(predictor.get_submodule("mask_fcn_logits"), 0.001)

    def losses(
        self, features: Features, samples: Sequence[Sample], targets: Sequence[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The term loss_mask, or loss_mask_1, ...: binary cross entropy of the mask of the right class, over hits."""
        terms = {}
        masks, labels = ([target[name] for target in targets] for name in ("masks", "labels"))
        for stage, sample in enumerate(samples):
            hits = [torch.where(label > 0)[0] for label in sample.labels]
            boxes = [own[hit] for own, hit in zip(sample.proposals, hits, strict=True)]
            matched = [own[hit] for own, hit in zip(sample.matched, hits, strict=True)]
            (logits,) = self.predict(stage, features, *joined(boxes))
            terms[self._term("loss_mask", stage)] = maskrcnn_loss(logits, boxes, masks, labels, matched)
        return terms

    def detect(self, features: Features, found: Detections) -> Detections:
        """The detections with masks: probabilities inside each box, of its own class; 0 in free slots."""
        there = found.scores > 0
        index = occupied(there)
        boxes, image = found.boxes.flatten(0, 1)[index], index // there.shape[1]
        label = (found.labels.flatten()[index] + 1)[:, None, None, None]
        masks = []
        for stage in range(len(self.heads)):
            (logits,) = self.predict(stage, features, boxes, image)
            masks.append(logits.gather(1, label.expand(-1, 1, *logits.shape[2:]))[:, 0].sigmoid())
        return found._replace(masks=put_back(_mean(masks), index, there, 0.0))


class RegionHead(Head):
    """Faster, Cascade, Mask and Cascade Mask R-CNN behind the pyramid, whose extra level only the proposals see.

    Args:
        cascade: one box stage for each of `settings.cascade_ious`, with boxes for all classes; else one stage that
            takes an overlap of a half for a hit, with a box for each class.
        masks: predict masks too.
    """

    smallest = 1e-2  # as torchvision has it

    def __init__(self, pyramid: Pyramid, num_classes: int, settings: Detector, cascade: bool, masks: bool) -> None:
        super().__init__()
        overlaps = settings.cascade_ious if cascade else (0.5,)
        self.settings = settings
        self.rpn = ProposalNetwork((*pyramid.strides, 2 * pyramid.strides[-1]), settings)
        self.box = BoxHead(pyramid, num_classes, settings, overlaps, agnostic=cascade)
        self.mask = MaskHead(pyramid, num_classes, settings, len(overlaps)) if masks else None

    def losses(self, features: Features, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        proposals, terms = self.rpn.losses(features, targets)
        own, samples = self.box.losses(features, proposals, targets)
        return terms | own | ({} if self.mask is None else self.mask.losses(features, samples, targets))

    def candidates(self, features: Features) -> Detections:
        boxes, scores = self.box.candidates(features, *self.rpn.detect(features))
        labels = torch.arange(scores.shape[2], device=scores.device).expand_as(scores)
        return taken(boxes.expand(*scores.shape, 4).flatten(1, 2), scores.flatten(1), labels.flatten(1))

    def detect(self, features: Features) -> Detections:
        boxes, scores = self.box.candidates(features, *self.rpn.detect(features))
        found = select(boxes, scores.where(sizable(boxes, self.smallest), ABSENT), self.settings)
        return found if self.mask is None else self.mask.detect(features, found)

    def smooth_outputs(self, features: Features, boxes: Tensor, image: Tensor) -> Iterator[Tensor]:
        for of_levels in self.rpn.head(features.levels):
            yield from of_levels
        for stages in (self.box, self.mask):
            if stages is not None:
                yield from stages.smooth_outputs(features, boxes, image)


def box_losses(logits: Tensor, offsets: Tensor, sample: Sample) -> tuple[Tensor, Tensor]:
    """Cross entropy, and smooth L1 of the hits' offsets as a share of all proposals (arXiv:1504.08083, section 2.3).

    logits (n, K + 1), offsets (n, 4 (K + 1)) or (n, 4). Without proposals both are 0, and still depend on the network.
    """
    if not len(logits):
        return logits.sum() * 0, offsets.sum() * 0
    own = offsets if offsets.shape[1] > 4 else offsets.repeat(1, logits.shape[1])
    by_class, by_box = fastrcnn_loss(logits, own, sample.labels, sample.offsets)
    return by_class, by_box


def joined(boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The boxes (n, 4) of each image as one (M, 4), and the image int64 (M,) of each."""
    whole = torch.cat(list(boxes))
    counts = torch.tensor([len(own) for own in boxes], device=whole.device)
    return whole, torch.arange(len(boxes), device=whole.device).repeat_interleave(counts, output_size=len(whole))


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean(0) if len(values) > 1 else values[0]


def _start_small(layer: nn.Module, std: float) -> None:
    """Normal weights and no bias."""
    for name, parameter in layer.named_parameters():
        if name == "bias":
            nn.init.zeros_(parameter)
        else:
            nn.init.normal_(parameter, std=std)


def _make_layers(settings: Detector) -> nn.Module:
    channels, size = settings.fpn_channels, settings.box_size
    layers: nn.Module
    if settings.box_head == "2fc":
        layers = TwoMLPHead(channels * size**2, settings.box_channels)
    else:
        norm = BatchNorm2d if settings.head_norm else None
        layers = FastRCNNConvFCHead((channels, size, size), [channels] * 4, [settings.box_channels], norm_layer=norm)
    return layers


def _make_predictor(settings: Detector, num_classes: int, agnostic: bool) -> nn.Module:
    predictor: nn.Module = FastRCNNPredictor(settings.box_channels, num_classes + 1)
    if agnostic:
        predictor.bbox_pred = nn.Linear(settings.box_channels, 4)
    # arXiv:1504.08083, section 2.3: classes start about equally likely, boxes start where the proposals are
    _start_small(predictor.get_submodule("cls_score"), 0.01)
    _start_small(predictor.get_submodule("bbox_pred"), 0.001)
    return predictor


def _build(
    backbone: Backbone, num_classes: int, settings: Detector, cascade: bool = False, masks: bool = False
) -> tuple[Pyramid, RegionHead]:
    pyramid = Pyramid(backbone, settings, LastLevelMaxPool())
    return pyramid, RegionHead(pyramid, num_classes, settings, cascade, masks)


faster_rcnn = _build  # arXiv:1506.01497
cascade_rcnn = partial(_build, cascade=True)  # arXiv:1712.00726
mask_rcnn = partial(_build, masks=True)  # arXiv:1703.06870
cascade_mask_rcnn = partial(_build, cascade=True, masks=True)  # arXiv:1906.09756
