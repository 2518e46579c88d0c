"""Weights in, out, and refused."""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import random
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision
from alive import enliven, structured_images
from torch import nn

from resurge.arch.backbone import Backbone
from resurge.arch.zoo import get_spec
from resurge.errors import UserError
from resurge.run_files import read_model_json
from resurge.tasks.classify.model import ClassificationModel
from resurge.weights.checkpoint import adapt_input, export_weights, load_weights, save_model
from resurge.weights.reading import read_checkpoint

SPEC = get_spec("resnet18").but(depths=(1, 1, 1, 1), planes=(8, 8, 16, 16))


def small(classes: int = 5, in_channels: int = 3, **changes) -> ClassificationModel:
    return ClassificationModel(Backbone(SPEC.but(**changes), in_channels=in_channels), classes)


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.fixture
def trained() -> ClassificationModel:
    model = small()
    enliven(model, structured_images(4, size=32))
    return model


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


# ----------------------------------------------------------------------------------------------------------- into


@pytest.mark.parametrize("layout", ["resurge", "torchvision", "timm", "official"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_of_every_layout(trained, layout, suffix, tmp_path):
    path = tmp_path / f"net{suffix}"
    state = {key: value.contiguous() for key, value in export_weights(trained, layout).items()}
    if suffix == ".pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    model = small()
    report = load_weights(model, path)
    assert same(model, trained)
    assert len(report.loaded) == len(state)
    assert not report.missing + report.unexpected
    assert not report.mismatched
    assert str(path) in str(report)


def test_torchvision_model_itself():
    theirs = torchvision.models.resnet18(num_classes=7)
    model = ClassificationModel(Backbone(get_spec("resnet18")), 7)
    assert load_weights(model, theirs.state_dict()).layout == "torchvision"
    exported = export_weights(model, "torchvision")
    assert all(torch.equal(exported[key], value) for key, value in theirs.state_dict().items())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}, "best_prec1": 91.7, "epoch": 3},
        lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}, "pytorch-lightning_version": "2.5"},
        lambda s: {"model": {f"_orig_mod.module.{k}": v for k, v in s.items()}, "optimizer": {"state": {}}},
        lambda s: {"state_dict": {}, "state_dict_ema": dict(s), "args": argparse.Namespace(lr=0.1)},
        lambda s: {"params": dict(s)},
        lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
        lambda s: {f"backbone.{k}".replace("backbone.fc", "head.fc"): v for k, v in s.items()},
    ],
    ids=["akamaster", "lightning", "compiled", "timm", "params", "old", "backbone"],
)
def test_wrappers_and_prefixes(trained, wrap, tmp_path):
    model = small()
    load_weights(model, saved(wrap(export_weights(trained, "timm")), tmp_path / "net.pth"))
    for key, value in trained.state_dict().items():
        assert key.endswith("num_batches_tracked") or torch.equal(model.state_dict()[key], value)


def test_moving_average_comes_first_and_is_reported(trained):
    state = export_weights(trained)
    worse = {key: torch.zeros_like(value) for key, value in state.items()}
    model = small()
    report = load_weights(model, {"state_dict": worse, "state_dict_ema": state})
    assert same(model, trained)
    assert "state_dict_ema" in str(report)


def test_classifier_of_another_size_is_skipped_and_reported(trained):
    model = small(classes=3)
    before = model.head.fc.weight.clone()
    report = load_weights(model, export_weights(trained, "timm"))
    assert set(report.mismatched) == {"head.fc.weight", "head.fc.bias"}
    assert report.mismatched["head.fc.weight"] == ((5, 16), (3, 16))
    assert "skipped: head.fc.weight is (5, 16) in the source and (3, 16) in the model" in str(report)
    assert torch.equal(model.head.fc.weight, before)
    assert same(model.backbone, trained.backbone)


def test_bare_backbone_leaves_the_classifier_out(trained):
    backbone = Backbone(SPEC)
    for layout in ("resurge", "timm"):
        report = load_weights(backbone, export_weights(trained, layout))
        assert same(backbone, trained.backbone)
        assert len(report.unexpected) == 2


def test_weights_of_a_bare_backbone_in_a_classifier_need_a_word(trained):
    model = small()
    with pytest.raises(UserError, match=r"2 missing: head\.fc\.weight, head\.fc\.bias"):
        load_weights(model, trained.backbone.state_dict())
    report = load_weights(model, trained.backbone.state_dict(), strict=False)
    assert report.missing == ("head.fc.weight", "head.fc.bias")
    assert same(model.backbone, trained.backbone)


def test_half_precision_files_fill_single_precision_models(trained, tmp_path):
    half = {k: v.half() if v.is_floating_point() else v for k, v in trained.state_dict().items()}
    safetensors.torch.save_file(half, tmp_path / "half.safetensors")
    model = small()
    load_weights(model, tmp_path / "half.safetensors")
    assert model.head.fc.weight.dtype == torch.float32
    assert torch.allclose(model.head.fc.weight, trained.head.fc.weight, rtol=1e-3)


