"""Grouped convolutions in coarser groups.

A convolution in g groups is one in h groups, h a divisor of g, whose weights are block-diagonal inside each. The
coarser form multiplies by zeros, g / h times as many products; but groups of a few channels leave most of a vector unit
idle, and then it is the faster one. Which it is depends on the machine and the runtime, so it is measured: see
`resurge.optimize.autotune`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from resurge.arch.grouped import merge_groups
from resurge.optimize.passes.walking import replace_each

WIDEST = 64
"""Channels of a group beyond which coarser groups are not tried: no vector unit is that wide."""


def group_counts(conv: nn.Conv2d) -> tuple[int, ...]:
    """The numbers of groups worth trying for a convolution, its own first."""
    if type(conv) is not nn.Conv2d or conv.groups == 1:
        return (conv.groups,)
    widths = [(count, conv.in_channels // count) for count in range(conv.groups - 1, 0, -1) if conv.groups % count == 0]
    return (conv.groups, *(count for count, width in widths if width <= WIDEST))


def groups_of(width: int, model: nn.Module) -> nn.Module:
    """Every grouped convolution in the finest groups of at least `width` channels; depthwise ones stay as they are.

    Depthwise convolutions have kernels of their own in every runtime.
    """

    def pick(conv: nn.Conv2d) -> int:
        if conv.groups == conv.in_channels:
            return conv.groups
        finer = (n for n in range(conv.groups, 1, -1) if conv.groups % n == 0)
        return next((n for n in finer if min(conv.in_channels, conv.out_channels) // n >= width), 1)

    return regroup(model, pick)


def regroup(model: nn.Module, pick: Callable[[nn.Conv2d], int]) -> nn.Module:
    """Every grouped convolution in as many groups as `pick` says."""

    def build(conv: nn.Module) -> nn.Module:
        if type(conv) is not nn.Conv2d or conv.groups == 1:
            return conv
        count = pick(conv)
        return conv if count == conv.groups else merge_groups(conv, count).requires_grad_(False)

    return replace_each(model, nn.Conv2d, build)
