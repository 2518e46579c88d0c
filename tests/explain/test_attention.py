"""Class-activation maps and attention weights, against their equations; overlays and thumbnails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resurge.arch.backbone import Backbone
from resurge.arch.zoo import get_spec
from resurge.explain.attention import (
    activation_maps,
    attention_summary,
    attention_weights,
    cam,
    explain_image,
    write_thumbnails,
)
from resurge.explain.heat import colors, enlarge, overlay, sheet, to_image
from resurge.tasks.classify.model import ClassificationModel

NUMBERS = "depths=(2,1) planes=(16,32)"


def classifier(text: str = "resnest14", in_channels: int = 3) -> ClassificationModel:
    spec = get_spec(f"{text} {NUMBERS}")
    return ClassificationModel(Backbone(spec, in_channels), 5)


def test_cam_is_its_equation() -> None:
    model = classifier().eval()
    x = torch.rand(3, 3, 48, 40)
    with torch.no_grad():
        model.head.fc.weight.normal_()
        target = model(x).argmax(1).tolist()
        features = model.forward_features(x)
        maps = torch.stack(
            [(model.head.fc.weight[k][:, None, None] * f).sum(0) for k, f in zip(target, features, strict=True)]
        )
        logits = model(x)
    # The mean of the map and the bias make the logit: this is what the map is a map of.
    made = maps.mean((1, 2)) + model.head.fc.bias[target]
    torch.testing.assert_close(made, logits[range(3), target], atol=1e-5, rtol=1e-5)
    positive = maps.clamp_min(0)
    expected = positive / positive.amax((1, 2), keepdim=True).clamp_min(1e-30)
    torch.testing.assert_close(cam(model, x), expected, atol=1e-5, rtol=1e-4)


def test_maps_leave_the_model_as_it_was() -> None:
    model = classifier().train()
    model.backbone.stem.eval()
    modes = [part.training for part in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.rand(2, 3, 32, 32)
    for explain in (cam, attention_weights, activation_maps):
        explain(model, x)
    assert modes == [part.training for part in model.modules()]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_maps_reach_from_zero_to_one_and_find_the_evidence() -> None:
    model = classifier("resnet18").eval()
    with torch.no_grad():
        model.head.fc.weight.fill_(1.0)
    x = torch.zeros(1, 3, 64, 64)
    x[:, :, 40:56, 8:24] = torch.rand(3, 16, 16) * 4
    heat = cam(model, x)[0]
    assert 0 <= float(heat.min()) <= float(heat.max()) == 1.0
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    assert (row + 0.5) * 8 == pytest.approx(48, abs=12)
    assert (column + 0.5) * 8 == pytest.approx(16, abs=12)


@pytest.mark.parametrize(
    "text, kind, branches",
    [
        ("resnest14", "split attention", 2),
        ("resnest14 transform=split(radix=3)", "split attention", 3),
        ("resnet50 transform=sk", "selective kernel", 2),
        ("resnet50 gate=se", "squeeze-excite", 1),
        ("resnest14 transform=split(radix=1)", "split attention", 1),
    ],
)
def test_attention_weights_are_those_of_each_block(text: str, kind: str, branches: int) -> None:
    if "radix=3" in text:
        text += " base_width=96"
    model = classifier(text)
    found = attention_weights(model, torch.rand(2, 3, 32, 32))
    assert [(each.stage, each.block) for each in found] == [(1, 1), (1, 2), (2, 1)]
    assert {each.kind for each in found} == {kind}
    for each in found:
        assert each.weights.shape[:2] == (2, branches)
        assert float(each.weights.min()) >= 0
        assert float(each.weights.max()) <= 1
        if branches > 1:
            torch.testing.assert_close(each.weights.sum(1), torch.ones_like(each.weights[:, 0]))


def test_attention_and_gate_of_one_block_are_both_there() -> None:
    found = attention_weights(classifier("resnest14 gate=se"), torch.rand(1, 3, 32, 32))
    assert [each.kind for each in found[:2]] == ["split attention", "squeeze-excite"]
    assert found[0].weights.shape[2] == 16
    assert found[1].weights.shape[2] == 64


def test_a_plain_network_has_no_attention_but_activations() -> None:
    model = classifier("resnet18")
    assert attention_weights(model, torch.rand(1, 3, 32, 32)) == []
    maps = activation_maps(model, torch.rand(2, 3, 32, 32))
    assert [tuple(m.shape) for m in maps] == [(2, 8, 8), (2, 4, 4)]


def test_summary_is_plain_values() -> None:
    first = attention_summary(classifier(), torch.rand(2, 3, 32, 32))[0]
    assert first["kind"] == "split attention"
    assert sum(first["mean"]) == pytest.approx(1.0, abs=1e-3)
    assert len(first["std"]) == 2


def test_the_colour_scale_rises_in_lightness() -> None:
    ramp = colors(np.linspace(0, 1, 64))
    lightness = ramp @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > 0).all()
    assert colors(np.array([np.nan, -3.0, 7.0])).tolist() == [colors(np.array(v)).tolist() for v in (0.0, 0.0, 1.0)]


def test_overlay_is_warm_where_the_heat_is() -> None:
    heat = torch.zeros(4, 4)
    heat[0, 0] = 1.0
    drawn = np.asarray(overlay(Image.new("RGB", (64, 32), (120, 120, 120)), heat)).astype(int)
    assert drawn.shape == (32, 64, 3)
    assert drawn[2, 4].sum() > drawn[28, 60].sum() + 100


def test_tensors_go_back_to_images() -> None:
    pixels = torch.rand(3, 6, 5)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    normal = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    back = np.asarray(to_image(normal, mean, std)) / 255
    assert np.abs(back - pixels.permute(1, 2, 0).numpy()).max() < 0.003
    assert to_image(torch.zeros(1, 6, 5), [0.5], [0.5]).mode == "L"


def test_small_images_grow_by_whole_factors() -> None:
    assert enlarge(Image.new("L", (8, 6))).size == (96, 72)
    assert enlarge(Image.new("L", (100, 50))).size == (100, 50)
    assert enlarge(Image.new("L", (1000, 10))).size == (224, 2)


def test_explain_image() -> None:
    model, image, x = classifier(in_channels=1), Image.new("L", (20, 30), 90), torch.rand(1, 1, 32, 32)
    overlays = explain_image(model, x, image)
    assert list(overlays) == ["input", "class activation", "stage 1", "stage 2"]
    assert {each.size for each in overlays.values()} == {(80, 120)}
    assert sheet(overlays).width > 4 * 80
    assert list(explain_image(model.backbone, x, image, classifier=False)) == ["input", "stage 1", "stage 2"]


def test_thumbnails_for_the_report(tmp_path: Path) -> None:
    model = classifier(in_channels=1)
    written = write_thumbnails(model, torch.randn(2, 1, 16, 16), tmp_path, mean=[0.3], std=[0.4], prefix="right")
    assert written[1] == {"thumbnail": "explain/right_001.png", "overlay": "explain/right_001_cam.png"}
    for names in written:
        for name in names.values():
            with Image.open(tmp_path / name) as image:
                assert image.size == (96, 96)
