"""Anchors and the region proposal network (arXiv:1506.01497, section 3).

Under autocast a convolution puts out bfloat16, whose eight bits of mantissa cannot hold a coordinate beyond 256; so
every anchor and all that is computed from the outputs of the head is float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from resurge.tasks.detect.head import by_class, clip, rows, sizable, top
from resurge.tasks.detect.ops import ABSENT, suppress
from resurge.tasks.detect.pyramid import Features
from resurge.tasks.detect.settings import Detector

# Overlap from which an anchor is an object, and below which it is none; share of objects in the sample; overlap of
# two proposals above which the lower one goes: arXiv:1506.01497, section 3.1.2, and the authors' code.
OBJECT, NOTHING, OBJECTS_SHARE, SUPPRESS = 0.7, 0.3, 0.5, 0.7


class Anchors(nn.Module):
    """The anchors of a pyramid: for each level its sides in pixels, each in every ratio of height to width."""

    def __init__(self, sides: Sequence[tuple[float, ...]], ratios: tuple[float, ...]) -> None:
        super().__init__()
        for index, cell in enumerate(AnchorGenerator(tuple(sides), (ratios,) * len(sides)).cell_anchors):
            # torchvision rounds them to whole pixels; as integers they stay so whatever the network is cast to
            self.register_buffer(f"cell_{index}", cell.long(), persistent=False)

    def forward(self, features: Features) -> list[Tensor]:
        """For each level its anchors float32 (h * w * A, 4), row by row; the same for every image of the batch."""
        return [
            self._of_level(cell, level, features.area)
            for cell, level in zip(self.buffers(), features.levels, strict=True)
        ]

    @staticmethod
    def _of_level(cell: Tensor, level: Tensor, area: tuple[int, int]) -> Tensor:
        height, width = level.shape[-2], level.shape[-1]
        down = torch.arange(height, device=cell.device) * (area[0] // height)
        across = torch.arange(width, device=cell.device) * (area[1] // width)
        y, x = down[:, None].expand(height, width), across[None].expand(height, width)
        return (torch.stack([x, y, x, y], dim=2)[:, :, None] + cell).reshape(-1, 4).float()


class ProposalNetwork(RegionProposalNetwork):  # type: ignore[misc]
    """Boxes that may hold an object, from every level of a pyramid; each level has anchors of one side.

    The layers, the assignment of anchors to objects and the losses are torchvision's.
    """

    def __init__(self, strides: Sequence[int], settings: Detector) -> None:
        scale, ratios = settings.anchor_scale or 8.0, settings.anchor_ratios
        kept = {"training": settings.rpn_proposals_train, "testing": settings.rpn_proposals_test}
        super().__init__(
            Anchors([(scale * stride,) for stride in strides], ratios),
            RPNHead(settings.fpn_channels, len(ratios), conv_depth=settings.rpn_convs),
            OBJECT, NOTHING, settings.rpn_batch, OBJECTS_SHARE, kept, kept, SUPPRESS,
        )  # fmt: skip
        self.settings = settings

    def detect(self, features: Features) -> tuple[Tensor, Tensor]:
        """Boxes (N, R, 4), best first, and bool (N, R): whether there is one."""
        return self.propose(features, *self.predict(features), self.settings.rpn_proposals_test)

    def losses(self, features: Features, targets: list[dict[str, Tensor]]) -> tuple[list[Tensor], dict[str, Tensor]]:
        """For each image its proposals (n, 4), and the terms loss_objectness and loss_rpn_box."""
        objectness, offsets, anchors = self.predict(features)
        with torch.no_grad():
            boxes, there = self.propose(features, objectness, offsets, anchors, self.settings.rpn_proposals_train)
        everywhere = [torch.cat(anchors)] * len(targets)
        labels, matched = self.assign_targets_to_anchors(everywhere, targets)
        by_object, by_box = self.compute_loss(
            torch.cat(objectness, 1), torch.cat(offsets, 1).flatten(0, 1), labels,
            self.box_coder.encode(matched, everywhere),
        )  # fmt: skip
        proposals = [own[mask] for own, mask in zip(boxes, there, strict=True)]
        return proposals, {"loss_objectness": by_object, "loss_rpn_box": by_box}

    def predict(self, features: Features) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """For each level the objectness logits (N, n) and offsets (N, n, 4) of its n anchors, and these (n, 4)."""
        anchors = self.anchor_generator(features)
        objectness, offsets = self.head(features.levels)
        return (
            [logits.float().permute(0, 2, 3, 1).flatten(1) for logits in objectness],
            [offset.float().unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3) for offset in offsets],
            anchors,
        )

    def propose(
        self, features: Features, objectness: list[Tensor], offsets: list[Tensor], anchors: list[Tensor], count: int
    ) -> tuple[Tensor, Tensor]:
        """The `count` best of each level, and of these the `count` best that remain after suppression per level."""
        logits, moves, bases = [], [], []
        for logit, offset, own in zip(objectness, offsets, anchors, strict=True):
            best, index = top(logit, count)
            logits.append(best)
            moves.append(rows(offset, index))
            bases.append(own[index])
        logit = torch.cat(logits, 1)
        boxes = self.box_coder.decode_single(torch.cat(moves, 1).flatten(0, 1), torch.cat(bases, 1).flatten(0, 1))
        boxes = clip(boxes.unflatten(0, (logit.shape[0], -1)), features.limits[:, None])
        score = logit.sigmoid().where((logit > -torch.inf) & sizable(boxes, self.min_size), ABSENT)
        level = torch.arange(len(logits), device=score.device).repeat_interleave(count)[None]
        index = suppress(boxes[:, :, None], by_class(score, level, len(logits)), self.nms_thresh, count)
        return rows(boxes, index.clamp(min=0) // len(logits)), index >= 0
