"""What must not break a detector: nothing to learn, nothing proposed, odd boxes, odd sizes, other precisions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from resurge.arch.backbone import Backbone
from resurge.arch.surgery import NORMS, convert_norm
from resurge.arch.zoo import get_spec
from resurge.errors import UserError
from resurge.tasks.detect.model import DetectionModel
from resurge.tasks.detect.predict import found_in
from resurge.tasks.detect.pyramid import image_sizes, pick_levels
from resurge.tasks.detect.settings import Detector
from resurge.tasks.table import build_task_model

NUMBERS = {
    "fpn_channels": 16, "box_channels": 32, "mask_channels": 8, "box_size": 3, "mask_size": 4, "pool_scale": 56,
    "rpn_proposals_train": 40, "rpn_proposals_test": 30, "rpn_batch": 32, "roi_batch": 24, "max_detections": 10,
}  # fmt: skip
HEADS = ["faster_rcnn", "cascade_rcnn", "retinanet", "mask_rcnn", "cascade_mask_rcnn"]
SPEC = get_spec("resnet50").but(depths=(1, 1, 1, 1), planes=(8, 16, 16, 32))


def build(head: str, **numbers) -> DetectionModel:
    torch.manual_seed(11)
    return DetectionModel(Backbone(SPEC), 3, head, Detector(**(NUMBERS | numbers)))


def target(boxes: list[list[float]], size: tuple[int, int] = (64, 80), label: int = 1) -> dict[str, Tensor]:
    masks = torch.zeros(len(boxes), *size, dtype=torch.uint8)
    for mask, box in zip(masks, boxes, strict=True):
        left, top, right, bottom = (max(0, int(edge)) if edge == edge else 0 for edge in box)
        mask[top:bottom, left:right] = 1
    labels = torch.full((len(boxes),), label)
    return {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": labels, "masks": masks}


def step(model, images: Tensor, targets, sizes=None) -> dict[str, Tensor]:
    """The losses; every parameter has got a finite gradient from them."""
    terms = model.losses(images, targets, sizes)
    for name, value in terms.items():
        assert value.ndim == 0 and torch.isfinite(value) and value.requires_grad, name  # noqa: PT018
    model.zero_grad()
    sum(terms.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    return {name: value.detach() for name, value in terms.items()}


@pytest.mark.parametrize("head_norm", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_images_without_objects(head, head_norm):
    model = build(head, head_norm=head_norm, box_head="4conv1fc")
    terms = step(model, torch.randn(2, 3, 64, 80), [target([]), target([])])
    for name, value in terms.items():
        if "objectness" not in name and "class" not in name:
            assert value == 0, name
    assert sum(terms.values()) > 0
    assert all(value.isfinite().all() for value in model.state_dict().values())  # running statistics too


@pytest.mark.parametrize("head", HEADS)
def test_one_image_and_images_with_and_without_objects(head):
    model = build(head)
    step(model, torch.randn(1, 3, 64, 80), [target([[10, 10, 60, 50]])])
    step(model, torch.randn(2, 3, 64, 80), [target([[10, 10, 60, 50]]), target([])], [(64, 80), (40, 70)])


@pytest.mark.parametrize("objects", [[], [[10.0, 10, 60, 50]]])
@pytest.mark.parametrize("head", [head for head in HEADS if head != "retinanet"])
def test_no_proposals_at_all(head, objects):
    model = build(head, head_norm=True, box_head="4conv1fc")
    model.head.rpn.min_size = 1000  # pixels, of the side of a proposal
    terms = step(model, torch.randn(2, 3, 64, 80), [target(objects), target(objects)])
    assert ("loss_class" in terms or "loss_class_3" in terms) and (objects or terms.get("loss_class", 0) == 0)  # noqa: PT018
    assert all(value.isfinite().all() for value in model.state_dict().values())
    with torch.no_grad():
        found = model.eval()(torch.randn(2, 3, 64, 80))
    assert [len(one["boxes"]) for one in found] == [0, 0]
    if "mask" in head:
        assert found[0]["masks"].shape == (0, 1, 8, 8)


@pytest.mark.parametrize("head", HEADS)
def test_boxes_that_cannot_be_learnt_are_dropped(head):
    model = build(head)
    good = [[10.0, 10, 60, 50]]
    bad = [[20.0, 20, 20, 40], [30, 30, 10, 50], [100, 10, 130, 40], [5, 70, 20, 90], [-20, 0, -1, 9]]
    bad.append([float("nan"), 0, 10, 10])
    images = torch.randn(1, 3, 64, 80)
    torch.manual_seed(0)
    alone = step(model, images, [target(good)])
    torch.manual_seed(0)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    mixed = step(model, images, [target(bad[:3] + good + bad[3:])])
    assert alone.keys() == mixed.keys()
    assert all(torch.equal(alone[key], mixed[key]) for key in alone)
    model.load_state_dict(state)
    step(model, images, [target(bad)])


@pytest.mark.parametrize("head", ["mask_rcnn", "cascade_mask_rcnn"])
def test_masks_of_a_pixel(head):
    model = build(head)
    terms = step(model, torch.randn(1, 3, 64, 80), [target([[40, 30, 41, 31], [0, 0, 1, 1], [79, 63, 80, 64]])])
    assert any("mask" in name and value > 0 for name, value in terms.items())
    empty = target([[40, 30, 60, 50]])
    empty["masks"].zero_()
    step(model, torch.randn(1, 3, 64, 80), [empty])


@pytest.mark.parametrize("head", HEADS)
def test_the_losses_repeat_with_the_seed(head):
    images, targets = torch.randn(2, 3, 64, 80), [target([[10, 10, 60, 50], [4, 4, 20, 20]]), target([[3, 9, 70, 30]])]
    runs = []
    for _ in range(2):
        model = build(head, rpn_batch=8, roi_batch=8)
        for _ in range(2):  # the second step sees the first one's running statistics
            torch.manual_seed(21)
            terms = step(model, images, targets)
        runs.append(terms | {name: p.grad for name, p in model.named_parameters()})
    assert all(torch.equal(runs[0][key], runs[1][key]) for key in runs[0])


@pytest.mark.parametrize("head", HEADS)
def test_bfloat16_autocast(head):
    model = build(head)
    images, targets = torch.randn(1, 3, 256, 320), [target([[33, 35, 200, 190], [150, 60, 299, 250]], (256, 320))]
    model.train()
    torch.manual_seed(1)
    exact = step(model, images, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.manual_seed(1)
        terms = step(model, images, targets)
        found = model.eval()(images)[0]
    for name, value in terms.items():
        assert value.dtype == torch.float32
        if "rpn" in name or "objectness" in name:  # anchors are the same, so the same are drawn
            assert value == pytest.approx(exact[name].item(), rel=0.05, abs=1e-3), name
    assert {value.dtype for key, value in found.items() if key != "labels"} <= {torch.float32}
    assert all(value.isfinite().all() for value in found.values())


@pytest.mark.parametrize("size", [(33, 65), (40, 31), (1, 1), (7, 200)])
@pytest.mark.parametrize("head", ["cascade_mask_rcnn", "retinanet"])
def test_any_size_of_image(head, size):
    model = build(head)
    step(model, torch.randn(2, 3, *size), [target([[0, 0, 1, 1]], size)] * 2)
    with torch.no_grad():
        found = model.eval()(torch.randn(2, 3, *size), [size, (1, 1)])
    for one, (height, width) in zip(found, [size, (1, 1)], strict=True):
        if len(one["boxes"]):
            assert one["boxes"].min() >= 0
            assert one["boxes"][:, 2].max() <= width
            assert one["boxes"][:, 3].max() <= height


def test_what_came_before_changes_nothing():
    """Strides are the network's: guessed from a small image in a large padding they would be wrong, and stay so."""
    model = build("cascade_mask_rcnn", score_threshold=0.0).eval()
    image = torch.zeros(1, 3, 128, 128)
    image[..., :40, :40] = torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        first = model(image, [(40, 40)])[0]
        model(torch.randn(1, 3, 256, 256))
        again = model(image, [(40, 40)])[0]
    assert len(first["boxes"])
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert model.head.box.pool.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("head", ["cascade_mask_rcnn", "retinanet"])
def test_the_norm_is_one_word(head, kind):
    model = convert_norm(build(head, head_norm=True, box_head="4conv1fc"), kind)
    wanted = type(NORMS[kind](8, 1e-5, False))
    norms = [
        module for module in model.modules() if "Norm" in type(module).__name__ and "Conv" not in type(module).__name__
    ]
    assert {type(norm) for norm in norms} == {wanted}
    parts = {name.split(".")[0] for name, module in model.named_modules() if module in norms}
    assert parts == {"backbone", "fpn", "head"}
    step(model, torch.randn(1, 3, 64, 80), [target([[10, 10, 60, 50]])])
    step(model, torch.randn(1, 3, 64, 80), [target([])])
    with torch.no_grad():
        model.eval()(torch.randn(1, 3, 64, 80))


