"""A detector in the form in which it is exported: every tensor has a size that follows from the batch alone.

What `resurge.tasks` finds is a list of another length for each image. Here every list has all its places, and the score
of a place that is not taken is `ABSENT`, or 0 when it leaves the network. The layers are the trained ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resurge.tasks.detect import boxes as box_rules
from resurge.tasks.detect.cascade import BoxHead
from resurge.tasks.detect.masks import MaskHead
from resurge.tasks.detect.model import SceneModel
from resurge.tasks.detect.ops import ABSENT, pooled, surviving
from resurge.tasks.detect.retina import RetinaHead
from resurge.tasks.detect.settings import Detector

Objects = tuple[Tensor, Tensor, Tensor]
"""boxes float32 (N, n, 4); scores float32 (N, n), `ABSENT` where there is none; labels int64 (N, n), from 0."""


class DeployedDetector(nn.Module):
    """Images and their sizes -> objects, in the pixels of the batch.

    Args:
        model: the detector; its layers are used as they are.
        kind: what the layers compute in; boxes are always computed in float32.
        raw: put out the candidates before threshold and suppression.
    """

    def __init__(self, model: SceneModel, kind: torch.dtype = torch.float32, raw: bool = False) -> None:
        super().__init__()
        self.model = model.to(kind)
        self.kind = kind
        self.raw = raw
        self.stride = int(model.backbone.strides[-1])
        generator = model.head.anchors if isinstance(model.head, RetinaHead) else model.head.rpn.anchor_generator
        for index, cell in enumerate(generator.cell_anchors):  # in float32 whatever the kind
            self.register_buffer(f"anchors_{index}", cell.detach().clone().float(), persistent=False)

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """images float32 (N, C, H, W), padded at the right and below; sizes int64 (N, 2), height and width of each.

        Returns:
            boxes float32 (N, D, 4), scores float32 (N, D), labels int64 (N, D) and, with masks, masks float32
            (N, D, s, s), the best first. Places that are not taken have the score 0 and the label -1.
        """
        images = padded(images, self.stride)
        area = (images.shape[-2], images.shape[-1])
        limits = sizes.flip(1).repeat(1, 2).to(torch.float32)  # (N, 4): right and below, twice
        model = self.model
        maps = list(model.fpn(model.backbone(images.to(self.kind))).values())
        masks: list[Tensor] = []
        if isinstance(model.head, RetinaHead):
            found = retina_candidates(model.head, maps, self._anchors(maps, area), limits)
            if not self.raw:
                found = chosen_of(found, model.num_classes, model.settings)
        else:
            proposals, there = propose(model.head.rpn, maps, self._anchors(maps, area), limits)
            levels = [level.float() for level in maps[: len(model.head.box.pool.scales)]]
            per_class, scores = box_answers(model.head.box, levels, proposals, limits, self.kind)
            scores = scores.where(there[:, None], ABSENT)
            found = every_class(per_class, scores) if self.raw else chosen_by_class(per_class, scores, model.settings)
            if model.head.mask is not None and not self.raw:
                masks = [masks_of(model.head.mask, levels, found, self.kind)]
        boxes, scores, labels = found
        taken = scores > 0
        return boxes, scores.where(taken, 0.0), labels.where(taken, -1), *masks

    def _anchors(self, maps: Sequence[Tensor], area: tuple[int, int]) -> list[Tensor]:
        return [anchors(getattr(self, f"anchors_{index}"), level, area) for index, level in enumerate(maps)]


def padded(images: Tensor, stride: int) -> Tensor:
    """Zeros at the right and below, up to a multiple of the stride."""
    height, width = ((images.shape[axis] + stride - 1) // stride * stride for axis in (-2, -1))
    return F.pad(images, (0, width - images.shape[-1], 0, height - images.shape[-2]))


def anchors(cell: Tensor, level: Tensor, area: tuple[int, int]) -> Tensor:
    """The anchors (h * w * A, 4) of a level (N, C, h, w) of a batch with sides `area`; `cell` (A, 4) of one place."""
    rows, columns = level.shape[-2], level.shape[-1]
    down = torch.arange(rows, device=cell.device) * (area[0] // rows)
    across = torch.arange(columns, device=cell.device) * (area[1] // columns)
    y, x = down[:, None].expand(rows, columns), across[None].expand(rows, columns)
    places = torch.stack([x, y, x, y], dim=2).to(cell.dtype)
    return (places[:, :, None] + cell).reshape(-1, 4)


def propose(rpn: Any, maps: list[Tensor], all_anchors: list[Tensor], limits: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (N, R, 4), and bool (N, R), where there is one; `proposals.propose` in fixed places."""
    objectness, offsets = rpn.head(maps)
    count = rpn.pre_nms_top_n()
    best, moves, bases = [], [], []
    for logits, move, own in zip(objectness, offsets, all_anchors, strict=True):
        top, place = leading(logits.float().permute(0, 2, 3, 1).flatten(1), count)
        best.append(top)
        moves.append(picked(move.float().unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3), place))
        bases.append(own[place])
    logit = torch.cat(best, 1)
    boxes = clipped(decoded(rpn.box_coder, torch.cat(moves, 1), torch.cat(bases, 1)), limits)
    score = logit.sigmoid().where((logit > -torch.inf) & sizable(boxes, rpn.min_size), ABSENT)
    level = torch.arange(len(maps), device=score.device).repeat_interleave(count)
    score = score.where(survives(boxes, score, level[None], len(maps), rpn.nms_thresh), ABSENT)
    best_score, place = score.topk(min(rpn.post_nms_top_n(), score.shape[1]))
    return picked(boxes, place), best_score > ABSENT


