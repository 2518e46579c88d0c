"""Our detectors against torchvision's on real photos: the same weights, the same detections, losses and gradients."""

from __future__ import annotations

from copy import copy, deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from detectors_alive import CLASSES, MASKS, PROPOSALS, photos, torchvision_detector, unfilled
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import paste_masks_in_image

from resurge.arch.backbone import Backbone
from resurge.arch.surgery import convert_norm
from resurge.arch.zoo import get_spec
from resurge.tasks.detect.model import DetectionModel
from resurge.tasks.detect.predict import found_in, pasted
from resurge.tasks.detect.settings import Detector
from resurge.weights.checkpoint import export_weights, load_weights

FEW = Detector(rpn_proposals_train=PROPOSALS, rpn_proposals_test=PROPOSALS, roi_batch=64)
V2 = replace(FEW, rpn_convs=2, head_norm=True, box_head="4conv1fc")
CASES = {
    "fasterrcnn_resnet50_fpn": ("faster_rcnn", FEW),
    "maskrcnn_resnet50_fpn": ("mask_rcnn", replace(FEW, max_detections=MASKS)),
    "maskrcnn_resnet50_fpn_v2": ("mask_rcnn", replace(V2, max_detections=MASKS)),
    "retinanet_resnet50_fpn": ("retinanet", replace(FEW, max_detections=300)),
}
WRONG = [
    ("fasterrcnn_resnet50_fpn", {"pool_scale": 112}),
    ("fasterrcnn_resnet50_fpn", {"anchor_scale": 6.0}),
    ("fasterrcnn_resnet50_fpn", {"rpn_proposals_test": 50}),
    ("fasterrcnn_resnet50_fpn", {"nms_threshold": 0.6}),
    ("retinanet_resnet50_fpn", {"anchor_scale": 8.0}),
    ("retinanet_resnet50_fpn", {"rpn_proposals_test": 50}),
]


@pytest.fixture(scope="module")
def theirs() -> dict[str, nn.Module]:
    return {}


@pytest.fixture(scope="module")
def get(theirs):
    """torchvision's detector by name, and the objects it finds in the photos."""

    def build(name: str) -> tuple[nn.Module, list[dict[str, Tensor]]]:
        if name not in theirs:
            model = torchvision_detector(name)
            with torch.no_grad():
                theirs[name] = (model, model(photos()))
        return theirs[name]

    return build


def ours_of(name: str, reference: nn.Module, settings: Detector | None = None):
    head, usual = CASES[name]
    with unfilled():
        model = DetectionModel(Backbone(get_spec("resnet50")), CLASSES, head, settings or usual)
    report = load_weights(model, reference.state_dict())
    assert report.layout == "torchvision"
    assert not report.missing + report.unexpected
    return model.eval()


@torch.no_grad()
def found_by(model, reference: nn.Module) -> list[dict[str, Tensor]]:
    images = photos()
    batch, _ = reference.transform(images)
    outputs = model.detect(batch.tensors, torch.tensor(batch.image_sizes))._asdict()
    arrays = {name: values.numpy() for name, values in outputs.items() if values is not None}
    results = []
    for row, image in enumerate(images):
        found = found_in(arrays, row, batch.image_sizes[row], tuple(image.shape[-2:]))
        tensors = {name: torch.from_numpy(getattr(found, name)) for name in ("boxes", "scores", "labels")}
        masks = found.decoded()
        results.append(tensors if masks is None else tensors | {"masks": torch.from_numpy(np.stack(list(masks)))})
    return results


def agree(ours: list[dict[str, Tensor]], theirs: list[dict[str, Tensor]]) -> bool:
    """The same objects in the same order: boxes to a thousandth of a pixel, and masks but for a pixel in 10,000."""
    for a, b in zip(ours, theirs, strict=True):
        if not torch.equal(a["labels"] + 1, b["labels"]):
            return False
        if not torch.allclose(a["boxes"], b["boxes"].double(), atol=1e-3, rtol=1e-5):
            return False
        if not torch.allclose(a["scores"], b["scores"].double(), atol=1e-5):
            return False
        if ("masks" in b) and ((b["masks"][:, 0] >= 0.5) != a["masks"]).float().mean() > 1e-4:
            return False
    return True


def assert_lively(found: list[dict[str, Tensor]]) -> None:
    first, second = found
    for objects in found:
        assert len(objects["boxes"]) >= 15
        assert len(objects["labels"].unique()) >= 2
        assert objects["scores"].std() > 0.02
        sides = objects["boxes"][:, 2:] - objects["boxes"][:, :2]
        assert sides.std() > 20  # several levels of the pyramid take part
        if "masks" in objects:
            share = (objects["masks"] >= 0.5).flatten(1).sum(1) / sides.prod(1)
            assert share.std() > 0.02
    n = min(len(first["scores"]), len(second["scores"]))
    assert (first["scores"][:n] - second["scores"][:n]).abs().max() > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_the_same_objects_are_found(name, get):
    reference, expected = get(name)
    assert_lively(expected)
    assert agree(found_by(ours_of(name, reference), reference), expected)