def test_levels_of_any_strides():
    assert pick_levels((4, 8, 16, 32), 4) == (0, 1, 2, 3)
    assert pick_levels((1, 2, 4), 4) == (2,)
    assert pick_levels((4, 8, 16, 16), 4) == (0, 1, 3)  # dilated: of equal strides the last
    assert pick_levels((1, 2), 4) == (1,)
    assert pick_levels((4, 8, 16, 32), 8) == (1, 2, 3)


def test_dilated_backbones():
    model = DetectionModel(Backbone(SPEC, output_stride=16), 3, "mask_rcnn", Detector(**NUMBERS))
    assert model.fpn.strides == (4, 8, 16)
    step(model, torch.randn(1, 3, 64, 80), [target([[10, 10, 60, 50]])])


def test_detections_in_the_original_image():
    boxes = np.array([[[0, 0, 64, 48], [10.0, 20, 30, 40], [0, 0, 0, 0]]])
    outputs = {"boxes": boxes, "scores": np.array([[0.5, 0.9, 0]]), "labels": np.array([[1, 2, -1]])}
    found = found_in(outputs, 0, (48, 64), (96, 192))
    assert found.boxes.tolist() == [[30, 40, 90, 80], [0, 0, 192, 96]]
    assert found.labels.tolist() == [2, 1]
    assert boxes[0, 1].tolist() == [10, 20, 30, 40]


