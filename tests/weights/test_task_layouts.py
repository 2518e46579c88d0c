"""torchvision's detectors and segmenters read and written, and classifiers' weights in models of other tasks."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection, segmentation

from resurge.arch.backbone import Backbone
from resurge.arch.surgery import convert_norm
from resurge.arch.zoo import get_spec
from resurge.errors import UserError
from resurge.tasks.classify.model import ClassificationModel
from resurge.tasks.detect.model import DetectionModel
from resurge.tasks.detect.settings import Detector
from resurge.tasks.segment.model import SegmentationModel
from resurge.tasks.segment.settings import Segmenter
from resurge.weights.checkpoint import export_weights, load_weights, save_model

# Names and shapes are all that most of these tests look at, so the networks hold no numbers.
SMALL = Detector(fpn_channels=16, box_channels=16, mask_channels=16, box_size=2)
V2 = Detector(rpn_convs=2, head_norm=True, box_head="4conv1fc")
THEIRS = {
    "fasterrcnn_resnet50_fpn": ("faster_rcnn", Detector()),
    "fasterrcnn_resnet50_fpn_v2": ("faster_rcnn", V2),
    "maskrcnn_resnet50_fpn": ("mask_rcnn", Detector()),
    "maskrcnn_resnet50_fpn_v2": ("mask_rcnn", V2),
    "retinanet_resnet50_fpn": ("retinanet", Detector()),
}


def empty_detector(name: str) -> dict[str, Tensor]:
    """The state dict of torchvision's detector for COCO, full of numbers that tell one tensor from another."""
    with torch.device("meta"):
        state = getattr(detection, name)(weights=None, weights_backbone=None).state_dict()
    return {
        key: torch.full(value.shape, float(i + 1)) if value.is_floating_point() else torch.tensor(i)
        for i, (key, value) in enumerate(state.items())
    }


def on_nothing(
    head: str, num_classes: int, settings: Detector | Segmenter, name: str = "resnet50", **backbone: int
) -> nn.Module:
    kind = DetectionModel if isinstance(settings, Detector) else SegmentationModel
    with torch.device("meta"):
        model = kind(Backbone(get_spec(name), **backbone), num_classes, head, settings)
    return model.to_empty(device="cpu")


def small(head: str = "faster_rcnn", num_classes: int = 3) -> nn.Module:
    return DetectionModel(Backbone(get_spec("resnet18")), num_classes, head, SMALL)


@pytest.mark.parametrize("name", THEIRS)
def test_torchvisions_names_there_and_back(name):
    head, settings = THEIRS[name]
    state = empty_detector(name)
    model = on_nothing(head, 90, settings)
    report = load_weights(model, state)
    assert report.layout == "torchvision"
    assert not report.missing + report.unexpected
    assert not report.mismatched
    assert len(report.loaded) == len(state)
    back = export_weights(model, "torchvision")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_the_background_and_the_91_ids_of_coco():
    """Theirs has 91 outputs and ours 90 classes; another number of classes leaves the last layers as they are."""
    state = empty_detector("fasterrcnn_resnet50_fpn")
    model = on_nothing("faster_rcnn", 91, Detector())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    report = load_weights(model, state)
    last = [f"head.box.predictors.0.{layer}" for layer in ("cls_score", "bbox_pred")]
    assert set(report.mismatched) == {f"{layer}.{tensor}" for layer in last for tensor in ("weight", "bias")}
    assert "skipped" in str(report)
    assert model.head.box.predictors[0].cls_score.weight.eq(0).all()
    assert not model.head.rpn.head.cls_logits.weight.eq(0).any()


@pytest.mark.parametrize("name", ["maskrcnn_resnet50_fpn", "retinanet_resnet50_fpn"])
def test_the_names_of_the_published_files(name):
    """They are older than the names of today's layers, and have no counts of batches."""
    head, settings = THEIRS[name]
    state = empty_detector(name)
    older = {}
    for key, value in state.items():
        if key.endswith("num_batches_tracked"):
            continue
        key = re.sub(r"(inner|layer)_blocks\.(\d+)\.0\.", r"\1_blocks.\2.", key)
        key = key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        key = re.sub(r"mask_head\.(\d)\.0\.", lambda m: f"mask_head.mask_fcn{int(m[1]) + 1}.", key)
        key = re.sub(r"(_head\.conv)\.(\d)\.0\.", lambda m: f"{m[1]}.{2 * int(m[2])}.", key)
        older[key] = value
    assert older.keys() != state.keys()
    getattr(detection, name)(weights=None, weights_backbone=None).load_state_dict(older)  # they are torchvision's
    model = on_nothing(head, 90, settings)
    report = load_weights(model, older)
    assert not report.missing + report.unexpected
    back = export_weights(model, "torchvision")
    assert all(torch.equal(back[key], value) for key, value in state.items() if "num_batches" not in key)


def test_the_published_files_have_no_eps(tmp_path):
    state = empty_detector("fasterrcnn_resnet50_fpn")
    variance = "backbone.body.layer1.0.bn1.running_var"
    state[variance] = torch.logspace(-7, 1, 64)
    expected = torch.rsqrt(state[variance])
    factors = {}
    for file in ("fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", "mine.pth"):
        torch.save(state, tmp_path / file)
        model = convert_norm(on_nothing("faster_rcnn", 90, Detector()), "frozen")
        report = load_weights(model, tmp_path / file)
        norm = model.backbone.stages[0][0].reduce.norm
        factors[file] = torch.rsqrt(norm.running_var + norm.eps)
        assert ("eps" in str(report)) == (file != "mine.pth")
    published, mine = factors.values()
    torch.testing.assert_close(published, expected, rtol=1e-4, atol=0)
    assert (mine / expected - 1).abs().max() > 0.5


