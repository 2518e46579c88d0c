"""The public surface."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import resurge
from resurge.errors import UserError


def test_importing_the_package_imports_no_torch() -> None:
    program = "import sys, resurge; print('torch' in sys.modules, len(dir(resurge)) > 7)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout == "False True\n", done.stderr


def test_every_public_name_is_there() -> None:
    for name in resurge.__all__:
        assert getattr(resurge, name) is not None
        assert name in dir(resurge)


def test_no_other_name_shows() -> None:
    program = "import resurge, resurge.infer.predictor; resurge.list_models(); print(dir(resurge) == resurge.__all__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout == "True\n", done.stderr


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="create_modle"):
        _ = resurge.create_modle


def test_create_model_takes_names_specs_and_text() -> None:
    spec = resurge.get_spec("resnet18").but(depths=(1, 1, 1, 1))
    assert resurge.create_model(spec).spec == spec
    assert resurge.create_model("resnet18 depths=(1,1,1,1)").spec == spec
    assert resurge.create_model("resnest14d").spec == resurge.get_spec("resnest14")


def test_create_model_shapes() -> None:
    model = resurge.create_model("resnet20_cifar", num_classes=7, in_channels=2).eval()
    assert model(torch.zeros(3, 2, 32, 32)).shape == (3, 7)


def test_create_backbone_declares_its_maps() -> None:
    backbone = resurge.create_backbone("resnet18", in_channels=1, output_stride=8).eval()
    maps = backbone(torch.zeros(1, 1, 64, 64))
    assert backbone.strides == (4, 8, 8, 8)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (channels, 64 // stride, 64 // stride)
        for channels, stride in zip(backbone.channels, backbone.strides, strict=True)
    ]


def test_create_model_with_weights_skips_a_classifier_of_another_size() -> None:
    source = resurge.create_model("resnet20_cifar", num_classes=10)
    torch.nn.init.constant_(source.head.fc.bias, 3.0)
    weights = resurge.export_weights(source, "resurge")
    same = resurge.create_model("resnet20_cifar", num_classes=10, weights=weights)
    other = resurge.create_model("resnet20_cifar", num_classes=4, weights=weights)
    assert torch.equal(same.head.fc.weight, source.head.fc.weight)
    assert all(torch.equal(tensor, weights[f"backbone.{name}"]) for name, tensor in other.backbone.state_dict().items())
    assert not (other.head.fc.bias == 3.0).any()


def test_load_weights_reports() -> None:
    model = resurge.create_model("resnet20_cifar", num_classes=4)
    report = resurge.load_weights(model, resurge.create_model("resnet20_cifar").state_dict())
    assert set(report.mismatched) == {"head.fc.weight", "head.fc.bias"}
    assert report.missing == ()


@pytest.mark.parametrize(
    "arguments, told",
    [
        ({"model": "resnest5o"}, "'resnest50'"),
        ({"model": "resnet18", "task": "clasify"}, "'classify'"),
        ({"model": "resnet18", "num_classes": 0}, "num_classes"),
        ({"model": "resnet18", "in_channels": 0}, "in_channels"),
        ({"model": "resnet18", "dropout": 1.5}, "dropout"),
        ({"model": "resnet18", "weights": "no-such-file.pth"}, "no-such-file.pth"),
    ],
)
def test_create_model_says_what_is_wrong(arguments: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        resurge.create_model(**arguments)  # type: ignore[arg-type]


def test_list_models() -> None:
    assert resurge.list_models("resnest2*") == ["resnest26", "resnest200", "resnest269"]
    assert resurge.list_models("nothing*") == []


_OPTIMIZED = """
import resurge.optimize.rewrite, resurge, sys, torch
model = resurge.create_model("resnet20_cifar depths=(1,1,1)", num_classes=2).eval()
done = resurge.optimize(model, torch.randn(1, 3, 32, 32), rounds=1, memory=sys.argv[1])
print(done.certificate.images)
"""


def test_optimize_is_called_whatever_was_imported_first(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _OPTIMIZED, str(tmp_path / "forms.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
