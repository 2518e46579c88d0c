"""Equivalent forms of the family's layers, and the exact conversions between them.

Every function takes built layers and returns new ones with copied weights; nothing is changed in place. Two forms
give the same output up to the rounding of floating point. `docs/family.md` has the equation of each equality.

    to_separate, to_early, to_grouped           the three forms of a ResNeXt block
    to_cardinality_major, to_radix_major        the two orders of split attention's channels
    gate_as_attention, attention_as_gate        squeeze-and-excitation is split attention of radix 1
    selective_as_split, split_as_selective      selective kernels and split attention
    res2_as_chain                               Res2 as a row of ordinary convolutions

Grouped convolutions and their dense forms are in `resurge.arch.slicing`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from resurge.arch import slicing
from resurge.arch.blocks import Residual
from resurge.arch.gates import SqueezeExciteGate
from resurge.arch.layers import BatchNorm2d, BranchAttention, ConvNormAct
from resurge.arch.slicing import (
    conv_like,
    cut,
    expect,
    expect_all,
    expect_norm,
    expect_plain,
    join,
    permute_outputs,
    to_dense,
)
from resurge.arch.transforms import PooledTransform, Res2Conv, SelectiveKernelConv, SplitAttentionConv
from resurge.errors import UserError


def _rebuilt(block: Residual, *, reduce: nn.Module, transform: nn.Module, expand: nn.Module | None = None) -> Residual:
    """The block with other layers; the rest of it is copied."""
    gate, shortcut = copy.deepcopy(block.gate), copy.deepcopy(block.shortcut)
    expand = copy.deepcopy(block.expand) if expand is None else expand
    new = Residual(reduce=reduce, transform=transform, expand=expand, gate=gate, shortcut=shortcut)
    new.drop_path, new.act = copy.deepcopy(block.drop_path), copy.deepcopy(block.act)
    for module in new.modules():
        if next(module.children(), None) is not None:  # the leaves keep their own mode, a frozen norm for example
            module.training = block.training
    return new


# ------------------------------------------------------------------------------- the three forms of a ResNeXt block
# A branch is one of K paths: 1x1 to the width of one group, 3x3, and in form (a) a bare 1x1 back up.


class SeparateBranches(nn.Module):
    """Form (a), arXiv:1611.05431, figure 3a: norm(sum_k branch_k(x)). The norm stands behind the sum, once."""

    def __init__(self, branches: Sequence[nn.Sequential], norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(torch.stack([branch(x) for branch in self.branches]).sum(dim=0))
        return y


class EarlyConcatenation(nn.Module):
    """Form (b), arXiv:1611.05431, figure 3b: the branches' 3x3 outputs side by side, for one 1x1 behind them."""

    def __init__(self, branches: Sequence[nn.Sequential]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def to_early(block: Residual) -> Residual:
    """A ResNeXt block in any of its forms as form (b): K branches, concatenated, one expansion.

    Raises:
        UserError: not a bottleneck around one plain convolution, or not batch-normalised, or with DropBlock.
    """
    block = to_grouped(block)
    reduce, transform = expect_plain("reduce", block.reduce), expect_plain("transform", block.transform)
    groups = transform.conv.groups
    branches = [nn.Sequential(*pair) for pair in zip(cut(reduce, groups), cut(transform, groups), strict=True)]
    return _rebuilt(block, reduce=nn.Identity(), transform=EarlyConcatenation(branches))


def to_separate(block: Residual) -> Residual:
    """A ResNeXt block in any of its forms as form (a): K separate branches, summed.

    Raises:
        UserError: as `to_early`.
    """
    early = to_early(block)
    expand = expect_plain("expand", early.expand)
    branches = expect_all("branches", expect("transform", early.transform, EarlyConcatenation).branches, nn.Sequential)
    for branch, weight in zip(branches, expand.conv.weight.chunk(len(branches), dim=1), strict=True):
        branch.append(conv_like(expand.conv, weight, groups=1))
    summed = SeparateBranches(branches, expect_norm(expand.norm))
    return _rebuilt(early, reduce=nn.Identity(), transform=summed, expand=nn.Identity())


def to_grouped(block: Residual) -> Residual:
    """A ResNeXt block in any of its forms as form (c): 1x1, one grouped 3x3, 1x1. The form the networks are built in.

    Raises:
        UserError: as `to_early`.
    """
    if not isinstance(block.transform, SeparateBranches | EarlyConcatenation):
        for name in ("reduce", "transform", "expand"):
            expect_plain(f"{name} of a ResNeXt block", getattr(block, name))
        return copy.deepcopy(block)
    branches = expect_all("branches", block.transform.branches, nn.Sequential)
    reduce = join([expect("branch", branch[0], ConvNormAct) for branch in branches], groups=1)
    transform = join([expect("branch", branch[1], ConvNormAct) for branch in branches], groups=len(branches))
    if isinstance(block.transform, EarlyConcatenation):
        return _rebuilt(block, reduce=reduce, transform=transform)
    convs = [expect("branch", branch[2], nn.Conv2d) for branch in branches]
    weight = torch.cat([conv.weight for conv in convs], dim=1)
    expand = ConvNormAct(weight.shape[1], weight.shape[0], 1, act=False)
    expand.conv, expand.norm = conv_like(convs[0], weight, groups=1), copy.deepcopy(block.transform.norm)
    return _rebuilt(block, reduce=reduce, transform=transform, expand=expand)


# ---------------------------------------------------------------------- split attention, cardinality- and radix-major


def cardinality_order(channels: int, radix: int, groups: int) -> Tensor:
    """The index that puts radix-major channels, (R, K, C), into cardinality-major order, (K, R, C).

    Its `argsort` is the way back.
    """
    return torch.arange(channels).reshape(radix, groups, -1).transpose(0, 1).reshape(-1)


class CardinalSplitAttention(nn.Module):
    """Split attention as in figures 1 and 2 of arXiv:2004.08955: K groups one after the other, R splits inside each.

    Takes its input in cardinality-major order: run k * R + r belongs to split r of group k. A group by itself is
    selective kernels of one size, each on its part of the group's input.
    """

    def __init__(self, groups: Sequence[SelectiveKernelConv]) -> None:
        super().__init__()
        self.groups = nn.ModuleList(groups)

    def forward(self, x: Tensor) -> Tensor:
        runs = x.chunk(len(self.groups), dim=1)
        return torch.cat([group(run) for group, run in zip(self.groups, runs, strict=True)], dim=1)


def _attention(
    fc1: nn.Conv2d, norm: nn.Module, act: nn.Module, fc2: nn.Conv2d, branches: int, groups: int = 1
) -> BranchAttention:
    with torch.device("meta"):  # draws no random numbers
        attention = BranchAttention(fc1.in_channels, fc1.out_channels, branches, groups=groups)
    attention.fc1, attention.norm, attention.act, attention.fc2 = fc1, norm, copy.deepcopy(act), fc2
    return attention


def to_cardinality_major(block: Residual) -> Residual:
    """A bottleneck with split attention, rewritten as `CardinalSplitAttention`, group by group.

    The first 1x1 puts out its channels in cardinality-major order, so the block as a whole is unchanged. `AvgDown`
    around the split attention is kept.

    Raises:
        UserError: not a bottleneck with split attention, or not batch-normalised, or with DropBlock.
    """
    reduce, inner = expect_plain("reduce", block.reduce), expect("transform", _inner(block), SplitAttentionConv)
    attention = inner.attention
    radix, groups = attention.branches, attention.groups
    splits = cut(expect_plain("split", inner.split), radix * groups)
    parts = zip(
        slicing.cut_conv(attention.fc1, groups),
        slicing.cut_norm(attention.norm, groups),
        slicing.cut_conv(attention.fc2, groups),
        strict=True,
    )
    cardinal = [
        SelectiveKernelConv(splits[k::groups], _attention(fc1, norm, attention.act, fc2, radix), split_input=True)
        for k, (fc1, norm, fc2) in enumerate(parts)
    ]
    order = cardinality_order(inner.split.conv.in_channels, radix, groups)
    return _with_inner(block, permute_outputs(reduce, order), CardinalSplitAttention(cardinal).train(inner.training))


def to_radix_major(block: Residual) -> Residual:
    """`to_cardinality_major` undone: one convolution for all splits, the form the networks are built in.

    Raises:
        UserError: the block does not hold a `CardinalSplitAttention`.
    """
    reduce, naive = expect_plain("reduce", block.reduce), expect("transform", _inner(block), CardinalSplitAttention)
    parts = expect_all("groups", naive.groups, SelectiveKernelConv)
    splits = [expect_all("splits", part.branches, ConvNormAct) for part in parts]
    groups, radix = len(parts), len(splits[0])
    split = join([splits[k][r] for r in range(radix) for k in range(groups)], groups=radix * groups)
    attentions = [part.attention for part in parts]
    attention = _attention(
        slicing.join_convs([each.fc1 for each in attentions], groups),
        slicing.join_norms([each.norm for each in attentions]),
        attentions[0].act,
        slicing.join_convs([each.fc2 for each in attentions], groups),
        radix,
        groups,
    )
    order = cardinality_order(split.conv.in_channels, radix, groups).argsort()
    radix_major = SplitAttentionConv(split, attention).train(naive.training)
    return _with_inner(block, permute_outputs(reduce, order), radix_major)


def _inner(block: Residual) -> nn.Module:
    return block.transform.inner if isinstance(block.transform, PooledTransform) else block.transform


def _with_inner(block: Residual, reduce: nn.Module, inner: nn.Module) -> Residual:
    old = block.transform
    if isinstance(old, PooledTransform):
        inner = PooledTransform(inner, copy.deepcopy(old.pool), old.before).train(old.training)
    return _rebuilt(block, reduce=reduce, transform=inner)


# ----------------------------------------------------------------------------------------- attention of radix 1 and 2


def gate_as_attention(gate: SqueezeExciteGate) -> BranchAttention:
    """Squeeze-and-excitation as attention over one branch, with a norm that is the identity in evaluation.

    `fuse([x], attention(pool(x)))` is `gate(x)`.
    """
    fc1, fc2 = copy.deepcopy(gate.fc1), copy.deepcopy(gate.fc2)
    like = BatchNorm2d(fc1.out_channels, pooled=True).to(fc1.weight.device, fc1.weight.dtype)
    norm = slicing.norm_like(like, slicing.neutral_state(like, fc1.out_channels))
    return _attention(fc1, norm, gate.act, fc2, 1).train(gate.training)


def attention_as_gate(attention: BranchAttention) -> SqueezeExciteGate:
    """Attention of radix 1 as squeeze-and-excitation; equal in evaluation, because the norm is folded into fc1.

    Raises:
        UserError: the radix is not 1, or the norm is not a batch normalisation.
    """
    if attention.branches != 1:
        raise UserError(f"only attention of radix 1 is squeeze-and-excitation; got radix {attention.branches}.")
    fc1, fc2 = to_dense(attention.fc1), to_dense(attention.fc2)
    norm = expect_norm(attention.norm)
    state = norm.state_dict()
    scale = state["weight"] / (state["running_var"] + norm.eps).sqrt()
    shift = (0 if fc1.bias is None else fc1.bias) - state["running_mean"]
    gate = SqueezeExciteGate(fc1.in_channels, fc1.out_channels)
    gate.fc1 = conv_like(fc1, fc1.weight * scale[:, None, None, None], groups=1, bias=shift * scale + state["bias"])
    gate.fc2, gate.act = fc2, copy.deepcopy(attention.act)
    return gate.train(attention.training)


def selective_as_split(selective: SelectiveKernelConv) -> SplitAttentionConv:
    """Selective kernels as split attention whose splits have one large kernel.

    R dilated 3x3 kernels become one convolution of kernel 2R + 1, zero where a dilated kernel skips: dense if the
    branches share their input, in R groups if each has its own.
    """
    branches = [expect_plain("branch", branch) for branch in selective.branches]
    steps = [branch.conv.dilation[0] for branch in branches]
    base = math.gcd(*steps)
    reach = max(steps) // base
    weights = [
        slicing.spread(to_dense(b.conv).weight, step // base, reach) for b, step in zip(branches, steps, strict=True)
    ]
    groups = len(branches) if selective.split_input else 1
    conv = conv_like(branches[0].conv, torch.cat(weights), groups=groups, dilation=base)
    split = slicing.with_parts(branches[0], conv, slicing.join_norms([branch.norm for branch in branches]))
    return SplitAttentionConv(split, copy.deepcopy(selective.attention)).train(selective.training)


def split_as_selective(split: SplitAttentionConv) -> SelectiveKernelConv:
    """Split attention as selective kernels of one size, each on its own part of the input, K groups in each."""
    branches = cut(expect_plain("split", split.split), split.attention.branches)
    return SelectiveKernelConv(branches, copy.deepcopy(split.attention), split_input=True).train(split.training)


# ---------------------------------------------------------------------------------------------------------- Res2


def res2_as_chain(res2: Res2Conv) -> nn.Sequential:
    """Res2 as ordinary dense convolutions in a row, each on all channels; equal in evaluation, for inputs >= 0.

    Step i replaces piece i by conv_i(piece i + piece i-1) and copies the others; a ReLU leaves a copy alone because
    what comes in has passed one. In the first block of a stage all pieces are independent, so one step does it.
    """
    convs = [expect_plain("conv", conv) for conv in res2.convs]
    like, first = convs[0].conv, expect_norm(convs[0].norm)
    reach, piece = like.dilation[0], like.out_channels
    channels = piece * res2.scale
    runs = [slice(i * piece, (i + 1) * piece) for i in range(res2.scale)]
    steps: list[nn.Module] = [copy.deepcopy(res2.adapt)]
    for step in [[i] for i in range(len(convs))] if res2.carries else [list(range(len(convs)))]:
        weight = like.weight.detach().new_zeros(channels, channels, 2 * reach + 1, 2 * reach + 1)
        every = torch.arange(channels)
        if res2.carries:
            weight[every, every, reach, reach] = 1
        else:
            weight[every, every, reach - 1 : reach + 2, reach - 1 : reach + 2] = 1 / 9  # the pool over the last piece
        state = slicing.neutral_state(first, channels)
        for i in step:
            kernel = slicing.spread(to_dense(convs[i].conv).weight, reach, reach)
            weight[runs[i]] = 0
            weight[runs[i], runs[i]] = kernel
            if res2.carries and i:
                weight[runs[i], runs[i - 1]] = kernel
            own = expect_norm(convs[i].norm).state_dict()
            for key in slicing.PER_CHANNEL:
                state[key][runs[i]] = own[key]
        steps.append(
            slicing.with_parts(convs[0], conv_like(like, weight, groups=1, dilation=1), slicing.norm_like(first, state))
        )
    return nn.Sequential(*steps).train(res2.training)