@pytest.mark.parametrize("name, change", WRONG, ids=lambda x: next(iter(x)) if isinstance(x, dict) else x)
def test_other_numbers_find_other_objects(name, change, get):
    reference, expected = get(name)
    model = ours_of(name, reference, replace(CASES[name][1], **change))
    assert not agree(found_by(model, reference), expected)


def test_the_background_comes_first(get):
    reference, expected = get("fasterrcnn_resnet50_fpn")
    model = ours_of("fasterrcnn_resnet50_fpn", reference)
    with torch.no_grad():
        for parameter in model.head.box.predictors[0].cls_score.parameters():
            parameter.copy_(parameter.roll(-1, 0))
    assert not agree(found_by(model, reference), expected)


def test_frozen_norms_find_the_same(get):
    """As in the published weights. An eps of another size shows."""
    reference, _ = get("fasterrcnn_resnet50_fpn")
    frozen = copy(reference)
    frozen._modules = {**reference._modules, "backbone": convert_norm(deepcopy(reference.backbone), "frozen")}
    with torch.no_grad():
        expected = frozen(photos())
    model = convert_norm(ours_of("fasterrcnn_resnet50_fpn", reference), "frozen")
    assert agree(found_by(model, reference), expected)
    for module in model.modules():
        if hasattr(module, "eps"):
            module.eps = 1e-2
    assert not agree(found_by(model, reference), expected)


def targets() -> list[dict[str, Tensor]]:
    result = []
    for image, boxes in zip(
        photos(),
        ([[30.0, 50, 400, 300], [250, 100, 500, 420], [10, 300, 80, 380]], [[60.0, 20, 300, 350], [0, 0, 100, 90]]),
        strict=True,
    ):
        height, width = image.shape[-2:]
        y, x = torch.arange(height)[:, None], torch.arange(width)[None, :]
        masks = []
        for left, top, right, bottom in boxes:
            u, v = (x - (left + right) / 2) / (right - left), (y - (top + bottom) / 2) / (bottom - top)
            masks.append((u**2 + v**2 < 0.25).to(torch.uint8))  # the ellipse in the box
        labels = torch.arange(len(boxes)) % CLASSES + 1
        result.append({"boxes": torch.tensor(boxes), "labels": labels, "masks": torch.stack(masks)})
    return result


def their_losses(reference: nn.Module, batch, scaled: list[dict[str, Tensor]], seed: int) -> dict[str, Tensor]:
    levels = reference.backbone(batch.tensors)
    torch.manual_seed(seed)
    if not hasattr(reference, "rpn"):
        levels = list(levels.values())
        terms = reference.compute_loss(scaled, reference.head(levels), reference.anchor_generator(batch, levels))
        return {"loss_class": terms["classification"], "loss_box": terms["bbox_regression"]}
    proposals, first = reference.rpn(batch, levels, scaled)
    _, second = reference.roi_heads(levels, proposals, batch.image_sizes, scaled)
    names = {"loss_rpn_box_reg": "loss_rpn_box", "loss_classifier": "loss_class", "loss_box_reg": "loss_box"}
    return {names.get(key, key): value for key, value in (first | second).items()}


@pytest.mark.parametrize("name", [name for name in CASES if "v2" not in name])
def test_the_same_losses_and_gradients(name, get):
    reference, _ = get(name)
    model = ours_of(name, reference).train()
    batch, scaled = reference.transform(photos(), targets())
    own = [{**target, "labels": target["labels"] - 1} for target in scaled]
    reference.train()
    state = {key: value.clone() for key, value in reference.state_dict().items()}
    try:
        expected = their_losses(reference, batch, scaled, seed=5)
        torch.manual_seed(5)
        terms = model.losses(batch.tensors, own, batch.image_sizes)
        assert set(terms) == set(expected)
        for key, value in expected.items():
            torch.testing.assert_close(terms[key], value, rtol=1e-4, atol=1e-6)
            assert value > 1e-4, f"{key} is hardly there"
        sum(expected.values()).backward()
        sum(terms.values()).backward()
        gradients = {key: p.grad for key, p in reference.named_parameters()}
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(parameter.grad)
        for key, value in export_weights(model, "torchvision").items():
            if key in gradients:
                difference = (value - gradients[key]).norm() / gradients[key].norm().clamp(min=1e-6)
                assert difference < 1e-3, key
    finally:
        reference.zero_grad()
        reference.load_state_dict(state)
        reference.eval()


def test_masks_are_pasted_as_torchvision_pastes() -> None:
    noise = np.random.default_rng(0)
    for side, size in ((28, (120, 90)), (4, (40, 300))):
        corners = noise.uniform(0, 1, (12, 2, 2)) * (size[1], size[0])
        boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1).astype(np.float32)
        boxes[0], boxes[1] = (0, 0, size[1], size[0]), (3.5, 3.5, 3.5, 3.5)
        shares = noise.uniform(0, 1, (12, side, side)).astype(np.float32)
        theirs = (
            paste_masks_in_image(torch.from_numpy(shares)[:, None], torch.from_numpy(boxes), size)[:, 0].numpy() >= 0.5
        )
        ours = np.stack([pasted(share, box, size) for share, box in zip(shares, boxes, strict=True)])
        assert theirs[0].any()
        assert (ours != theirs).mean() < 1e-5
