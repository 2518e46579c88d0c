"""Axis `transform`: the spatial layer of a block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from resurge.arch.contracts import Site, Transform
from resurge.arch.layers import BranchAttention, ConvNormAct, fuse, global_pool, round_channels
from resurge.errors import UserError


def _divide(what: str, channels: int, parts: int) -> int:
    if channels % parts:
        raise UserError(
            f"{what}: {channels} channels cannot be divided into {parts} equal parts; "
            f"choose planes, groups or base_width so that the width is a multiple of {parts}."
        )
    return channels // parts


@dataclass(frozen=True)
class Conv3x3:
    """A 3x3 convolution: dense, in `groups` groups (ResNeXt, arXiv:1611.05431, figure 3c), or depthwise."""

    depthwise: bool = False

    def build(self, site: Site) -> nn.Module:
        groups = math.gcd(site.cin, site.cout) if self.depthwise else site.groups
        _divide("transform=conv3x3", site.cin, groups)
        _divide("transform=conv3x3", site.cout, groups)
        return ConvNormAct(site.cin, site.cout, 3, stride=site.stride, dilation=site.dilation, groups=groups)


@dataclass(frozen=True)
class Res2:
    """Scales inside a block (Res2Net, arXiv:1904.01169, equation 1).

    The channels are cut into `scale` pieces x_i: y_i = conv(x_i + y_{i-1}), the last piece passes as it is. In the
    first block of a stage there is no carry-over and the last piece is averaged 3x3, as in the authors' code. The
    paper's "26w 4s" is `base_width=26 * 4` with `scale=4`.
    """

    scale: int

    def build(self, site: Site) -> nn.Module:
        return Res2Conv(site, self.scale)


@dataclass(frozen=True)
class SelectiveKernel:
    """Branches with 3x3 kernels of growing dilation, mixed channel by channel (SKNet, arXiv:1903.06586, section 3.1).

    Branch i has dilation i + 1, the extent of a (2i + 3)-kernel. Their attention has channels / reduction units,
    rounded to a multiple of `divisor`. `split_input` gives each branch its own part of the channels, which keeps
    an ungrouped network from growing.
    """

    branches: int = 2
    reduction: int = 16
    divisor: int = 32
    split_input: bool = False

    def __post_init__(self) -> None:
        if self.branches > 64:
            raise UserError(f"SelectiveKernel: at most 64 branches, the last sees 129 pixels; got {self.branches}.")

    def build(self, site: Site) -> nn.Module:
        cin = _divide("transform=sk", site.cin, self.branches) if self.split_input else site.cin
        _divide("transform=sk", cin, site.groups)
        _divide("transform=sk", site.cout, site.groups)
        hidden = round_channels(site.cout / self.reduction, self.divisor, keep=0.9)
        branches = [
            ConvNormAct(cin, site.cout, 3, stride=site.stride, dilation=site.dilation * (i + 1), groups=site.groups)
            for i in range(self.branches)
        ]
        attention = BranchAttention(site.cout, hidden, self.branches, bias=False)
        return SelectiveKernelConv(branches, attention, self.split_input)


@dataclass(frozen=True)
class SplitAttention:
    """R splits of every cardinal group, weighted against each other (ResNeSt, arXiv:2004.08955, section 3.1).

    One convolution in G = K * R groups computes all splits radix-major: split r is the r-th run of C channels. The
    attention has max(32, C * R / reduction) units.
    """

    radix: int
    reduction: int = 4

    def build(self, site: Site) -> nn.Module:
        groups = site.groups * self.radix
        _divide("transform=split", site.cin, groups)
        _divide("transform=split", site.cout, site.groups)
        hidden = max(32, site.cout * self.radix // self.reduction)
        hidden = math.ceil(hidden / site.groups) * site.groups
        split = ConvNormAct(
            site.cin, site.cout * self.radix, 3, stride=site.stride, dilation=site.dilation, groups=groups
        )
        return SplitAttentionConv(split, BranchAttention(site.cout, hidden, self.radix, groups=site.groups))


@dataclass(frozen=True)
class AvgDown:
    """Gives the stride of `inner` to a 3x3 average pool behind it, or before it.

    arXiv:2004.08955, section 3.2. The pool stays, with stride 1, where a dilated network trades the stride, as in
    the authors' code.
    """

    inner: Transform
    before: bool = False

    def build(self, site: Site) -> nn.Module:
        inner = self.inner.build(replace(site, stride=1, reduces=False))
        if not site.reduces:
            return PooledTransform(inner, nn.Identity(), self.before)
        return PooledTransform(inner, nn.AvgPool2d(3, site.stride, padding=1), self.before)


class PooledTransform(nn.Module):
    """`inner` with a pool on one side."""

    def __init__(self, inner: nn.Module, pool: nn.Module, before: bool) -> None:
        super().__init__()
        self.inner, self.pool, self.before = inner, pool, before

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(self.pool(x)) if self.before else self.pool(self.inner(x))
        return y


class Res2Conv(nn.Module):
    """(N, cin, H, W) -> (N, cout, H/stride, W/stride); see `Res2`."""

    def __init__(self, site: Site, scale: int) -> None:
        super().__init__()
        piece = _divide("transform=res2", site.cout, scale)
        _divide("transform=res2", piece, site.groups)
        self.scale = scale
        self.carries = not site.entry
        # The pieces that are added to each other need one width; a block without its own reduction gets a 1x1 here.
        self.adapt: nn.Module = nn.Identity() if site.cin == site.cout else ConvNormAct(site.cin, site.cout, 1)
        self.convs = nn.ModuleList(
            ConvNormAct(piece, piece, 3, stride=site.stride, dilation=site.dilation, groups=site.groups)
            for _ in range(max(1, scale - 1))
        )
        self.pool: nn.Module = nn.AvgPool2d(3, site.stride, padding=1) if site.entry else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return res2(self.adapt(x).chunk(self.scale, dim=1), self.convs, self.pool, self.carries)


def res2(pieces: Sequence[Tensor], convs: nn.ModuleList, pool: nn.Module, carries: bool) -> Tensor:
    """The pieces through their convolutions, each with the output before it where it `carries`, joined again."""
    outputs: list[Tensor] = []
    for i, conv in enumerate(convs):
        outputs.append(conv(pieces[i] + outputs[-1] if carries and i else pieces[i]))
    if len(pieces) > len(outputs):
        outputs.append(pool(pieces[-1]))
    return torch.cat(outputs, dim=1)


class SelectiveKernelConv(nn.Module):
    """(N, cin, H, W) -> (N, cout, H/stride, W/stride); see `SelectiveKernel`."""

    def __init__(self, branches: list[ConvNormAct], attention: BranchAttention, split_input: bool) -> None:
        super().__init__()
        self.branches, self.attention, self.split_input = nn.ModuleList(branches), attention, split_input

    def forward(self, x: Tensor) -> Tensor:
        inputs = x.chunk(len(self.branches), dim=1) if self.split_input else [x] * len(self.branches)
        maps = [branch(part) for branch, part in zip(self.branches, inputs, strict=True)]
        # pool(sum) == sum(pool), and adding pooled maps costs nothing
        pooled = torch.stack([global_pool(u) for u in maps]).sum(dim=0)
        return fuse(maps, self.attention(pooled))


class SplitAttentionConv(nn.Module):
    """(N, cin, H, W) -> (N, cout, H/stride, W/stride); see `SplitAttention`."""

    def __init__(self, split: ConvNormAct, attention: BranchAttention) -> None:
        super().__init__()
        self.split, self.attention = split, attention

    def forward(self, x: Tensor) -> Tensor:
        u = self.split(x)
        radix = self.attention.branches
        pooled = torch.stack(global_pool(u).chunk(radix, dim=1)).sum(dim=0)
        return fuse(u.chunk(radix, dim=1), self.attention(pooled))
