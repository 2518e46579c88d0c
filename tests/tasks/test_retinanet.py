"""RetinaNet's losses and choices against loops; its whole is held against torchvision in test_detect_parity."""

from __future__ import annotations

import pytest
import torch

from resurge.arch.backbone import Backbone
from resurge.arch.zoo import get_spec
from resurge.tasks.detect.model import DetectionModel
from resurge.tasks.detect.pyramid import Features, image_sizes
from resurge.tasks.detect.settings import Detector

SETTINGS = Detector(fpn_channels=16, rpn_proposals_test=20, max_detections=15)


@pytest.fixture
def model() -> DetectionModel:
    torch.manual_seed(3)
    model = DetectionModel(Backbone(get_spec("resnet18")), 3, "retinanet", SETTINGS).eval()
    for layer in (model.head.net.classification_head.cls_logits, model.head.net.regression_head.bbox_reg):
        torch.nn.init.normal_(layer.weight, std=0.1)
    return model


def features_of(model, images) -> Features:
    return model.features(images, image_sizes(images, None))


def test_the_pyramid_starts_at_stride_8_and_goes_on_to_128(model):
    features = features_of(model, torch.randn(1, 3, 128, 256))
    assert [tuple(level.shape[-2:]) for level in features.levels] == [(16, 32), (8, 16), (4, 8), (2, 4), (1, 2)]
    anchors = torch.cat(model.head.anchors(features))
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
        features = features_of(model, images)
        outputs = model.head.net(features.levels)
        anchors = torch.cat(model.head.anchors(features))
    by_class = by_box = 0.0
    for i, target in enumerate(targets):
        matched = model.head.matcher(overlaps(target["boxes"], anchors)) if len(target["boxes"]) else None
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
                aim = model.head.coder.encode_single(target["boxes"][j : j + 1], anchors[a : a + 1])[0]
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
    """All that the layers put out is written down here: scores that differ, and boxes that do not overlap."""
    features = features_of(model, torch.zeros(1, 3, 128, 128))
    outputs = []
    for level, anchors in zip(features.levels, model.head.anchors(features), strict=True):
        logits = torch.cat([torch.full((len(anchors), 1), 9.0), torch.randn(len(anchors), 3)], 1)
        offsets = torch.zeros(len(anchors), 4)
        offsets[:, 2:] = -4.0  # a box is a fiftieth of its anchor
        outputs.append((level, logits[None], offsets[None]))
    counts = [len(logits[0]) for _, logits, _ in outputs]
    assert counts == [2304, 576, 144, 36, 9]

    class Written(torch.nn.Module):
        def forward(self, levels):
            own = [(logits, offsets) for level, logits, offsets in outputs if any(level is each for each in levels)]
            logits, offsets = (torch.cat(parts, 1) for parts in zip(*own, strict=True))
            return {"cls_logits": logits, "bbox_regression": offsets}

    model.head.net = Written()
    found = model.head.candidates(features)
    assert found.scores.shape == (1, 5 * 20)
    for number, (_, logits, _) in enumerate(outputs):
        best = logits[0, :, 1:].flatten().sigmoid().topk(20).values
        torch.testing.assert_close(found.scores[0, 20 * number : 20 * number + 20], best)
    every = torch.cat([logits[0, :, 1:].flatten().sigmoid() for _, logits, _ in outputs])
    (objects,) = model.head.detect(features).as_list()
    assert len(objects["scores"]) == SETTINGS.max_detections
    assert objects["scores"].max() == every.max()
    assert objects["scores"].tolist() == sorted(objects["scores"].tolist(), reverse=True)
