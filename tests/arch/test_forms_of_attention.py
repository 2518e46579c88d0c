"""The equivalent forms of gates, attention and Res2, compared in the same way as those of `test_forms`."""

from __future__ import annotations

import copy

import pytest
import torch
from forms_alive import SPLIT, alive, assert_equal, assert_rejected
from torch import Tensor, nn

from resurge.arch.forms import (
    attention_as_gate,
    gate_as_attention,
    res2_as_chain,
    selective_as_split,
    split_as_selective,
    to_dense,
)
from resurge.arch.gates import SqueezeExciteGate
from resurge.arch.layers import fuse, global_pool
from resurge.arch.transforms import Res2Conv, SelectiveKernelConv, SplitAttentionConv
from resurge.errors import UserError

# ----------------------------------------------------------------------------------------- attention of radix 1 and 2


def test_squeeze_and_excitation_is_split_attention_of_radix_1():
    for gate, x in alive("seresnet50 depths=(2,1) planes=(32,64)", SqueezeExciteGate):
        attention = gate_as_attention(gate)
        assert attention.branches == 1
        assert_equal(lambda x, attention=attention: fuse([x], attention(global_pool(x))), gate, x)
        assert_equal(attention_as_gate(attention), gate, x)
        assert_rejected(lambda x: x, gate, x)  # a softmax over one branch is always 1


@pytest.mark.parametrize("text", ["resnest50_fast_1s1x64d depths=(1,1) planes=(32,64)", SPLIT[1]])
def test_split_attention_of_radix_1_is_a_convolution_with_squeeze_and_excitation(text):
    for module, x in alive(text, SplitAttentionConv):
        gate = attention_as_gate(module.attention)
        assert_equal(lambda x, module=module, gate=gate: gate(module.split(x)), module, x)
        unfolded = copy.deepcopy(gate)
        unfolded.fc1 = to_dense(module.attention.fc1)  # without its norm
        assert_rejected(lambda x, module=module, gate=unfolded: gate(module.split(x)), module, x)


def test_attention_over_several_branches_is_no_gate():
    module, _ = alive(SPLIT[0], SplitAttentionConv)[0]
    with pytest.raises(UserError, match="radix 2"):
        attention_as_gate(module.attention)


def test_radix_2_is_a_sigmoid_of_the_difference():
    for module, x in alive(SPLIT[2].replace("4s2x40d", "2s2x40d"), SplitAttentionConv):
        attention = module.attention

        def interpolated(x: Tensor, sign: int = 1, module=module, attention=attention) -> Tensor:
            first, second = module.split(x).chunk(2, dim=1)
            hidden = attention.act(attention.norm(attention.fc1(global_pool(first) + global_pool(second))))
            z = attention.fc2(hidden).unflatten(1, (attention.groups, 2, -1))
            a = (sign * (z[:, :, 0] - z[:, :, 1])).sigmoid().flatten(1, 2)
            return second + a * (first - second)

        assert_equal(interpolated, module, x)
        assert_rejected(lambda x, interpolated=interpolated: interpolated(x, sign=-1), module, x)


SELECTIVE = [
    ("skresnext50_32x4d depths=(2,1) planes=(32,64) groups=8", 32),
    ("skresnet50 depths=(1,2) planes=(32,64)", 32),
    ("skresnet18 depths=(1,1) planes=(32,64)", 32),
    ("skresnet50 depths=(1,1,1) planes=(32,32,32) transform=sk(branches=3)", 8),
]


@pytest.mark.parametrize("text, output_stride", SELECTIVE)
def test_selective_kernels_are_split_attention_with_large_kernels(text, output_stride):
    for module, x in alive(text, SelectiveKernelConv, output_stride):
        split = selective_as_split(module)
        assert isinstance(split, SplitAttentionConv)
        assert split.split.conv.kernel_size == (2 * len(module.branches) + 1,) * 2
        assert split.split.conv.groups == (len(module.branches) if module.split_input else 1)
        assert_equal(split, module, x)


