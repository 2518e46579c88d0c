"""Layers with the norm folded in, cut by their outputs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from resurge.arch.layers import ConvNormAct
from resurge.arch.slicing import conv_like
from resurge.optimize.passes.tidying import row


def is_plain(layer: ConvNormAct) -> bool:
    """Convolution and activation, the norm folded, so that it can be cut by its outputs."""
    return type(layer.conv) is nn.Conv2d and isinstance(layer.norm, nn.Identity) and isinstance(layer.drop, nn.Identity)


def by_outputs(layer: ConvNormAct, parts: int) -> list[nn.Module]:
    """The layer as `parts` layers, by runs of its outputs: each on its run of inputs if it is grouped, else on all."""
    conv = layer.conv
    groups = conv.groups // parts if conv.groups > 1 else 1
    biases: Sequence[Tensor | None] = [None] * parts if conv.bias is None else conv.bias.chunk(parts)
    weights = conv.weight.chunk(parts)
    cut = [conv_like(conv, w, groups=groups, bias=b) for w, b in zip(weights, biases, strict=True)]
    return [row([each, layer.act]) for each in cut]
