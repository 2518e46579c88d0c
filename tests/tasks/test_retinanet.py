"""RetinaNet's losses and choices against loops; its whole is held against torchvision in test_detect_parity."""

from __future__ import annotations

import pytest
import torch

from resurge.arch.backbone import Backbone
from resurge.arch.zoo import get_spec
from resurge.tasks.detect.boxes_task import DetectionModel
from resurge.tasks.detect.pyramid import image_batch
from resurge.tasks.detect.settings import Detector

SETTINGS = Detector(fpn_channels=16, rpn_proposals_test=20, max_detections=15)


@pytest.fixture
def model() -> DetectionModel:
    torch.manual_seed(3)
    model = DetectionModel(Backbone(get_spec("resnet18")), 3, "retinanet", SETTINGS).eval()
    for layer in (model.head.net.classification_head.cls_logits, model.head.net.regression_head.bbox_reg):
        torch.nn.init.normal_(layer.weight, std=0.1)
    return model


def levels_of(model, images):
    return model.fpn(model.backbone(images))


def test_the_pyramid_starts_at_stride_8_and_goes_on_to_128(model):
    levels = levels_of(model, torch.randn(1, 3, 128, 256))
    assert [tuple(level.shape[-2:]) for level in levels.values()] == [(16, 32), (8, 16), (4, 8), (2, 4), (1, 2)]
    anchors = model.head.anchors(image_batch(torch.zeros(1, 3, 128, 256), None, 32), list(levels.values()))[0]
    assert len(anchors) == 9 * (512 + 128 + 32 + 8 + 2)
    sides = (anchors[:, 2:] - anchors[:, :2]).prod(1).sqrt()
    assert sides[:9].sort().values[::3].tolist() == pytest.approx([32, 40, 50], abs=1)
    assert sides[-9:].sort().values[::3].tolist() == pytest.approx([512, 645, 812], abs=1)


def test_losses_against_a_loop(model):
    images = torch.randn(2, 3, 64, 96)
    targets = [
        {"boxes": torch.tensor([[4.0, 6, 40, 40], [50, 10, 90, 60]]), "labels": torch.tensor([2, 0])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},
    ]
    with torch.no_grad():
        terms = model.losses(images, targets)
        levels = levels_of(model, images)
        outputs = model.head.predict(levels)
        anchors = model.head.anchors(image_batch(images, None, 32), list(levels.values()))
    by_class = by_box = 0.0
    for i, target in enumerate(targets):
        matched = model.head.matcher(overlaps(target["boxes"], anchors[i])) if len(target["boxes"]) else None
        hits, focal, l1 = 0, 0.0, 0.0
        for a, (logits, offsets) in enumerate(
            zip(outputs["cls_logits"][i], outputs["bbox_regression"][i], strict=True)
        ):
            j = -1 if matched is None else int(matched[a])
            if j == -2:  # between the two thresholds
                continue
            wanted = torch.zeros(4)
            if j >= 0:
                hits += 1
                wanted[target["labels"][j] + 1] = 1
                aim = model.head.coder.encode_single(target["boxes"][j : j + 1], anchors[i][a : a + 1])[0]
                l1 += float((offsets - aim).abs().sum())
            p = logits.sigmoid()
            right = p * wanted + (1 - p) * (1 - wanted)
            alpha = 0.25 * wanted + 0.75 * (1 - wanted)
            focal += float((-alpha * (1 - right) ** 2 * right.log()).sum())  # arXiv:1708.02002, equation 5
        by_class += focal / max(1, hits) / 2
        by_box += l1 / max(1, hits) / 2
        assert (hits > 3) == (i == 0)
    assert terms["loss_class"].item() == pytest.approx(by_class, rel=1e-3)
    assert terms["loss_box"].item() == pytest.approx(by_box, rel=1e-3)


def overlaps(a, b):
    low, high = torch.max(a[:, None, :2], b[:, :2]), torch.min(a[:, None, 2:], b[:, 2:])
    both = (high - low).clamp(min=0).prod(2)
    area = [(x[:, 2:] - x[:, :2]).prod(1) for x in (a, b)]
    return both / (area[0][:, None] + area[1] - both)


def test_the_class_in_front_is_never_found(model):
    with torch.no_grad():
        model.head.net.classification_head.cls_logits.bias[::4] = 9.0
        found = model(torch.randn(1, 3, 64, 64))[0]
        assert found["scores"].numel() == 0 or found["scores"].max() < 0.99
        model.head.net.classification_head.cls_logits.bias[3::4] = 9.0
        found = model(torch.randn(1, 3, 64, 64))[0]
    assert found["labels"].tolist() == [2] * len(found["labels"])
    assert 0 < len(found["labels"]) <= SETTINGS.max_detections
    assert found["scores"].tolist() == sorted(found["scores"].tolist(), reverse=True)


def test_as_many_candidates_a_level_as_allowed(model):
    levels = [torch.full((n, 3), 0.5) + 0.4 * torch.rand(n, 3) for n in (100, 8)]
    boxes = [torch.tensor([[0.0, 0, 2, 2]]) + 3 * torch.arange(n)[:, None] for n in (100, 8)]
    boxes[1] += 1000
    offsets = [torch.zeros(n, 4) for n in (100, 8)]
    assert SETTINGS.rpn_proposals_test + 8 * 3 > SETTINGS.max_detections
    found = model.head.choose(levels, offsets, boxes, (2000, 2000))
    assert len(found["scores"]) == SETTINGS.max_detections
    best = torch.cat([levels[0].flatten().topk(20).values, levels[1].flatten()]).topk(15).values
    torch.testing.assert_close(found["scores"], best)