def box_answers(
    head: BoxHead, levels: list[Tensor], proposals: Tensor, limits: Tensor, kind: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Boxes (N, K or 1, R, 4), clipped, and probabilities (N, K, R), as `BoxHead.detect` has them before `choose`."""
    batch, count = proposals.shape[0], proposals.shape[1]
    shares = []
    offsets = proposals
    for stage, coder in enumerate(head.coders):
        values = pool(head.pool, levels, proposals, kind)
        logits, offsets = (x.float() for x in head.predictors[stage](head.heads[stage](values)))
        shares.append(logits.softmax(1))
        if stage + 1 < len(head.coders):
            moved = coder.decode_single(offsets, proposals.flatten(0, 1)).reshape(batch, count, 4)
            proposals = clipped(moved, limits)
    share = torch.stack(shares).mean(0) if len(shares) > 1 else shares[0]
    boxes = head.coders[-1].decode_single(offsets, proposals.flatten(0, 1)).reshape(batch, count, -1, 4)
    if boxes.shape[2] > 1:
        boxes = boxes[:, :, 1:]
    boxes = torch.minimum(boxes.clamp(min=0), limits[:, None, None])
    return boxes.transpose(1, 2), share[:, 1:].reshape(batch, count, -1).transpose(1, 2)


def every_class(boxes: Tensor, scores: Tensor) -> Objects:
    """All boxes (N, K or 1, R, 4) and scores (N, K, R) as K * R candidates."""
    labels = torch.arange(scores.shape[1], device=scores.device)[None, :, None].expand_as(scores)
    return boxes.expand(*scores.shape, 4).flatten(1, 2), scores.flatten(1), labels.flatten(1)


def chosen_by_class(boxes: Tensor, scores: Tensor, settings: Detector) -> Objects:
    """The best of boxes (N, K or 1, R, 4) with scores (N, K, R): `boxes.choose` in fixed places."""
    fine = (scores > settings.score_threshold) & sizable(boxes, box_rules.SMALLEST)
    scores = scores.where(fine, ABSENT)
    if boxes.shape[1] == 1:
        stay = surviving(boxes[:, 0], scores, settings.nms_threshold)
    else:
        stay = surviving(boxes.flatten(0, 1), scores.flatten(0, 1)[:, None], settings.nms_threshold)
        stay = stay.reshape(scores.shape)
    return highest(*every_class(boxes, scores.where(stay, ABSENT)), settings.max_detections)


def chosen_of(found: Objects, num_classes: int, settings: Detector) -> Objects:
    """The best of candidates of all classes: `resurge.tasks.detect.boxes.suppressed` in fixed places."""
    boxes, scores, labels = found
    scores = scores.where(scores > settings.score_threshold, ABSENT)
    stay = survives(boxes, scores, labels, num_classes, settings.nms_threshold)
    return highest(boxes, scores.where(stay, ABSENT), labels, settings.max_detections)


def retina_candidates(head: RetinaHead, maps: list[Tensor], all_anchors: list[Tensor], limits: Tensor) -> Objects:
    """From each level the best pairs of a box and a class, as `RetinaHead.choose` has them before suppression."""
    most = head.settings.rpn_proposals_test
    scores, labels, moves, bases = [], [], [], []
    for level, own in zip(maps, all_anchors, strict=True):
        answers = head.net([level])
        shares = answers["cls_logits"].float()[..., 1:].sigmoid()
        # The best pairs are of the boxes whose best class is best: this sorts a class's share of the numbers.
        top, row = leading(shares.amax(2), most)
        shares = picked(shares, row).where((top > -torch.inf)[..., None], ABSENT)
        best, pair = shares.flatten(1).topk(most)
        row = row.gather(1, pair // shares.shape[2])
        scores.append(best)
        labels.append(pair % shares.shape[2])
        moves.append(picked(answers["bbox_regression"].float(), row))
        bases.append(own[row])
    boxes = clipped(decoded(head.coder, torch.cat(moves, 1), torch.cat(bases, 1)), limits)
    return boxes, torch.cat(scores, 1), torch.cat(labels, 1)


def masks_of(head: MaskHead, levels: list[Tensor], found: Objects, kind: torch.dtype) -> Tensor:
    """Masks (N, D, s, s) of the objects, `MaskHead.detect` in fixed places; zeros where there is no object.

    Only the places that are taken go through the layers, and one more: a layer never gets an empty batch.
    """
    boxes, scores, labels = found
    taken = (scores > 0).flatten()
    place = torch.cat([taken.nonzero()[:, 0], taken.new_zeros(1, dtype=torch.int64)])
    image = place // scores.shape[1]
    few, label = boxes.flatten(0, 1)[place], labels.flatten()[place] + 1
    values = pooled(
        levels, few, image, head.pool.map_levels([few]), head.pool.scales, head.pool.output_size[0],
        head.pool.sampling_ratio,
    ).to(kind)  # fmt: skip
    shares = []
    for layers, predictor in zip(head.heads, head.predictors, strict=True):
        logits = predictor(layers(values)).float()
        index = label[:, None, None, None].expand(-1, 1, logits.shape[2], logits.shape[3])
        shares.append(logits.gather(1, index)[:, 0].sigmoid())
    share = torch.stack(shares).mean(0) if len(shares) > 1 else shares[0]
    share = share * taken[place][:, None, None]
    side = share.shape[-1]
    result = share.new_zeros((taken.shape[0], side, side)).index_put((place,), share)
    return result.reshape(scores.shape[0], scores.shape[1], side, side)


def pool(align: Any, levels: list[Tensor], boxes: Tensor, kind: torch.dtype) -> Tensor:
    """Boxes (N, R, 4) -> (N * R, C, size, size), as torchvision's MultiScaleRoIAlign."""
    batch, count = boxes.shape[0], boxes.shape[1]
    flat = boxes.flatten(0, 1)
    image = torch.arange(batch, device=boxes.device)[:, None].expand(batch, count).reshape(-1)
    level = align.map_levels([flat]) if len(levels) > 1 else torch.zeros_like(image)
    return pooled(levels, flat, image, level, align.scales, align.output_size[0], align.sampling_ratio).to(kind)


def survives(boxes: Tensor, scores: Tensor, kinds: Tensor, count: int, overlap: float) -> Tensor:
    """Which boxes (N, n, 4) stay among those of their kind (N or 1, n), one of `count`: bool (N, n)."""
    own = kinds[:, None] == torch.arange(count, device=kinds.device)[None, :, None]
    return surviving(boxes, scores[:, None].where(own, ABSENT), overlap).any(1)


def leading(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` highest of (N, n) and their places. Where n is less, the rest are -inf, at places that exist."""
    best, place = F.pad(scores, (0, count), value=-torch.inf).topk(count)
    return best, place.clamp(max=scores.shape[1] - 1)


def highest(boxes: Tensor, scores: Tensor, labels: Tensor, count: int) -> Objects:
    """The `count` best objects."""
    best, place = scores.topk(min(count, scores.shape[1]))
    return picked(boxes, place), best, labels.gather(1, place)


def picked(values: Tensor, place: Tensor) -> Tensor:
    """Rows (N, k, ...) of (N, n, ...) by place (N, k)."""
    return values.gather(1, place[:, :, None].expand(-1, -1, values.shape[2]))


def decoded(coder: Any, moves: Tensor, boxes: Tensor) -> Tensor:
    """Boxes (N, k, 4) moved by offsets (N, k, 4)."""
    moved: Tensor = coder.decode_single(moves.flatten(0, 1), boxes.flatten(0, 1)).reshape(boxes.shape)
    return moved


def clipped(boxes: Tensor, limits: Tensor) -> Tensor:
    """Boxes (N, k, 4) within their images, whose right and lower borders are in limits (N, 4)."""
    return torch.minimum(boxes.clamp(min=0), limits[:, None])


def sizable(boxes: Tensor, smallest: float) -> Tensor:
    """Whether both sides of boxes (..., 4) are at least this long."""
    return (boxes[..., 2] - boxes[..., 0] >= smallest) & (boxes[..., 3] - boxes[..., 1] >= smallest)


__all__ = ["DeployedDetector"]