def test_grey_images_get_the_response_of_grey_rgb(trained):
    grey = small(in_channels=1)
    report = load_weights(grey, export_weights(trained, "timm"))
    assert report.adapted == {"backbone.stem.convs.0.conv.weight": "3 input channels to 1"}
    x = structured_images(2, channels=1, size=32)
    with torch.no_grad():
        torch.testing.assert_close(grey.eval()(x), trained.eval()(x.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-4)
    with pytest.raises(UserError, match="1 of another shape"):
        load_weights(small(in_channels=1), export_weights(trained), adapt=False)


@pytest.mark.parametrize("have, want", [(3, 6), (1, 3), (3, 3)])
def test_adapted_input_keeps_the_response_to_equal_channels(have, want):
    weight = torch.randn(4, have, 3, 3)
    torch.testing.assert_close(adapt_input(weight, want).sum(1), weight.sum(1))


def test_adapted_input_of_an_odd_number_keeps_the_scale():
    assert adapt_input(torch.ones(4, 3, 3, 3), 5).shape == (4, 5, 3, 3)
    torch.testing.assert_close(adapt_input(torch.ones(4, 3, 3, 3), 5).sum(1), torch.full((4, 3, 3), 3.0))


# -------------------------------------------------------------------------------------------------------- refused


def test_weights_of_another_architecture_name_the_right_one():
    theirs = torchvision.models.resnext50_32x4d(num_classes=20).state_dict()
    model = ClassificationModel(Backbone(get_spec("resnet50")), 20)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UserError, match=r"do(es)? not fit the model 'resnet50'.*look like resnext50_32x4d"):
        load_weights(model, theirs)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_c_and_d_are_told_apart_by_their_names():
    spec = get_spec("resnet50d")
    with torch.device("meta"):
        theirs = ClassificationModel(Backbone(spec), 1000)
    state = {key: torch.zeros(value.shape) for key, value in export_weights(theirs, "timm").items()}
    with pytest.raises(UserError, match="look like resnet50d: use --model resnet50d"):
        load_weights(Backbone(get_spec("resnet50")), state)


def test_missing_unexpected_and_misshapen_are_listed(trained):
    state = export_weights(trained, "timm")
    del state["layer1.0.conv1.weight"]
    state["layer1.0.extra.weight"] = torch.zeros(1)
    state["bn1.bias"] = torch.zeros(9)
    with pytest.raises(UserError) as caught:
        load_weights(small(), state)
    message = str(caught.value)
    assert "1 missing: backbone.stages.0.0.transform.conv.weight" in message
    assert "1 unexpected: layer1.0.extra.weight" in message
    assert "backbone.stem.convs.0.norm.bias is (9,) in the source and (64,) in the model" in message
    report = load_weights(small(), state, strict=False)
    assert report.unexpected == ("layer1.0.extra.weight",)
    assert "backbone.stem.convs.0.norm.bias" in report.mismatched


def test_long_lists_are_cut(trained):
    with pytest.raises(UserError, match=r"missing: .* and \d+ more"):
        load_weights(small(depths=(2, 2, 2, 2)), export_weights(trained))


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("old_format", [False, True])
def test_malicious_pickle_is_refused_and_not_run(old_format, tmp_path):
    bait = tmp_path / "executed"
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": Evil(bait)}, path, _use_new_zipfile_serialization=not old_format)
    with pytest.raises(UserError, match="could run code; it was refused and nothing was executed"):
        load_weights(small(), path)
    bare = tmp_path / "bare.pth"
    bare.write_bytes(pickle.dumps(Evil(bait)))
    with pytest.raises(UserError):
        load_weights(small(), bare)
    assert not bait.exists()


def test_a_whole_pickled_model_is_refused(tmp_path):
    torch.save(small(), tmp_path / "model.pth")
    with pytest.raises(UserError, match="save its state dict alone"):
        load_weights(small(), tmp_path / "model.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_files(trained, suffix, share, tmp_path):
    path = tmp_path / f"net{suffix}"
    if suffix == ".pth":
        torch.save(trained.state_dict(), path)
    else:
        safetensors.torch.save_file(trained.state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=r"cut short|not a file of weights"):
        load_weights(small(), path)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"<html>sign in</html>", "web page"),
        (b"hello, this is text\n", "not a file of weights"),
        (b"\x00" * 300, "not a file of weights"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".bin"])
def test_files_of_another_kind(content, words, suffix, tmp_path):
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        load_weights(small(), path)


@pytest.mark.parametrize(
    "content, words",
    [
        ({}, "empty"),
        ({"epoch": 3}, "epoch is none"),
        ([1, 2], "got list"),
        ({"fc.weight": torch.zeros(5, 16), "epoch": 3}, "epoch is none"),
        ({"fc.weight": torch.full((5, 16), torch.nan)}, r"fc\.weight has values that are not finite"),
        ({"encoder.weight": torch.zeros(2)}, "of none of them"),
    ],
)
def test_dictionaries_that_are_no_weights(content, words, tmp_path):
    with pytest.raises(UserError, match=words):
        load_weights(small(), saved(content, tmp_path / "net.pth"))


