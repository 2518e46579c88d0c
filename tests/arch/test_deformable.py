"""Deformable convolution: it starts as the plain one, and is equation 1 of arXiv:1811.11168 when it is bent."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from alive import assert_alive, enliven, peak_difference, structured_images
from forms_alive import REJECTED
from torch import Tensor, nn

from resurge.arch.backbone import Backbone
from resurge.arch.contracts import Site
from resurge.arch.deformable import Deform, DeformableConv2d, OffsetConv2d
from resurge.arch.forms import to_separate
from resurge.arch.spec import plan
from resurge.arch.surgery import convert_norm
from resurge.arch.transforms import AvgDown, Conv3x3, SelectiveKernel, SplitAttention
from resurge.arch.zoo import get_spec
from resurge.errors import UserError
from resurge.explain.cost import cost
from resurge.explain.diagram import Diagrams
from resurge.explain.scene import Text
from resurge.weights.checkpoint import load_weights
from resurge.weights.layouts import naming

SMALL = "resnet50 depths=(1,2,1,1) planes=(16,16,32,32) stem=conv3x3(16)"
TRANSFORMS = ["conv3x3", "res2(4)", "sk(2)", "split(2)", "avgdown(split(2),before=true)", "conv3x3(depthwise=true)"]


def with_transform(text: str) -> Backbone:
    return Backbone(get_spec(f"{SMALL} transform={text}"))


# ------------------------------------------------------------------------------------------------ it starts as plain


@pytest.mark.parametrize("text", TRANSFORMS)
def test_it_starts_as_the_plain_network_and_loads_its_weights(text: str) -> None:
    plain, deformed = with_transform(text), with_transform(f"deform({text})")
    images = structured_images(3, size=24).double()
    enliven(plain.double(), images)
    assert all(".offset." in key for key in load_weights(with_transform(f"deform({text})"), plain.state_dict()).missing)
    report = deformed.double().eval().load_state_dict(plain.state_dict(), strict=False)
    assert not report.unexpected_keys
    assert report.missing_keys
    assert all(".offset." in key for key in report.missing_keys)
    with torch.no_grad():
        expected = plain(images)
        for found, wanted in zip(deformed(images), expected, strict=True):
            assert peak_difference(found, wanted) < 1e-12
        assert_alive(expected[-1])
        for layer in deformed.modules():
            if isinstance(layer, OffsetConv2d):
                layer.bias.fill_(0.4)
        found = deformed(images)
        assert torch.equal(found[0], expected[0]), "stage 1 is not deformed"
        for map_, wanted in zip(found[1:], expected[1:], strict=True):
            assert peak_difference(map_, wanted) > REJECTED


def test_the_same_seed_gives_the_weights_of_the_plain_network() -> None:
    torch.manual_seed(3)
    plain = with_transform("split(2)").state_dict()
    torch.manual_seed(3)
    deformed = with_transform("deform(split(2))").state_dict()
    assert all(torch.equal(value, deformed[key]) for key, value in plain.items())
    assert all(not value.any() for key, value in deformed.items() if key not in plain)


# -------------------------------------------------------------------------------------------------- against the paper


def read(plane: Tensor, row: float, column: float) -> float:
    """A map between its pixels, zero outside (arXiv:1703.06211, equations 3 and 4)."""
    total = 0.0
    for r in (math.floor(row), math.floor(row) + 1):
        for c in (math.floor(column), math.floor(column) + 1):
            if 0 <= r < plane.shape[0] and 0 <= c < plane.shape[1]:
                total += max(0.0, 1 - abs(row - r)) * max(0.0, 1 - abs(column - c)) * float(plane[r, c])
    return total


def naive(
    layer: DeformableConv2d,
    x: Tensor,
    *,
    strength: Callable[[float], float] = lambda z: 2 / (1 + math.exp(-z)),
    columns_first: bool = False,
    share_taps: bool = False,
) -> Tensor:
    """Equation 1 of arXiv:1811.11168, pixel by pixel; the keywords make wrong variants."""
    z = layer.offset(x)
    (stride, _), (dilation, _), (padding, _) = layer.stride, layer.dilation, layer.padding
    inputs, outputs = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    y = torch.zeros(x.shape[0], layer.out_channels, *z.shape[2:], dtype=x.dtype)
    for n in range(y.shape[0]):
        for row in range(y.shape[2]):
            for column in range(y.shape[3]):
                taps = torch.zeros(layer.in_channels, 9, dtype=x.dtype)
                for k in range(9):
                    source = 0 if share_taps else k
                    down, right = (float(z[n, 2 * source + i, row, column]) for i in (0, 1))
                    if columns_first:
                        down, right = right, down
                    at_row = row * stride - padding + k // 3 * dilation + down
                    at_column = column * stride - padding + k % 3 * dilation + right
                    m = strength(float(z[n, 18 + k, row, column]))
                    for c in range(layer.in_channels):
                        taps[c, k] = m * read(x[n, c], at_row, at_column)
                for c in range(layer.out_channels):
                    group = c // outputs
                    weight = layer.weight[c].reshape(inputs, 9)
                    y[n, c, row, column] = (weight * taps[group * inputs : (group + 1) * inputs]).sum()
    return y


@torch.no_grad()
def bent(stride: int, dilation: int, groups: int) -> tuple[DeformableConv2d, Tensor]:
    """A layer whose offsets are of the order of a pixel and differ between taps and places."""
    conv = nn.Conv2d(4, 6, 3, stride, dilation, dilation, groups, bias=False).double()
    layer = DeformableConv2d(conv)
    layer.offset.weight.normal_(std=0.2)
    layer.offset.bias.normal_(std=0.7)
    return layer, structured_images(2, 4, (6, 5)).double()


@pytest.mark.parametrize("stride, dilation, groups", [(1, 1, 1), (2, 1, 2), (1, 2, 2)])
@torch.no_grad()
def test_bent_it_is_the_papers_equation(stride: int, dilation: int, groups: int) -> None:
    layer, x = bent(stride, dilation, groups)
    found = layer(x)
    assert_alive(found)
    assert peak_difference(found, naive(layer, x)) < 1e-12


@torch.no_grad()
def test_wrong_variants_are_rejected() -> None:
    layer, x = bent(1, 1, 1)
    found = layer(x)
    wrong = [
        naive(layer, x, columns_first=True),
        naive(layer, x, share_taps=True),
        naive(layer, x, strength=lambda z: 1 / (1 + math.exp(-z))),  # without the factor of 2
        naive(layer, x, strength=lambda z: 1.0),  # version 1 of the paper
        nn.functional.conv2d(x, layer.weight, padding=1),  # not deformed at all
    ]
    assert all(peak_difference(variant, found) > REJECTED for variant in wrong)


# ------------------------------------------------------------------------------------------------------ where it acts


def test_plan_numbers_the_stages_and_the_first_one_can_be_chosen() -> None:
    assert [[site.stage for site in stage] for stage in plan(get_spec(SMALL))] == [[1], [2, 2], [3], [4]]
    for first in (1, 2, 3, 4):
        backbone = with_transform(f"deform(conv3x3,first_stage={first})")
        deformed = [any(isinstance(m, DeformableConv2d) for m in stage.modules()) for stage in backbone.stages]
        assert deformed == [stage >= first for stage in (1, 2, 3, 4)]


def test_every_spatial_convolution_is_deformed_and_nothing_else() -> None:
    site = Site(cin=32, cout=32, dilation=2, stage=3, reduces=True, entry=True)
    for transform in (SelectiveKernel(branches=3), SplitAttention(radix=2), AvgDown(SplitAttention(radix=2))):
        plain, deformed = transform.build(site), Deform(transform).build(site)
        pairs = list(zip(plain.named_modules(), deformed.named_modules(), strict=False))
        assert pairs
        spatial = {name: m for name, m in plain.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)}
        found = {name: m for name, m in deformed.named_modules() if isinstance(m, DeformableConv2d)}
        assert found.keys() == spatial.keys()
        for name, conv in spatial.items():
            for key in ("in_channels", "out_channels", "stride", "padding", "dilation", "groups", "bias"):
                assert getattr(found[name], key) == getattr(conv, key), key
    twice = Deform(Deform(Conv3x3(), 3), 2).build(site)
    assert sum(isinstance(m, DeformableConv2d) for m in twice.modules()) == 1


def test_text_reads_back() -> None:
    assert get_spec("resnet50 transform=deform(split(2),3)").transform == Deform(SplitAttention(2), first_stage=3)
    assert str(get_spec("resnet50 transform=deform(conv3x3)")) == "resnet50 transform=deform(conv3x3)"
    with pytest.raises(UserError, match="first_stage of Deform must be a positive whole number"):
        get_spec("resnet50 transform=deform(conv3x3,0)")
    with pytest.raises(UserError, match="needs inner"):
        get_spec("resnet50 transform=deform")


# -------------------------------------------------------------------------------------------- number types, memory


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_trains_under_bfloat16(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    backbone = with_transform("deform(split(2))").to(memory_format=layout)
    images = structured_images(2, size=32).to(memory_format=layout)
    with torch.no_grad():
        backbone.eval()
        exact = backbone(images)[-1]
        with torch.autocast("cpu", torch.bfloat16):
            assert peak_difference(backbone(images)[-1].float(), exact) < 0.1
    with torch.autocast("cpu", torch.bfloat16):
        found = backbone.train()(images)[-1]
    found.float().square().mean().backward()
    grads = {name: p.grad for name, p in backbone.named_parameters()}
    assert all(grad is not None and torch.isfinite(grad).all() for grad in grads.values())
    assert any(grad.abs().max() > 0 for name, grad in grads.items() if ".offset." in name)


def test_a_network_of_bfloat16_runs() -> None:
    backbone = with_transform("deform(conv3x3)").eval()
    images = structured_images(1, size=32)
    with torch.no_grad():
        exact = backbone(images)[-1]
        assert peak_difference(copy.deepcopy(backbone).bfloat16()(images.bfloat16())[-1].float(), exact) < 0.1


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (17, 1)])
def test_tiny_images_and_a_batch_of_one(size: tuple[int, int]) -> None:
    backbone = with_transform("deform(avgdown(split(2)))")
    sum(m.mean() for m in backbone(torch.randn(1, 3, *size))).backward()
    assert all(torch.isfinite(p.grad).all() for p in backbone.parameters())


@pytest.mark.parametrize("kind", ["batch", "frozen", "group"])
def test_norms_convert_around_it(kind: str) -> None:
    backbone = with_transform("deform(split(2))")
    before = [m for m in backbone.modules() if isinstance(m, DeformableConv2d)]
    convert_norm(backbone, kind)
    assert [m for m in backbone.modules() if isinstance(m, DeformableConv2d)] == before
    assert all(torch.isfinite(m).all() for m in backbone(torch.randn(1, 3, 20, 20)))


# ---------------------------------------------------------------------------------------------- what the rest sees


def test_other_packages_weights_load_and_its_own_are_not_exported_to_them() -> None:
    plain, deformed = get_spec(SMALL.replace("conv3x3(16)", "conv7x7(16)")), None
    deformed = plain.but(transform=Deform(plain.transform))
    theirs = naming.from_resurge(Backbone(plain).state_dict(), plain, "torchvision")
    ours = {key.removeprefix("backbone."): v for key, v in naming.to_resurge(theirs, deformed, "torchvision").items()}
    report = Backbone(deformed).load_state_dict(ours, strict=False)
    assert not report.unexpected_keys
    assert all(".offset." in key for key in report.missing_keys)
    with pytest.raises(UserError, match=r"no name for .*offset"):
        naming.from_resurge(Backbone(deformed).state_dict(), deformed, "torchvision")


def test_cost_counts_the_offsets() -> None:
    plain, deformed = cost(SMALL, (32, 32)), cost(f"{SMALL} transform=deform(conv3x3,4)", (32, 32))
    offsets = 3 * 3 * 32 * 27
    assert deformed.total.parameters - plain.total.parameters == offsets + 27
    assert deformed.total.macs - plain.total.macs == offsets * 4 * 4  # stage 4 has stride 8
    assert deformed.receptive_field == plain.receptive_field


def test_diagrams_say_which_stages_are_deformed() -> None:
    def words(number: int) -> str:
        scene = Diagrams("resnet50 transform=deform(conv3x3,3)").blocks(number)
        return " ".join(shape.text for shape in scene.shapes if isinstance(shape, Text))

    assert "deformable" in words(3)
    assert "deformable" not in words(2)
    shown = [s.text for s in Diagrams("resnet50 transform=deform(conv3x3,3)").network().shapes if isinstance(s, Text)]
    assert shown.count("Deform of Conv3x3") == 2


def test_forms_refuse_it() -> None:
    block = with_transform("deform(conv3x3)").stages[1][1]
    with pytest.raises(UserError, match="got a DeformableConv2d"):
        to_separate(block)