@pytest.mark.parametrize("text", SPLIT[:3])
def test_split_attention_is_selective_kernels_of_one_size(text):
    for module, x in alive(text, SplitAttentionConv):
        assert_equal(split_as_selective(module), module, x)


def test_wrong_selective_kernels_are_rejected():
    module, x = alive(SELECTIVE[0][0], SelectiveKernelConv)[0]
    swapped = copy.deepcopy(module)
    swapped.branches = nn.ModuleList(list(swapped.branches)[::-1])
    assert_rejected(selective_as_split(swapped), module, x)

    undilated = copy.deepcopy(module)
    conv = undilated.branches[1].conv
    conv.dilation, conv.padding = (1, 1), (1, 1)
    assert_rejected(selective_as_split(undilated), module, x)

    split, x = alive(SPLIT[2], SplitAttentionConv)[1]
    turned = split_as_selective(split)
    turned.branches = nn.ModuleList([*turned.branches[1:], turned.branches[0]])
    assert_rejected(turned, split, x)


# ---------------------------------------------------------------------------------------------------------- Res2

RES2 = [
    ("res2net50_26w_4s depths=(2,2) planes=(64,128)", 32),
    ("res2net50_14w_8s depths=(2,1) planes=(64,128)", 32),
    ("res2next50 depths=(2,2) planes=(64,128)", 32),
    ("res2net50_48w_2s depths=(2,1) planes=(64,128)", 32),
    ("resnet50 depths=(2,2,2) planes=(16,32,32) transform=res2(scale=4)", 8),
    ("resnet18 depths=(2,2) planes=(16,32) transform=res2(scale=4)", 32),
]


def equation_1(module: Res2Conv, x: Tensor) -> Tensor:
    """arXiv:1904.01169, equation 1, read literally: y_1 = x_1, y_2 = K_2(x_2), y_i = K_i(x_i + y_(i-1)).

    The piece that passes is the paper's first and the authors' code's last, so the pieces are turned by one, there
    and back. In the first block of a stage no y_(i-1) is added and the passing piece is averaged.
    """
    scale = module.scale
    pieces = module.adapt(x).chunk(scale, dim=1)
    pieces = (pieces[-1], *pieces[:-1])
    y: list[Tensor] = []
    for i in range(1, scale + 1):
        x_i = pieces[i - 1]
        if i == 1:
            y.append(x_i if module.carries else module.pool(x_i))
        elif i == 2 or not module.carries:
            y.append(module.convs[i - 2](x_i))
        else:
            y.append(module.convs[i - 2](x_i + y[-1]))
    return torch.cat([*y[1:], y[0]], dim=1)


@pytest.mark.parametrize("text, output_stride", RES2)
def test_res2_is_equation_1_and_a_chain_of_convolutions(text, output_stride):
    for module, x in alive(text, Res2Conv, output_stride):
        assert_equal(lambda x, module=module: equation_1(module, x), module, x)
        chain = res2_as_chain(module)
        assert len(chain) == 1 + (module.scale - 1 if module.carries else 1)
        assert_equal(chain, module, x)


def test_wrong_chains_of_res2_are_rejected():
    (entry, entry_x), (later, x) = alive(RES2[0][0], Res2Conv, 32)[:2]
    assert not entry.carries
    assert later.carries

    no_carry = copy.deepcopy(later)
    no_carry.carries = False
    assert_rejected(no_carry, later, x)

    unturned = copy.deepcopy(later)  # the paper's order on the authors' weights: the first piece passes
    assert_rejected(lambda x: unturned(x.roll(26, 1)), later, x)

    out_of_order = res2_as_chain(later)
    assert_rejected(nn.Sequential(*[out_of_order[i] for i in (0, 2, 1, 3)]), later, x)

    carrying = copy.deepcopy(entry)
    carrying.carries = True
    assert_rejected(carrying, entry, entry_x)
