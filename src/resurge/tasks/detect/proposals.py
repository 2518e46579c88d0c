"""Anchors and the region proposal network (arXiv:1506.01497, section 3), torchvision's, kept in full precision.

Under autocast a convolution puts out bfloat16, whose eight bits of mantissa cannot hold a coordinate beyond 256; so
what leaves a head, and every anchor, is float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from resurge.tasks.detect.settings import Detector

# Overlap from which an anchor is an object, and below which it is none; share of objects in the sample; overlap of
# two proposals above which the lower one goes: arXiv:1506.01497, section 3.1.2, and the authors' code.
OBJECT, NOTHING, OBJECTS_SHARE, SUPPRESS = 0.7, 0.3, 0.5, 0.7


class Anchors(AnchorGenerator):
    """torchvision's generator, with float32 anchors whatever the maps are made of."""

    def forward(self, batch: ImageList, levels: Sequence[Tensor]) -> list[Tensor]:
        exact = [torch.zeros((), device=level.device).expand(level.shape) for level in levels]
        anchors: list[Tensor] = super().forward(batch, exact)
        return anchors


class ProposalHead(RPNHead):
    """torchvision's head, with float32 outputs."""

    def forward(self, levels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        objectness, deltas = super().forward(levels)
        return [x.float() for x in objectness], [x.float() for x in deltas]


def make_anchors(sides: Sequence[tuple[float, ...]], ratios: tuple[float, ...]) -> Anchors:
    """For each level its sides in pixels, each in every ratio of height to width."""
    return Anchors(tuple(sides), (ratios,) * len(sides))


def make_proposer(channels: int, strides: Sequence[int], settings: Detector) -> RegionProposalNetwork:
    """The proposal network on levels of these strides, one anchor side a level."""
    scale = settings.anchor_scale or 8.0
    ratios = settings.anchor_ratios
    kept = {"training": settings.rpn_proposals_train, "testing": settings.rpn_proposals_test}
    return RegionProposalNetwork(
        make_anchors([(scale * stride,) for stride in strides], ratios),
        ProposalHead(channels, len(ratios), conv_depth=settings.rpn_convs),
        OBJECT,
        NOTHING,
        settings.rpn_batch,
        OBJECTS_SHARE,
        kept,
        kept,
        SUPPRESS,
    )


def propose(
    network: RegionProposalNetwork,
    batch: ImageList,
    levels: dict[str, Tensor],
    targets: list[dict[str, Tensor]] | None = None,
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Boxes (n, 4) for each image, best first, and with targets the losses loss_objectness and loss_rpn_box."""
    # The mode of torchvision's network says whether it takes targets; nothing else in it depends on the mode.
    network.training = targets is not None
    proposals, losses = network(batch, levels, targets)
    if targets is None:
        return proposals, {}
    return proposals, {"loss_objectness": losses["loss_objectness"], "loss_rpn_box": losses["loss_rpn_box_reg"]}