def test_messages():
    model, images = build("mask_rcnn"), torch.randn(2, 3, 64, 80)
    fine = target([[1, 1, 9, 9]])
    for targets, sizes, message in [
        ([fine], None, "targets for 2 images"),
        ([fine, {"boxes": fine["boxes"], "labels": fine["labels"]}], None, "without masks"),
        ([fine, {**fine, "labels": torch.tensor([3])}], None, "classes are 0 to 2; a target holds the label 3"),
        ([fine, {**fine, "labels": torch.tensor([0, 1])}], None, "1 boxes, 2 labels"),
        ([fine, fine], [(64, 80)], r"one \(height, width\) for each of 2"),
        ([fine, fine], [(64, 80), (65, 80)], "at most 64x80"),
    ]:
        with pytest.raises(UserError, match=message):
            model.losses(images, targets, sizes)
    with pytest.raises(UserError, match=r"\(N, C, H, W\)"):
        image_sizes(torch.zeros(3, 8, 8), None)
    with pytest.raises(UserError, match="num_classes must be"):
        DetectionModel(Backbone(SPEC), 0)
    with pytest.raises(UserError, match="belongs to --task instances"):
        build_task_model("detect", SPEC, 3, head="mask_rcnn")
    with pytest.raises(UserError, match=r"unknown head 'fast_rcnn'.* Did you mean 'faster_rcnn'"):
        DetectionModel(Backbone(SPEC), 3, "fast_rcnn")
    with pytest.raises(UserError, match="at least one"):
        Detector(cascade_ious=())


def test_a_diverged_network_says_which_term():
    """Numbers that are none come through as a loss that is none, and never as another exception."""
    for head in HEADS:
        model = build(head)
        with torch.no_grad():
            model.backbone.stages[0][0].reduce.conv.weight.fill_(float("nan"))
        terms = model.losses(torch.randn(1, 3, 64, 80), [target([[10, 10, 60, 50]])])
        assert any(not torch.isfinite(value) for value in terms.values())
        with torch.no_grad():
            found = model.eval()(torch.randn(1, 3, 64, 80))
        assert len(found[0]["boxes"]) == 0
