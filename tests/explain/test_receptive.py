"""Receptive fields: known figures, and counting against gradients."""

from __future__ import annotations

import pytest
import torch
from measured_fields import branch_fields, measured_field, sensitivity
from torch import nn

from resurge.arch.backbone import Backbone
from resurge.arch.contracts import Site
from resurge.arch.transforms import Conv3x3, Res2, SelectiveKernel, SplitAttention
from resurge.arch.zoo import get_spec
from resurge.errors import UserError
from resurge.explain.receptive import Field, receptive_field, receptive_fields


@pytest.mark.parametrize(
    "name, size",
    # ResNet-50 with the stride in the first 1x1 ("v1"): 483, Araujo et al., Computing receptive fields, Distill 2019.
    # With the stride in the 3x3, and for ResNet-18, by the same recurrence by hand: 427 and 435.
    [("resnet50a", 483), ("resnet50", 427), ("resnet18", 435)],
)
def test_known_figures(name: str, size: int) -> None:
    with torch.device("meta"):
        backbone = Backbone(get_spec(name))
    fields = receptive_fields(backbone)
    assert fields[-1].size == size
    assert [field.step for field in fields[1:]] == list(backbone.strides)


@pytest.mark.parametrize(
    "text",
    [
        "resnet18",
        "resnet18d",
        "resnet18 transform=res2(4)",
        "resnet18 transform=sk(split_input=true) gate=se",
        "resnet18 transform=avgdown(split(radix=2))",
        "resnet18 transform=avgdown(split(radix=1),before=true) shortcut=avg",
        "resnet18 transform=deform(split(radix=2),first_stage=1)",
        "resnet18 block=bottleneck(stride_in=reduce)",
        "resnet18 stem=conv3x3(8) shortcut=zeropad",
    ],
)
def test_counted_fields_are_those_of_the_gradients(text: str) -> None:
    spec = get_spec(text).but(depths=(2, 2), planes=(8, 16))
    backbone = Backbone(spec)
    counted = [field.size for field in receptive_fields(backbone)[1:]]
    size = counted[-1] + 64
    assert [max(measured_field(backbone, 3, size, output=i)) for i in range(2)] == counted


@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilated_networks(output_stride: int) -> None:
    backbone = Backbone(get_spec("resnet18").but(depths=(1, 1, 1), planes=(8, 8, 8)), output_stride=output_stride)
    counted = receptive_fields(backbone)[-1].size
    assert max(measured_field(backbone, 3, counted + 48, output=2)) == counted


@pytest.mark.parametrize("scale, expected", [(2, [3, 1]), (4, [3, 5, 7, 1]), (8, [3, 5, 7, 9, 11, 13, 15, 1])])
def test_res2net_branches_grow_by_two(scale: int, expected: list[int]) -> None:
    """arXiv:1904.01169, section 3.1: each carry adds a 3x3."""
    later = Res2(scale).build(Site(cin=16, cout=16))
    assert branch_fields(later, 16, 16, scale) == expected
    assert receptive_field(later).size == max(expected)


def test_res2net_branches_of_an_entry_block_do_not_carry() -> None:
    entry = Res2(4).build(Site(cin=16, cout=16, entry=True, stride=2, reduces=True))
    assert branch_fields(entry, 16, 16, 4) == [3, 3, 3, 3]
    assert receptive_field(entry) == Field(3, 2)


def test_transforms_of_the_papers() -> None:
    site = Site(cin=16, cout=16)
    assert receptive_field(Conv3x3().build(site)).size == 3
    assert receptive_field(SplitAttention(radix=2).build(site)).size == 3
    # dilation 2: the extent of a 5x5 (arXiv:1903.06586, section 3.1)
    assert receptive_field(SelectiveKernel(branches=2).build(site)).size == 5


def test_sensitivity_is_a_normalised_map() -> None:
    seen = sensitivity(nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)), 2, 11)
    assert seen.shape == (11, 11)
    assert float(seen.max()) == float(seen[5, 5]) == 1.0
    assert int((seen > 0).sum()) == 25


def test_measuring_leaves_the_module_alone() -> None:
    backbone = Backbone(get_spec("resnet18").but(depths=(1,), planes=(8,)))
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    measured_field(backbone, 3, 97, output=0)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert next(backbone.parameters()).dtype == torch.float32


def test_an_input_that_hides_the_field_is_refused() -> None:
    with pytest.raises(UserError, match="larger size"):
        measured_field(nn.Conv2d(1, 1, 7, padding=3), 1, 5)


def test_branches_that_do_not_divide() -> None:
    with pytest.raises(UserError, match="divided"):
        branch_fields(nn.Conv2d(4, 6, 3, padding=1), 4, 6, 4)
