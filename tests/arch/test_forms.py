"""The equivalent forms: equal outputs on weights that are alive, exact ways back, wrong variants that are noticed."""

from __future__ import annotations

import copy

import pytest
import torch
from alive import structured_images
from forms_alive import SPLIT, alive, assert_equal, assert_own_weights, assert_rejected, assert_same_state
from torch import Tensor, nn

from resurge.arch.backbone import Backbone
from resurge.arch.forms import (
    CardinalSplitAttention,
    EarlyConcatenation,
    SeparateBranches,
    to_cardinality_major,
    to_early,
    to_grouped,
    to_radix_major,
    to_separate,
)
from resurge.arch.slicing import to_dense, to_groups
from resurge.arch.surgery import convert_norm, set_drop_block
from resurge.arch.zoo import get_spec
from resurge.errors import UserError


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
    first[2], second[2] = second[2], first[2]
    assert_rejected(swapped, block, x)

    no_offset = to_separate(block)
    for branch in no_offset.transform.branches:  # every branch reads the channels of group 0
        branch[0] = no_offset.transform.branches[0][0]
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


@pytest.mark.parametrize("text", SPLIT)
def test_cardinality_major_and_radix_major_split_attention_are_equal(text):
    for block, x in alive(text):
        naive = to_cardinality_major(block)
        naive_layer = next(module for module in naive.modules() if isinstance(module, CardinalSplitAttention))
        assert all(group.attention.norm.pooled for group in naive_layer.groups)
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
        for tensor in group.attention.fc2.parameters():
            tensor.data = tensor.data.unflatten(0, (4, -1)).flip(0).flatten(0, 1)
    assert_rejected(mixed_up, block, x)

    exchanged = to_cardinality_major(block)
    groups = exchanged.transform.inner.groups
    first, second = groups[0].branches, groups[1].branches
    first[0], second[0] = second[0], first[0]
    assert_rejected(exchanged, block, x)


def test_without_cardinality_or_without_radix_the_two_orders_are_one():
    for text in (SPLIT[0], SPLIT[1]):
        block, _ = alive(text)[0]
        assert torch.equal(to_cardinality_major(block).reduce.conv.weight, block.reduce.conv.weight)
