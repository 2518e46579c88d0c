"""Names there and back, against the real packages built offline."""

from __future__ import annotations

import pytest
import torch
import torchvision

from resurge.arch.backbone import Backbone
from resurge.arch.zoo import MODELS, get_spec
from resurge.errors import UserError
from resurge.tasks.classify.model import ClassificationModel
from resurge.weights.catalog import entries
from resurge.weights.layouts.naming import LAYOUTS, detect_layout, from_resurge, to_resurge

timm = pytest.importorskip("timm")

TIMM = {e.name: e.alias or e.name for e in entries().values() if timm.is_model(e.alias or e.name)}
# One of every family and block kind; the shapes of all names are compared below only where building is cheap.
FAMILIES = [
    "resnet18",
    "resnet18d",
    "resnet50",
    "resnet50c",
    "resnet50d",
    "wide_resnet50_2",
    "resnext50_32x4d",
    "resnext50d_32x4d",
    "seresnet18",
    "seresnet50",
    "senet154",
    "skresnet18",
    "skresnet50d",
    "skresnext50_32x4d",
    "res2net50_26w_8s",
    "res2net50d",
    "res2next50",
    "resnest14",
    "resnest101",
    "resnest50_fast_1s4x24d",
    "resnest50_fast_4s2x40d",
]


def shapes_of(model: torch.nn.Module) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in model.state_dict().items()}


def ours(name: str) -> ClassificationModel:
    with torch.device("meta"):
        return ClassificationModel(Backbone(get_spec(name)), 10 if name.endswith("_cifar") else 1000)


def test_timm_has_the_names_this_file_compares_with():
    assert set(FAMILIES) <= set(TIMM)
    assert len(TIMM) >= 50


@pytest.mark.parametrize("name", FAMILIES)
def test_timm_names_are_exactly_timms(name):
    with torch.device("meta"):
        theirs = shapes_of(timm.create_model(TIMM[name], pretrained=False))
    converted = to_resurge(theirs, get_spec(name), "timm")
    assert converted == shapes_of(ours(name))
    assert from_resurge(converted, get_spec(name), "timm") == theirs


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "wide_resnet50_2", "resnext101_64x4d"])
def test_torchvision_names_are_exactly_torchvisions(name):
    with torch.device("meta"):
        theirs = shapes_of(torchvision.models.get_model(name, weights=None))
    converted = to_resurge(theirs, get_spec(name), "torchvision")
    assert converted == shapes_of(ours(name))
    assert from_resurge(converted, get_spec(name), "torchvision") == theirs


@pytest.mark.parametrize(
    "name", ["resnest50", "resnest50_fast_2s2x40d", "res2net50_26w_4s", "res2net50d", "res2next50"]
)
def test_official_names_there_and_back(name):
    spec, mine = get_spec(name), shapes_of(ours(name))
    official = from_resurge(mine, spec, "official")
    assert len(official) == len(mine)
    assert to_resurge(official, spec, "official") == mine


def test_official_names_of_the_resnest_authors():
    official = from_resurge(shapes_of(ours("resnest50")), get_spec("resnest50"), "official")
    for key in (
        "conv1.6.weight",
        "bn1.running_var",
        "layer1.0.conv2.conv.weight",
        "layer1.0.conv2.bn0.weight",
        "layer1.0.conv2.fc1.bias",
        "layer1.0.conv2.bn1.bias",
        "layer1.0.conv2.fc2.weight",
        "layer2.0.downsample.1.weight",
        "layer4.2.bn3.num_batches_tracked",
        "fc.bias",
    ):
        assert key in official


def test_cifar_names():
    spec, mine = get_spec("resnet20_cifar"), shapes_of(ours("resnet20_cifar"))
    cifar = from_resurge(mine, spec, "cifar")
    assert {"conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer3.2.bn2.running_mean", "linear.bias"} <= set(
        cifar
    )
    assert to_resurge(cifar, spec, "cifar") == mine


def test_tensors_go_there_and_back_bit_for_bit():
    spec = get_spec("resnest14")
    state = ClassificationModel(Backbone(spec), 10).state_dict()
    for layout in ("resurge", "timm", "official"):
        back = to_resurge(from_resurge(state, spec, layout), spec, layout)
        assert back.keys() == state.keys()
        assert all(torch.equal(back[key], state[key]) for key in state)


def test_every_named_model_leaves_by_some_foreign_layout_and_comes_back():
    for name, spec in MODELS.items():
        # the blocks of a stage have the same names after the second, so two are enough
        spec = spec.but(depths=tuple(min(depth, 2) for depth in spec.depths))
        with torch.device("meta"):
            names = {key: key for key in ClassificationModel(Backbone(spec), 10).state_dict()}
        layouts = []
        for layout in LAYOUTS[1:]:
            try:
                foreign = from_resurge(names, spec, layout)
            except UserError:
                continue
            layouts.append(layout)
            assert len(foreign) == len(names), (name, layout)
            assert to_resurge(foreign, spec, layout) == names, (name, layout)
            assert to_resurge(foreign, spec, detect_layout(foreign, spec)) == names, (name, layout)
        assert layouts, name


def test_a_bare_backbone_exports_without_classifier():
    with torch.device("meta"):
        backbone = Backbone(get_spec("resnet18"))
    names = from_resurge(backbone.state_dict(), get_spec("resnet18"), "torchvision")
    with torch.device("meta"):
        theirs = torchvision.models.resnet18().state_dict()
    assert set(theirs) - set(names) == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    "name, layout, expected",
    [
        ("resnet50", "timm", "torchvision"),  # the same names; the first of the list
        ("resnet50d", "timm", "timm"),
        ("seresnet50", "timm", "timm"),
        ("skresnet50", "timm", "timm"),
        ("resnet20_cifar", "cifar", "cifar"),
        ("resnest50", "resurge", "resurge"),
    ],
)
def test_detects_the_layout(name, layout, expected):
    spec = get_spec(name)
    names = from_resurge(shapes_of(ours(name)), spec, layout)
    assert detect_layout(names, spec) == expected
    assert to_resurge(names, spec, detect_layout(names, spec)) == shapes_of(ours(name))


def test_names_of_no_layout_are_refused():
    with pytest.raises(UserError, match="of none of them"):
        detect_layout({"encoder.layers.0.weight": None}, get_spec("resnet50"))


def test_unknown_names_are_kept_for_the_report():
    converted = to_resurge({"fc.weight": 1, "layer9.extra": 2}, get_spec("resnet50"), "timm")
    assert converted == {"head.fc.weight": 1, "layer9.extra": 2}


@pytest.mark.parametrize(
    "name, layout, words",
    [
        ("seresnet50", "torchvision", "gate=SqueezeExcite"),
        ("resnest50", "torchvision", "stem=Deep"),
        ("skresnet50", "official", "transform=SelectiveKernel"),
        ("resnet20_cifar", "timm", "stem=Conv3x3"),
        ("resnet50", "timn", "Did you mean 'timm'"),
    ],
)
def test_a_layout_without_names_for_a_choice_says_so(name, layout, words):
    with pytest.raises(UserError, match=words):
        from_resurge({}, get_spec(name), layout)


def test_export_refuses_tensors_of_other_modules():
    with pytest.raises(UserError, match=r"decoder\.weight"):
        from_resurge({"decoder.weight": None}, get_spec("resnet50"), "timm")
