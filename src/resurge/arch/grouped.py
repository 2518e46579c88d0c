"""Grouped convolutions: in fewer groups, block-diagonal and dense, and back. New layers with copied weights."""

from __future__ import annotations

import torch
from torch import nn

from resurge.arch.slicing import conv_like
from resurge.errors import UserError


def to_dense(conv: nn.Conv2d) -> nn.Conv2d:
    """A grouped convolution as a dense one whose weight is block-diagonal over channels.

    g times the parameters, all the new ones zero; a depthwise convolution becomes a diagonal.
    """
    return merge_groups(conv, 1)


def merge_groups(conv: nn.Conv2d, groups: int) -> nn.Conv2d:
    """A grouped convolution in fewer groups: neighbouring ones become one, block-diagonal inside.

    Raises:
        UserError: its groups cannot be put together to `groups`.
    """
    if groups < 1 or conv.groups % groups:
        raise UserError(f"{conv.groups} groups cannot be put together to {groups}; expected a divisor.")
    rows = conv.out_channels // conv.groups
    columns = conv.in_channels // conv.groups
    merged = conv.groups // groups
    weight = conv.weight.new_zeros(conv.out_channels, conv.in_channels // groups, *conv.kernel_size)
    for k, block in enumerate(conv.weight.detach().chunk(conv.groups)):
        inner = k % merged
        weight[k * rows : (k + 1) * rows, inner * columns : (inner + 1) * columns] = block
    return conv_like(conv, weight, groups=groups, bias=conv.bias)


def to_groups(conv: nn.Conv2d, groups: int) -> nn.Conv2d:
    """A dense convolution with a block-diagonal weight as a grouped one.

    Raises:
        UserError: the channels cannot be divided into `groups`, or a weight off the diagonal is not zero.
    """
    if conv.groups != 1 or conv.out_channels % groups or conv.in_channels % groups:
        raise UserError(
            f"expected a dense convolution whose channels divide into {groups} groups, got {conv.in_channels} -> "
            f"{conv.out_channels} channels in {conv.groups} groups."
        )
    rows, columns = conv.out_channels // groups, conv.in_channels // groups
    weight = torch.cat([conv.weight[k * rows : (k + 1) * rows, k * columns : (k + 1) * columns] for k in range(groups)])
    grouped = conv_like(conv, weight, groups=groups, bias=conv.bias)
    rest = (to_dense(grouped).weight - conv.weight).abs().max().item()
    if rest > 0:
        raise UserError(
            f"this convolution is not {groups} groups: a weight of {rest:.3g} joins channels of different groups. "
            "Only a block-diagonal weight can be written in groups without changing the output."
        )
    return grouped