@pytest.mark.parametrize("old_format", [False, True])
def test_damaged_pickles_never_end_in_anything_but_a_message(old_format, tmp_path):
    buffer = io.BytesIO()
    torch.save({"fc.weight": torch.arange(10.0)}, buffer, _use_new_zipfile_serialization=not old_format)
    content, path, draw = buffer.getvalue(), tmp_path / "net.pth", random.Random(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(content[: draw.randrange(20, len(content))] if draw.random() < 0.5 else content)
        for _ in range(3):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(bytes(damaged))
        try:
            read_checkpoint(path)
        except UserError:
            refused += 1
    assert refused > 50


def test_a_compiled_model_is_loaded_and_exported_by_its_own_names(trained):
    fresh = ClassificationModel(Backbone(trained.spec), trained.num_classes)
    report = load_weights(torch.compile(fresh, backend="eager"), trained.state_dict())
    assert not report.missing + report.unexpected
    assert export_weights(torch.compile(fresh, backend="eager"), "timm").keys() == export_weights(fresh, "timm").keys()
    assert same(fresh, trained)


def test_names_that_are_no_files(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_weights(small(), tmp_path / "nothing.pth")
    with pytest.raises(UserError, match="say catalog:resnest50"):
        load_weights(small(), "resnest50")
    with pytest.raises(UserError, match="no weights of it are published"):
        load_weights(small(), "pretrained")
    with pytest.raises(UserError, match="expected a Backbone"):
        load_weights(nn.Linear(2, 2), {})


# ------------------------------------------------------------------------------------------------- run directories


def test_run_directory_there_and_back(trained, tmp_path):
    meta = {"task": "classify", "classes": ["a", "b", "c", "é", "\udcff"], "scores": {"top1": 99.1}}
    save_model(tmp_path / "run", trained.to(memory_format=torch.channels_last), meta)
    described = read_model_json(tmp_path / "run")
    assert described["format"] == 1
    assert described["spec"] == str(SPEC)
    assert described["parameters"] == sum(p.numel() for p in trained.parameters())
    assert described["classes"] == meta["classes"]
    for source in (tmp_path / "run", tmp_path / "run" / "model.safetensors"):
        model = small()
        load_weights(model, source)
        assert same(model, trained)
    assert read_checkpoint(tmp_path / "run" / "model.safetensors").metadata["format"] == "pt"
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["model.json", "model.safetensors"]


def test_run_of_another_architecture_is_refused_even_where_the_shapes_fit(tmp_path):
    save_model(tmp_path, ClassificationModel(Backbone(get_spec("resnet50").but(depths=(1, 1, 1, 1))), 3), {})
    other = ClassificationModel(Backbone(get_spec("resnet50a").but(depths=(1, 1, 1, 1))), 3)
    with pytest.raises(UserError, match="holds weights of 'resnet50 depths"):
        load_weights(other, tmp_path)


def test_a_deformable_network_starts_from_the_plain_one(trained, tmp_path):
    save_model(tmp_path, trained, {})
    bent = small(transform=get_spec("resnet18 transform=deform(conv3x3)").transform)
    report = load_weights(bent, tmp_path)
    offsets = [key for key in bent.state_dict() if ".offset." in key]
    assert list(report.missing) == offsets != []
    assert f"{len(offsets)} of the missing are offsets, missing by design" in str(report)
    loaded = bent.state_dict()
    assert not any(loaded[key].any() for key in offsets)
    assert all(torch.equal(value, loaded[key]) for key, value in trained.state_dict().items())
    save_model(tmp_path / "bent", bent, {})
    assert not load_weights(small(transform=bent.backbone.spec.transform), tmp_path / "bent").notes
    for other in ("avgdown(conv3x3)", "deform(avgdown(conv3x3))", "deform(conv3x3(depthwise=true))"):
        with pytest.raises(UserError, match="but the model is"):
            load_weights(small(transform=get_spec(f"resnet18 transform={other}").transform), tmp_path)
    with pytest.raises(UserError, match="but the model is"):
        load_weights(small(), tmp_path / "bent")


def test_published_weights_serve_the_deformable_network(monkeypatch):
    def fetched(source, cache_dir):
        raise UserError(f"to be fetched: {source.location}")

    monkeypatch.setattr("resurge.weights.checkpoint.fetch", fetched)
    for text in ("resnet50", "resnet50 transform=deform(conv3x3)"):
        with pytest.raises(UserError, match=r"to be fetched: .*resnet50"), torch.device("meta"):
            load_weights(Backbone(get_spec(text)), "pretrained")


@pytest.mark.parametrize(
    "text, words",
    [
        (None, "does not exist"),
        ('{"format": 1, "spec": ', "damaged"),
        ("[]", "expected a JSON object, found list"),
        ("{}", "does not describe a model"),
        (json.dumps({"format": 2, "spec": "resnet18"}), "format 2"),
    ],
)
def test_run_directories_that_cannot_be_read(text, words, tmp_path):
    if text is not None:
        (tmp_path / "model.json").write_text(text)
    with pytest.raises(UserError, match=words):
        read_model_json(tmp_path)


def test_an_unwritable_place_keeps_the_earlier_model(trained, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="cannot write"):
        save_model(blocked / "run", trained, {})
