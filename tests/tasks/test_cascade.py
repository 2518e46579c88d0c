"""Cascade R-CNN against loops over single boxes, written from arXiv:1712.00726 and 1906.09756."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from resurge.arch.backbone import Backbone
from resurge.arch.zoo import get_spec
from resurge.tasks.detect.head import select
from resurge.tasks.detect.model import DetectionModel
from resurge.tasks.detect.pyramid import Features
from resurge.tasks.detect.settings import Detector

SIZES = [(96, 128), (110, 100)]
CLASSES = 3
OVERLAPS = (0.5, 0.6, 0.7)
UNITS = ((10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15))
# Everything is sampled, so that no chance is involved: what is drawn, and how, is torchvision's and is proven with it.
SETTINGS = Detector(
    fpn_channels=8, box_channels=16, mask_channels=8, box_size=3, mask_size=4, roi_batch=10_000, pool_scale=28,
    score_threshold=0.2, max_detections=40,
)  # fmt: skip


# ------------------------------------------------------------------------------------------ one box at a time


def overlap(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def encode(box: list[float], onto: list[float], units) -> list[float]:
    """Section 3, equation 2 of arXiv:1712.00726, normalised: the offsets that move `box` onto `onto`."""
    w, h, u, v = box[2] - box[0], box[3] - box[1], onto[2] - onto[0], onto[3] - onto[1]
    dx = ((onto[0] + onto[2]) - (box[0] + box[2])) / 2 / w
    dy = ((onto[1] + onto[3]) - (box[1] + box[3])) / 2 / h
    return [unit * d for unit, d in zip(units, (dx, dy, math.log(u / w), math.log(v / h)), strict=True)]


def decode(box: list[float], offsets: list[float], units, size) -> list[float]:
    dx, dy, dw, dh = (offset / unit for offset, unit in zip(offsets, units, strict=True))
    w, h = box[2] - box[0], box[3] - box[1]
    x, y = (box[0] + box[2]) / 2 + dx * w, (box[1] + box[3]) / 2 + dy * h
    w, h = w * math.exp(min(dw, math.log(1000 / 16))), h * math.exp(min(dh, math.log(1000 / 16)))
    edges = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    return [min(max(edge, 0.0), float(size[1 - i % 2])) for i, edge in enumerate(edges)]


def pool(levels: dict[str, Tensor], image: int, box: list[float], side: int) -> Tensor:
    """arXiv:1612.03144, equation 1, then RoIAlign from that level alone."""
    scale = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
    k = min(max(math.floor(4 + math.log2(scale / SETTINGS.pool_scale) + 1e-6), 2), 5)
    region = torch.tensor([[0.0, *box]])
    return roi_align(levels[str(k - 2)][image : image + 1], region, (side, side), 0.5**k, 2)


def naive(model, levels, proposals, targets, *, overlaps=OVERLAPS, units=UNITS, last_only=False, keep=False):
    """(losses by name, detections): loops over stages, images and boxes. The last three make the wrong variants."""
    terms: dict[str, Tensor] = {}
    boxes = [own.tolist() for own in proposals]
    for t in range(3):
        by_class, by_box, by_mask, moved = [], [], [], []
        for image, target in enumerate(targets):
            objects = target["boxes"].tolist()
            moved.append([])
            for box in boxes[image] + objects:
                best = max(range(len(objects)), key=lambda j: overlap(box, objects[j]), default=None)
                hit = best is not None and overlap(box, objects[best]) >= overlaps[t]
                label = int(target["labels"][best]) + 1 if hit else 0
                logits, offsets = run_box(model, t, pool(levels, image, box, 3))
                by_class.append(logits.logsumexp(0) - logits[label])
                if hit:
                    wanted = encode(box, objects[best], units[t])
                    for value, goal in zip(offsets, wanted, strict=True):
                        d = (value - goal).abs()
                        by_box.append(torch.where(d < 1 / 9, 4.5 * d**2, d - 1 / 18))
                    goal = roi_align(target["masks"][best][None, None].float(), torch.tensor([[0.0, *box]]), (8, 8))
                    mask = run_mask(model, t, pool(levels, image, box, 4))[label]
                    by_mask.append(F.binary_cross_entropy_with_logits(mask, goal[0, 0]))
                new = decode(box, offsets.tolist(), units[t], SIZES[image])
                if new[2] - new[0] >= 1e-3 and new[3] - new[1] >= 1e-3:
                    moved[-1].append(box if keep else new)
        terms[f"loss_class_{t + 1}"] = torch.stack(by_class).mean()
        terms[f"loss_box_{t + 1}"] = torch.stack(by_box).sum() / len(by_class)
        terms[f"loss_mask_{t + 1}"] = torch.stack(by_mask).mean()
        boxes = moved
    return terms, [
        naive_detections(model, levels, i, own.tolist(), units, last_only) for i, own in enumerate(proposals)
    ]


@torch.no_grad()
def naive_detections(model, levels, image, boxes, units, last_only):
    candidates = []
    for box in boxes:
        total = torch.zeros(CLASSES + 1)
        for t in range(3):
            logits, offsets = run_box(model, t, pool(levels, image, box, 3))
            total = logits.softmax(0) * 3 if last_only else total + logits.softmax(0)
            box = decode(box, offsets.tolist(), units[t], SIZES[image])
        candidates += [(float(total[c + 1]) / 3, c, box) for c in range(CLASSES)]
    kept: list[tuple[float, int, list[float]]] = []
    for score, label, box in sorted(candidates, key=lambda x: -x[0]):
        alone = all(label != other or overlap(box, there) <= 0.5 for _, other, there in kept)
        if alone and score > SETTINGS.score_threshold and min(box[2] - box[0], box[3] - box[1]) >= 1e-2:
            kept.append((score, label, box))
    kept = kept[: SETTINGS.max_detections]
    masks = []
    for _, label, box in kept:
        each = [run_mask(model, t, pool(levels, image, box, 4))[label + 1].sigmoid() for t in range(3)]
        masks.append(each[-1] if last_only else sum(each) / 3)
    return {
        "boxes": torch.tensor([box for _, _, box in kept]),
        "scores": torch.tensor([score for score, _, _ in kept]),
        "labels": torch.tensor([label for _, label, _ in kept]),
        "masks": torch.stack(masks)[:, None],
    }


def run_box(model, t: int, pooled: Tensor) -> tuple[Tensor, Tensor]:
    head, predictor = model.head.box.heads[t], model.head.box.predictors[t]
    x = pooled.flatten()
    for layer in (head.fc6, head.fc7):
        x = (layer.weight @ x + layer.bias).relu()
    return (
        predictor.cls_score.weight @ x + predictor.cls_score.bias,
        predictor.bbox_pred.weight @ x + predictor.bbox_pred.bias,
    )


def run_mask(model, t: int, pooled: Tensor) -> Tensor:
    return model.head.mask.predictors[t](model.head.mask.heads[t](pooled))[0]


# ----------------------------------------------------------------------------------------------- the network


@pytest.fixture(scope="module")
def scene():
    """A network, the levels of its pyramid, proposals around two objects an image and elsewhere, and the objects."""
    torch.manual_seed(4)
    model = DetectionModel(Backbone(get_spec("resnet18")), CLASSES, "cascade_mask_rcnn", SETTINGS)
    sizes = [[2 ** (5 - i), 2 ** (5 - i)] for i in range(4)]
    levels = {str(i): torch.randn(2, 8, *size) for i, size in enumerate(sizes)}
    levels["pool"] = torch.randn(2, 8, 2, 2)
    targets, proposals = [], []
    for height, width in SIZES:
        objects = torch.tensor([[12.0, 20, 70, 64], [60, 8, 95, 88]])
        around = objects.repeat_interleave(10, 0)
        around = around + torch.randn(20, 4) * torch.linspace(1, 9, 20)[:, None]
        corner = torch.rand(12, 2) * torch.tensor([width - 30.0, height - 30.0])
        elsewhere = torch.cat([corner, corner + 4 + 26 * torch.rand(12, 2)], 1)
        proposals.append(torch.cat([around, elsewhere]).clamp(min=0, max=min(height, width)))
        y, x = torch.arange(height)[:, None], torch.arange(width)[None]
        masks = torch.stack([(x + y < 90) & (x > 12), (x + 2 * y > 110) & (y > 8)]).to(torch.uint8)
        targets.append({"boxes": objects, "labels": torch.tensor([0, 2]), "masks": masks})
    targets.append({"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long), "masks": masks[:0]})
    with torch.no_grad():  # heads that see the scene, and move boxes by several pixels
        for t in range(3):
            for layer in (model.head.box.heads[t].fc6, model.head.box.heads[t].fc7):
                torch.nn.init.kaiming_normal_(layer.weight)
            torch.nn.init.normal_(model.head.box.predictors[t].cls_score.weight, std=0.5)
            torch.nn.init.normal_(model.head.box.predictors[t].bbox_pred.weight, std=0.25 * (t + 1))
            torch.nn.init.normal_(model.head.mask.predictors[t].mask_fcn_logits.weight, std=4.0)
    return model.eval(), levels, proposals, targets[:2]


def ours(model, levels, proposals, targets):
    inside = [{**target, "labels": target["labels"] + 1} for target in targets]
    limits = torch.tensor([[width, height, width, height] for height, width in SIZES]).float()
    features = Features(list(levels.values()), (128, 128), limits)
    terms, samples = model.head.box.losses(features, proposals, inside)
    terms |= model.head.mask.losses(features, samples, inside)
    with torch.no_grad():
        candidates = model.head.box.candidates(features, torch.stack(proposals), torch.ones(2, 32, dtype=torch.bool))
        found = model.head.mask.detect(features, select(*candidates, SETTINGS)).as_list()
    return terms, found, samples


def close(a: Tensor, b: Tensor, tolerance: float = 1e-3) -> bool:
    return a.shape == b.shape and torch.allclose(a, b.to(a.dtype), atol=tolerance, rtol=1e-3)


def test_loss_by_loss_and_box_by_box(scene):
    model, levels, proposals, targets = scene
    terms, found, samples = ours(model, levels, proposals, targets)
    hits = [sum(int((label > 0).sum()) for label in sample.labels) for sample in samples]
    assert len(set(hits)) == 3  # the stages learn from different boxes
    assert min(hits) > 6
    expected, objects = naive(model, levels, proposals, targets)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert close(terms[name], value, 1e-5), name
    for a, b in zip(found, objects, strict=True):
        assert len(b["boxes"]) > 10
        assert all(close(a[key], b[key]) for key in b)
        assert b["masks"].std() > 0.05


@pytest.mark.parametrize(
    "wrong, losses, detections",
    [
        ({"overlaps": (0.5, 0.5, 0.5)}, True, False),
        ({"units": UNITS[:1] * 3}, True, True),
        ({"last_only": True}, False, True),
        ({"keep": True}, True, False),
    ],
    ids=["the same overlap in all stages", "the same units in all stages", "the last stage alone", "boxes stay"],
)
def test_wrong_cascades_are_told_apart(scene, wrong, losses, detections):
    model, levels, proposals, targets = scene
    terms, found, _ = ours(model, levels, proposals, targets)
    with torch.no_grad():
        other, objects = naive(model, levels, proposals, targets, **wrong)
    assert all(close(terms[name], other[name], 1e-5) for name in terms) != losses
    same = all(close(a[key], b[key]) for a, b in zip(found, objects, strict=True) for key in b)
    assert same != detections


def test_the_stages_share_the_gradient_of_the_map(scene):
    model, levels, proposals, targets = scene
    parameters = [*model.head.box.parameters(), *model.head.mask.parameters()]
    maps = [levels[str(i)].requires_grad_() for i in range(4)]
    try:
        own, _, _ = ours(model, levels, proposals, targets)
        other, _ = naive(model, levels, proposals, targets)
        mine = torch.autograd.grad(sum(own.values()), maps + parameters)
        theirs = torch.autograd.grad(sum(other.values()), maps + parameters)
    finally:
        for level in maps:
            level.requires_grad_(False)
    for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        expected = b / 3 if i < len(maps) else b
        assert (a - expected).norm() <= 1e-3 * expected.norm() + 1e-6


def test_the_numbers_of_stages_are_free():
    for overlaps in ((0.5,), (0.4, 0.5, 0.6, 0.7)):
        settings = Detector(fpn_channels=8, box_channels=8, mask_channels=8, box_size=2, cascade_ious=overlaps)
        model = DetectionModel(Backbone(get_spec("resnet18")), 2, "cascade_mask_rcnn", settings)
        assert len(model.head.box.heads) == len(model.head.mask.heads) == len(overlaps)
        assert [coder.weights for coder in model.head.box.coders][-1] == tuple(len(overlaps) * w for w in UNITS[0])