@pytest.mark.parametrize("head", ["cascade_rcnn", "cascade_mask_rcnn"])
def test_cascades_have_no_names_elsewhere(head):
    with pytest.raises(UserError, match="Export with layout 'resurge'"):
        export_weights(small(head), "torchvision")
    assert export_weights(small(head)).keys() == small(head).state_dict().keys()


@pytest.mark.parametrize("head", ["fcn", "deeplabv3"])
def test_torchvisions_segmenters(head):
    with torch.device("meta"):
        model = getattr(segmentation, f"{head}_resnet50")(
            weights=None, weights_backbone=None, num_classes=21, aux_loss=True
        )
    state = {
        key: torch.full(value.shape, float(i + 1)) if value.is_floating_point() else torch.tensor(i)
        for i, (key, value) in enumerate(model.state_dict().items())
    }
    ours = on_nothing(head, 21, Segmenter(), output_stride=8)
    report = load_weights(ours, state, layout="torchvision")
    assert not report.missing + report.unexpected
    back = export_weights(ours, "torchvision")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)
    # with another number of classes, or without the auxiliary head, the rest still loads
    other = on_nothing(head, 11, Segmenter(aux_weight=0), output_stride=8)
    report = load_weights(other, state)
    assert set(report.mismatched) == {"head.predict.weight", "head.predict.bias"}
    assert all(name.startswith("aux_classifier.") for name in report.unexpected)
    without = {key: value for key, value in state.items() if not key.startswith("aux_")}
    assert all(name.startswith("auxiliary.") for name in load_weights(ours, without).missing)


def any_small(head: str) -> nn.Module:
    if head == "pspnet":
        return SegmentationModel(Backbone(get_spec("resnet18"), output_stride=8), 4, head, Segmenter(head_channels=8))
    return small(head)


@pytest.mark.parametrize("head", ["faster_rcnn", "retinanet", "cascade_mask_rcnn", "pspnet"])
@pytest.mark.parametrize("source", ["run", "resurge", "torchvision", "backbone"])
def test_a_classifier_gives_its_backbone(head, source, tmp_path):
    torch.manual_seed(7)
    classifier = ClassificationModel(Backbone(get_spec("resnet18")), 10)
    if source == "run":
        save_model(tmp_path, classifier, {"task": "classify"})
        weights = tmp_path
    elif source == "backbone":
        weights = export_weights(classifier.backbone)
    else:
        weights = export_weights(classifier, source)
    model = any_small(head)
    rest = {key: value.clone() for key, value in model.state_dict().items() if not key.startswith("backbone.")}
    report = load_weights(model, weights)
    own = model.backbone.state_dict()
    assert all(torch.equal(own[key], value) for key, value in classifier.backbone.state_dict().items())
    assert all(torch.equal(model.state_dict()[key], value) for key, value in rest.items())
    assert {key.rpartition(".")[0] for key in report.unexpected} <= {"fc", "head.fc"}
    assert not any(key.startswith("backbone.") for key in report.missing)
    assert report.missing


def test_a_run_of_the_same_task_loads_whole_and_its_backbone_alone(tmp_path):
    torch.manual_seed(8)
    model = small("cascade_mask_rcnn")
    save_model(tmp_path, model, {"task": "instances"})
    other = small("cascade_mask_rcnn")
    report = load_weights(other, tmp_path)
    assert not report.missing + report.unexpected
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())
    more = load_weights(small("cascade_mask_rcnn", num_classes=5), tmp_path)
    assert {key.split(".")[1] for key in more.mismatched} == {"box", "mask"}
    assert all(key.split(".")[-2] in ("cls_score", "mask_fcn_logits") for key in more.mismatched)  # boxes are agnostic
    backbone = Backbone(get_spec("resnet18"))
    report = load_weights(backbone, tmp_path)
    assert not report.missing
    assert torch.equal(backbone.stem.convs[0].conv.weight, model.backbone.stem.convs[0].conv.weight)


def test_what_does_not_fit_is_refused(tmp_path):
    model = small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    narrow = DetectionModel(
        Backbone(get_spec("resnet18")), 3, "faster_rcnn", Detector(fpn_channels=8, box_channels=16, box_size=2)
    )
    with pytest.raises(UserError, match="of another shape"):
        load_weights(model, narrow.state_dict())
    with pytest.raises(UserError, match="unexpected"):
        load_weights(model, small("mask_rcnn").state_dict())
    with pytest.raises(UserError, match="missing"):
        load_weights(small("mask_rcnn"), model.state_dict())
    half = {key: value for key, value in model.state_dict().items() if not key.startswith("backbone.stages.2.")}
    with pytest.raises(UserError, match="missing"):
        load_weights(model, half)
    with pytest.raises(UserError, match="does not fit"):
        load_weights(ClassificationModel(Backbone(get_spec("resnet18")), 3), model.state_dict())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    # what fits can still be had
    report = load_weights(small("mask_rcnn"), model.state_dict(), strict=False)
    assert all(".mask." in key for key in report.missing)
