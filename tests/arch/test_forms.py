"""The equivalent forms: equal outputs on weights that are alive, exact ways back, wrong variants that are noticed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache

import pytest
import torch
from alive import assert_alive, enliven, peak_difference, structured_images
from torch import Tensor, nn

from resurge.arch.backbone import Backbone
from resurge.arch.blocks import Residual
from resurge.arch.forms import (
    CardinalSplitAttention,
    EarlyConcatenation,
    SeparateBranches,
    attention_as_gate,
    gate_as_attention,
    res2_as_chain,
    selective_as_split,
    split_as_selective,
    to_cardinality_major,
    to_dense,
    to_early,
    to_grouped,
    to_groups,
    to_radix_major,
    to_separate,
)
from resurge.arch.gates import SqueezeExciteGate
from resurge.arch.layers import fuse, global_pool
from resurge.arch.surgery import convert_norm, set_drop_block
from resurge.arch.transforms import Res2Conv, SelectiveKernelConv, SplitAttentionConv
from resurge.arch.zoo import get_spec
from resurge.errors import UserError

TOLERANCE = 1e-5  # of the peak of the output
REJECTED = 1e-2  # what a wrong variant has to be off by
IMAGES = 6


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@lru_cache(maxsize=4)
@torch.no_grad()
def _alive(text: str, output_stride: int, kind: type[nn.Module]) -> list[tuple[nn.Module, Tensor]]:
    backbone = Backbone(get_spec(text), output_stride=output_stride)
    images = structured_images(IMAGES, size=32 if backbone.spec.stem.stride == 1 else 64)
    enliven(backbone, images)
    found: list[tuple[nn.Module, Tensor]] = []
    handles = [
        module.register_forward_pre_hook(lambda module, args: found.append((module, args[0].clone())))
        for module in backbone.modules()
        if isinstance(module, kind)
    ]
    backbone(images)
    for handle in handles:
        handle.remove()
    assert found
    return found


def alive(text: str, kind: type[nn.Module] = Residual, output_stride: int = 32) -> list[tuple[nn.Module, Tensor]]:
    """Every module of a kind in a calibrated network, copied, with what enters it when the network sees images."""
    return [(copy.deepcopy(module), x.clone()) for module, x in _alive(text, output_stride, kind)]


def assert_equal(form: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        expected = module(x.clone())
        assert_alive(expected)
        assert peak_difference(form(x.clone()), expected) < TOLERANCE


def assert_rejected(wrong: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        assert peak_difference(wrong(x.clone()), module(x.clone())) > REJECTED


def assert_same_state(a: nn.Module, b: nn.Module) -> None:
    ours, theirs = a.state_dict(), b.state_dict()
    assert list(ours) == list(theirs)
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key


def assert_own_weights(form: nn.Module, module: nn.Module) -> None:
    ours, theirs = ({tensor.data_ptr() for tensor in m.state_dict().values()} for m in (form, module))
    assert not ours & theirs, "a form shares memory with what it was made from"
    assert not any(part.training for part in form.modules() if not isinstance(part, nn.Identity))


def one_step(block: nn.Module, x: Tensor) -> None:
    """A step of gradient descent in training mode, so that gradients and batch statistics are compared too."""
    block.train()
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    block(x.clone()).square().mean().backward()
    optimizer.step()


def assert_close_state(a: nn.Module, b: nn.Module, before: nn.Module) -> None:
    """`a` and `b` ended alike, and somewhere else than `before`."""
    ours, theirs, old = a.state_dict(), b.state_dict(), before.state_dict()
    assert list(ours) == list(theirs)
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], rtol=1e-9, atol=1e-12, msg=key)
        # a bias in front of a norm has no gradient in training
        assert key.endswith("fc1.bias") or not torch.equal(value, old[key]), key


# ------------------------------------------------------------------------------- grouped and block-diagonal dense


@pytest.mark.parametrize("groups", [1, 2, 8, 16])
@pytest.mark.parametrize("kernel, stride, dilation", [(1, 1, 1), (3, 2, 1), (3, 1, 2)])
def test_a_grouped_convolution_is_a_block_diagonal_dense_one(groups, kernel, stride, dilation):
    conv = nn.Conv2d(16, 32, kernel, stride, dilation * (kernel - 1) // 2, dilation, groups)
    x = structured_images(4, 16, 12)
    dense = to_dense(conv)
    assert dense.groups == 1
    assert dense.weight.numel() == groups * conv.weight.numel() == kernel * kernel * 16 * 32
    assert torch.count_nonzero(dense.weight) == conv.weight.numel()
    assert_equal(dense, conv, x)
    assert_same_state(to_groups(dense, groups), conv)


def test_a_depthwise_convolution_has_as_many_groups_as_channels():
    depthwise, x = alive("resnet50 depths=(2,1) planes=(64,128) transform=conv3x3(depthwise=true)")[1]
    grouped, _ = alive("resnet50 depths=(2,1) planes=(64,128) groups=64 base_width=1")[1]
    grouped.load_state_dict(depthwise.state_dict())
    assert_equal(grouped, depthwise, x)
    weight = to_dense(depthwise.transform.conv).weight
    assert torch.equal(weight.sum((2, 3)).count_nonzero(dim=1), torch.ones(64, dtype=torch.long))


def test_a_dense_convolution_that_joins_groups_is_refused():
    dense = to_dense(nn.Conv2d(16, 16, 3, padding=1, groups=4))
    with torch.no_grad():
        dense.weight[0, 15, 1, 1] = 0.25
    with pytest.raises(UserError, match=r"not 4 groups: a weight of 0\.25 joins"):
        to_groups(dense, 4)
    with pytest.raises(UserError, match="divide into 3 groups"):
        to_groups(dense, 3)


def test_interleaved_groups_are_rejected():
    conv, x = nn.Conv2d(16, 16, 3, padding=1, groups=4), structured_images(4, 16, 12)
    interleaved = torch.arange(16).reshape(4, 4).T.reshape(-1)
    wrong = to_dense(conv)
    with torch.no_grad():
        wrong.weight.copy_(wrong.weight[:, interleaved])
    assert_rejected(wrong, conv, x)


# ------------------------------------------------------------------------------- the three forms of a ResNeXt block

RESNEXT = [
    "resnext50_32x4d depths=(1,2) planes=(64,128)",
    "resnext50_32x4d depths=(1,1) planes=(32,64) gate=se",
    "resnext50_32x4d depths=(1,1) planes=(32,64) block=bottleneck(stride_in=reduce) stem=deep(32) shortcut=avg",
    "resnext50_32x4d depths=(1,1) planes=(32,64) block=bottleneck(reduce_first=2) shortcut=proj(kernel=3)",
    "resnext29_8x64d_cifar depths=(2,1) planes=(8,16)",
    "resnet50 depths=(1,1) planes=(8,16) transform=conv3x3(depthwise=true)",
    "resnet50 depths=(1,1) planes=(16,32)",
]


@pytest.mark.parametrize("text", RESNEXT)
def test_the_three_forms_of_a_resnext_block_are_equal(text):
    for block, x in alive(text):
        early, separate = to_early(block), to_separate(block)
        assert isinstance(early.transform, EarlyConcatenation)
        assert isinstance(separate.transform, SeparateBranches)
        assert len(separate.transform.branches) == block.transform.conv.groups
        for form in (early, separate):
            assert_equal(form, block, x)
            assert_own_weights(form, block)
            # a form is only another arrangement of the same numbers
            assert sum(p.numel() for p in form.parameters()) == sum(p.numel() for p in block.parameters())
            assert_same_state(to_grouped(form), block)
        assert_same_state(to_early(separate), early)
        assert_same_state(to_separate(early), separate)


@pytest.mark.parametrize("form", [to_early, to_separate])
def test_the_forms_of_a_resnext_block_train_alike(form):
    block, x = alive("resnext50_32x4d depths=(1,1) planes=(16,32) groups=4 base_width=16 gate=se")[1]
    block, x = block.double(), x.double()
    other, before = form(block), copy.deepcopy(block)
    one_step(block, x)
    one_step(other, x)
    assert_close_state(to_grouped(other), block, before)


def test_wrong_forms_of_a_resnext_block_are_rejected():
    block, x = alive(RESNEXT[0])[2]
    groups = block.transform.conv.groups

    swapped = to_separate(block)
    first, second = swapped.transform.branches[0], swapped.transform.branches[1]
    first.expand, second.expand = second.expand, first.expand
    assert_rejected(swapped, block, x)

    no_offset = to_separate(block)
    for branch in no_offset.transform.branches:  # every branch reads the channels of group 0
        branch.reduce = no_offset.transform.branches[0].reduce
    assert_rejected(no_offset, block, x)

    class NormPerBranch(SeparateBranches):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.norm(branch(x)) for branch in self.branches]).sum(dim=0)

    early_norm = to_separate(block)
    early_norm.transform = NormPerBranch(list(early_norm.transform.branches), early_norm.transform.norm)
    assert_rejected(early_norm.eval(), block, x)

    reversed_order = to_early(block)
    reversed_order.transform.branches = nn.ModuleList(list(reversed_order.transform.branches)[::-1])
    assert_rejected(reversed_order, block, x)

    shuffled = copy.deepcopy(block)  # the 3x3's groups in another order than the 1x1's
    conv = shuffled.transform.conv
    with torch.no_grad():
        conv.weight.copy_(conv.weight.roll(conv.out_channels // groups, 0))
    assert_rejected(shuffled, block, x)


@pytest.mark.parametrize(
    "text, change, message",
    [
        ("resnet18 depths=(1,) planes=(16,)", None, "reduce of a ResNeXt block: expected a ConvNormAct"),
        ("resnest14 depths=(1,) planes=(16,)", None, "transform of a ResNeXt block: expected a ConvNormAct"),
        (RESNEXT[4], lambda model: convert_norm(model, "group"), "got GroupNorm; convert_norm"),
        (RESNEXT[4], lambda model: set_drop_block(model, 0.1), "set_drop_block"),
    ],
)
def test_what_has_no_resnext_form_is_refused(text, change, message):
    backbone = Backbone(get_spec(text))
    if change:
        change(backbone)
    with pytest.raises(UserError, match=message):
        to_separate(backbone.stages[-1][-1])


# ---------------------------------------------------------------------- split attention, cardinality- and radix-major

SPLIT = [
    "resnest50 depths=(2,1) planes=(32,64)",
    "resnest50_fast_1s4x24d depths=(1,1) planes=(64,128)",
    "resnest50_fast_4s2x40d depths=(2,1) planes=(64,128)",
    "resnet50 depths=(1,1) planes=(32,64) groups=3 base_width=64 transform=split(radix=2) gate=se",
]


@pytest.mark.parametrize("text", SPLIT)
def test_cardinality_major_and_radix_major_split_attention_are_equal(text):
    for block, x in alive(text):
        naive = to_cardinality_major(block)
        naive_layer = next(module for module in naive.modules() if isinstance(module, CardinalSplitAttention))
        assert all(group.norm.pooled for group in naive_layer.groups)
        assert_equal(naive, block, x)
        assert_own_weights(naive, block)
        assert sum(p.numel() for p in naive.parameters()) == sum(p.numel() for p in block.parameters())
        assert_same_state(to_radix_major(naive), block)


def test_the_orders_of_split_attention_train_alike():
    block, x = alive(SPLIT[2])[1]
    block, x = block.double(), x.double()
    naive, before = to_cardinality_major(block), copy.deepcopy(block)
    one_step(block, x)
    one_step(naive, x)
    assert_close_state(to_radix_major(naive), block, before)


def test_wrong_orders_of_split_attention_are_rejected():
    block, x = alive(SPLIT[2])[1]

    unpermuted = to_cardinality_major(block)  # reads the radix-major channels as if they were cardinality-major
    unpermuted.reduce = block.reduce
    assert_rejected(unpermuted, block, x)

    mixed_up = to_cardinality_major(block)  # the attention of split r weighs split R - 1 - r
    for group in mixed_up.transform.inner.groups:
        group.fc2 = nn.ModuleList(list(group.fc2)[::-1])
    assert_rejected(mixed_up, block, x)

    exchanged = to_cardinality_major(block)
    groups = exchanged.transform.inner.groups
    groups[0].splits[0], groups[1].splits[0] = groups[1].splits[0], groups[0].splits[0]
    assert_rejected(exchanged, block, x)


def test_without_cardinality_or_without_radix_the_two_orders_are_one():
    for text in (SPLIT[0], SPLIT[1]):
        block, _ = alive(text)[0]
        assert torch.equal(to_cardinality_major(block).reduce.conv.weight, block.reduce.conv.weight)


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
