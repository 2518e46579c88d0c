"""Weights under the names of other packages, there and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from frozen.commands import output, resurge, without_paths
from frozen.goldens import Goldens, digest

import resurge as package
from resurge.errors import UserError

LAYOUTS = ("resurge", "torchvision", "timm", "official", "cifar")
MODELS = (
    "resnet50", "resnet18d", "resnext50_32x4d", "seresnet50", "skresnet50", "res2net50_26w_4s", "resnest50",
    "senet154", "resnet20_cifar",
)  # fmt: skip
SMALL = {
    "resnet50": "resnet50 depths=(1,2,1,1) planes=(4,4,8,8) stem=conv7x7(4)",
    "resnext50": "resnext50_32x4d depths=(1,1,1,1) planes=(32,32,32,32) stem=conv7x7(4)",
    "seresnet50": "seresnet50 depths=(1,1,1,1) planes=(16,16,16,16) stem=conv7x7(4)",
    "skresnet50": "skresnet50d depths=(1,1,1,1) planes=(8,8,8,8) stem=deep(4)",
    "res2net50": "res2net50_26w_4s depths=(1,1,1,1) planes=(32,32,32,32) base_width=24 stem=conv7x7(4)",
    "resnest50": "resnest50 depths=(1,1,1,1) planes=(8,8,8,8) stem=deep(4)",
    "cifar": "resnet20_cifar depths=(1,1,1) planes=(4,4,8) stem=conv3x3(4)",
}
SCENES = {
    "fcn": ("segment", 21, "torchvision"),
    "deeplabv3": ("segment", 21, "torchvision"),
    "faster_rcnn": ("detect", 90, "torchvision"),
    "retinanet": ("detect", 90, "torchvision"),
    "mask_rcnn": ("instances", 90, "torchvision"),
}
SCENE_MODEL = "resnet50 depths=(1,1,1,1) planes=(4,4,4,4) stem=conv7x7(4)"


def names_and_shapes(tensors: dict[str, torch.Tensor]) -> str:
    return "".join(f"{name} {tuple(value.shape)}\n" for name, value in sorted(tensors.items()))


def live(model: torch.nn.Module) -> torch.nn.Module:
    """No two tensors alike, so that a swap is seen."""
    draw = torch.Generator().manual_seed(3)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=draw) + 0.5)
    return model


def test_the_layouts_are_those_that_are_frozen() -> None:
    model = package.create_model(SMALL["resnet50"])
    with pytest.raises(UserError, match=", ".join(LAYOUTS)):
        package.export_weights(model, "nonsense")


def test_names_and_shapes_of_named_models(goldens: Goldens) -> None:
    """A digest of the exported names and shapes, or why there are none."""
    table: dict[str, dict[str, Any]] = {}
    for name in MODELS:
        with torch.device("meta"):
            model = package.create_model(name)
        table[name] = {}
        for layout in LAYOUTS:
            try:
                text = names_and_shapes(package.export_weights(model, layout))
            except UserError as error:
                table[name][layout] = str(error)
            else:
                table[name][layout] = [text.count("\n"), digest(text.encode())]
    goldens.same("layouts/named", table)


@pytest.mark.parametrize("name", SMALL)
def test_there_and_back(name: str, goldens: Goldens) -> None:
    model = live(package.create_model(SMALL[name], num_classes=5))
    found: dict[str, Any] = {}
    state = {key: value.clone() for key, value in model.state_dict().items()}
    for layout in LAYOUTS:
        try:
            exported = package.export_weights(model, layout)
        except UserError as error:
            found[layout] = str(error).splitlines()
            continue
        names = names_and_shapes(exported).splitlines()
        found[layout] = next((f"as {other}" for other, same in found.items() if same == names), names)
        for said in (layout, "auto"):
            other = package.create_model(SMALL[name], num_classes=5)
            report = package.load_weights(other, {key: value.clone() for key, value in exported.items()}, said)
            assert (report.missing, report.unexpected, dict(report.mismatched)) == ((), (), {})
            back = other.state_dict()
            assert all(torch.equal(back[key], value) for key, value in state.items())
    goldens.same(f"layouts/{name}", found)


@pytest.mark.parametrize("head", SCENES)
def test_scene_networks_there_and_back(head: str, goldens: Goldens) -> None:
    task, classes, layout = SCENES[head]
    with torch.device("meta"):
        empty = package.create_model(SCENE_MODEL, classes, task=task, head=head)
    model = live(empty.to_empty(device="cpu"))
    exported = package.export_weights(model, layout)
    other = empty.to_empty(device="cpu")
    state = {key: value.clone() for key, value in live(model).state_dict().items()}
    exported = {key: value.clone() for key, value in exported.items()}
    with torch.no_grad():
        for value in other.state_dict().values():
            value.zero_()
    report = package.load_weights(other, exported)
    assert (report.layout, report.missing, report.unexpected) == (layout, (), ())
    assert all(torch.equal(value, state[key]) for key, value in other.state_dict().items() if "num_batches" not in key)
    text = names_and_shapes(exported)
    goldens.same(f"layouts/{head}", {"names": text.count("\n"), "digest": digest(text.encode())})


def test_backbone_of_a_classifier(goldens: Goldens) -> None:
    """A bare backbone and a segmenter take a classifier's weights."""
    source = live(package.create_model(SMALL["resnest50"], num_classes=5))
    weights = package.export_weights(source, "timm")
    backbone = package.create_backbone(SMALL["resnest50"])
    segmenter = package.create_model(SMALL["resnest50"], 3, task="segment")
    grey = package.create_model(SMALL["resnest50"], 7, 1)
    networks = {"backbone": backbone, "segmenter": segmenter, "one channel": grey}
    found = {name: str(package.load_weights(network, weights)) for name, network in networks.items()}
    goldens.same("layouts/reports", found)
    wanted = source.state_dict()
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, wanted[f"backbone.{key}"])


def test_convert(tmp_path: Path, goldens: Goldens) -> None:
    """`resurge convert` from our names to each layout and back gives the file's tensors again."""
    text = SMALL["resnest50"]
    model = live(package.create_model(text, num_classes=5))
    safetensors.torch.save_file(package.export_weights(model, "resurge"), tmp_path / "ours.safetensors")
    found = {}
    for layout in ("timm", "official"):
        there, back = tmp_path / f"{layout}.safetensors", tmp_path / f"{layout}_back.safetensors"
        said = [output("convert", tmp_path / "ours.safetensors", there, "--model", text, "--to", layout),
                output("convert", there, back, "--model", text, "--to", "resurge", "--from", layout)]  # fmt: skip
        keys = names_and_shapes(safetensors.torch.load_file(there))
        found[layout] = [*without_paths(said, {tmp_path: "<tmp>"}), digest(keys.encode())]
        again = safetensors.torch.load_file(back)
        assert again.keys() == model.state_dict().keys()
        assert all(torch.equal(again[key], value) for key, value in model.state_dict().items())
    done = resurge(
        "convert", tmp_path / "ours.safetensors", tmp_path / "x.safetensors", "--model", text, "--to", "cifar"
    )
    assert done.code == 2
    found["cifar"] = without_paths(done.err, {tmp_path: "<tmp>"})
    goldens.same("layouts/convert", found)
