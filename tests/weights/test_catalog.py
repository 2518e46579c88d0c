"""The catalogue against the networks that are built, and against the packages that publish weights."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from resurge.arch.backbone import Backbone
from resurge.arch.zoo import ALIASES, MODELS, get_spec
from resurge.errors import UserError
from resurge.tasks.classify.model import ClassificationModel
from resurge.weights.catalog import entries, entry, names_with_parameters, pretrained_source
from resurge.weights.layouts.naming import LAYOUTS, module_names


def counted(model_name: str) -> tuple[int, str]:
    """(parameters, multiply-adds in billions) of a network as it is built; costs no memory and no arithmetic."""
    described = entries()[model_name]
    with torch.device("meta"):
        model = ClassificationModel(Backbone(get_spec(model_name)), described.classes).eval()
        image = torch.empty(1, 3, described.cost_size, described.cost_size)
    macs = 0

    def count(layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal macs
        macs += layer.weight.numel() * (output.shape[2] * output.shape[3] if output.ndim == 4 else 1)

    parameters = sum(p.numel() for p in model.parameters())
    for layer in list(model.modules()):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
        for name, child in layer.named_children():
            if isinstance(child, nn.BatchNorm2d | nn.ReLU):  # they change no shape, and take most of the time
                setattr(layer, name, nn.Identity())
    model(image)
    return parameters, f"{macs / 1e9:.4f}"


@pytest.mark.parametrize("name", list(MODELS))
def test_size_and_cost_are_those_of_the_network(name):
    described = entries()[name]
    parameters, gmacs = counted(name)
    row = f"{name},{described.alias},{described.classes},{parameters},{gmacs},{described.cost_size},..."
    assert (described.parameters, f"{described.gmacs:.4f}") == (parameters, gmacs), f"catalog.csv should say: {row}"


def test_every_model_is_in_the_catalogue_and_nothing_else():
    assert set(entries()) == set(MODELS)
    assert {e.alias: e.name for e in entries().values() if e.alias} == ALIASES


def test_published_figures_have_a_source():
    for described in entries().values():
        assert (described.top1 is None) == (not described.top1_source) == (described.top1_size is None)


def test_every_source_can_be_loaded_by_its_layout():
    for described in entries().values():
        for source in described.sources:
            assert source.layout in LAYOUTS
            module_names(get_spec(described.name), source.layout)
            assert source.licence
            assert (source.kind == "hub") != bool(source.sha256)
            assert source.kind == "hub" or source.location.endswith("/" + source.file)
            assert source.sha256 in source.file or source.kind == "hub"


def test_preprocessing_of_the_hub_is_what_timm_says():
    timm = pytest.importorskip("timm")
    for described in entries().values():
        for source in described.sources:
            if source.kind != "hub":
                continue
            config = timm.get_pretrained_cfg(source.location.removeprefix("timm/"))
            assert config.hf_hub_id == source.location
            assert (source.size, source.crop_pct, source.interpolation) == (
                config.input_size[1],
                config.crop_pct,
                config.interpolation,
            )
            assert (source.mean, source.std) == (config.mean, config.std)
            assert source.licence == (config.license if config.license != "unknown" else "see repository")


def test_addresses_of_torchvision_are_torchvisions():
    from torchvision.models import get_model_weights, list_models

    known = {weights.url for name in list_models() for weights in get_model_weights(name)}
    ours = [s.location for e in entries().values() for s in e.sources if s.layout == "torchvision"]
    assert len(ours) == 17
    assert set(ours) <= known


def test_lookups():
    assert entry("resnest101e").name == "resnest101"
    assert pretrained_source("resnest50").location == "timm/resnest50d.in1k"
    assert pretrained_source("resnest50_fast_1s1x64d").sha256 == "d8fbf808"
    assert names_with_parameters(25_576_264, 1000) == ["resnet50c", "resnet50d"]
    with pytest.raises(UserError, match="Did you mean 'resnet50'"):
        entry("resnets50")
    with pytest.raises(UserError, match=r"no trained weights of seresnet18.*--weights FILE"):
        pretrained_source("seresnet18")


def test_the_catalogue_needs_no_torch():
    code = (
        "import sys, resurge.weights.catalog as c; c.entries(); "
        "heavy = {'torch', 'huggingface_hub', 'numpy'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
