"""How a pass finds its layers, and the passes on single layers: folded norms, coarser groups, tidying."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from itertools import pairwise
from typing import TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torchvision.ops import DropBlock2d, FrozenBatchNorm2d, StochasticDepth

from resurge.arch.layers import BranchAttention, ConvNormAct
from resurge.arch.shortcuts import PooledProjection
from resurge.arch.slicing import cut_conv, merge_groups
from resurge.arch.surgery import replace_each

M = TypeVar("M", bound=nn.Module)

IDLE = (nn.modules.dropout._DropoutNd, StochasticDepth, DropBlock2d)  # in evaluation
NORMS = (nn.modules.batchnorm._BatchNorm, FrozenBatchNorm2d)
WIDEST = 64  # channels of a group beyond which coarser groups are not tried: no vector unit is that wide


def on_each(kind: type[M]) -> Callable[[Callable[[M], nn.Module]], Callable[[nn.Module], nn.Module]]:
    """Make a pass over a model of a function that rewrites one module; see `replace_each`."""

    def decorate(build: Callable[[M], nn.Module]) -> Callable[[nn.Module], nn.Module]:
        return wraps(build)(lambda model: replace_each(model, kind, build))

    return decorate


def row(layers: list[nn.Module]) -> nn.Module:
    """The layers one after the other, without identities."""
    active = [layer for layer in layers if not isinstance(layer, nn.Identity)]
    return active[0] if len(active) == 1 else nn.Sequential(*active) if active else nn.Identity()


def is_plain(layer: nn.Module) -> TypeGuard[ConvNormAct]:
    """Convolution and activation, the norm folded, so that it can be cut by its outputs."""
    return (
        isinstance(layer, ConvNormAct)
        and type(layer.conv) is nn.Conv2d
        and isinstance(layer.norm, nn.Identity)
        and isinstance(layer.drop, nn.Identity)
    )


def by_outputs(layer: ConvNormAct, parts: int) -> list[nn.Module]:
    """A plain layer as `parts` layers, by runs of its outputs: each on its run of inputs if grouped, else on all."""
    return [row([conv, layer.act]) for conv in cut_conv(layer.conv, parts)]


# --------------------------------------------------------------------------------------------------------------- norms


def fold_norms(model: nn.Module) -> nn.Module:
    """Every batch normalisation, frozen and synchronised ones too, becomes part of the layer that it directly follows.

    In evaluation it is y = (x - mean) g + beta with g = gamma / sqrt(var + eps), and behind a convolution or linear
    layer x = W z + b that is the layer (g W) z + (b - mean) g + beta. A group normalisation stays, one without running
    statistics, one behind a sum.
    """
    return replace_each(model, (ConvNormAct, BranchAttention, nn.Sequential), _folded)


def _folded(module: nn.Module) -> nn.Module:
    children = module._modules
    pairs = [("fc1" if isinstance(module, BranchAttention) else "conv", "norm")]
    for layer, norm in pairwise(children) if isinstance(module, nn.Sequential) else pairs:
        if _fold(children[layer], children[norm]):
            children[norm] = nn.Identity()
    return module


def _fold(layer: nn.Module | None, norm: nn.Module | None) -> bool:
    """Make `layer` compute what both compute in evaluation, in double precision; False where that cannot be."""
    if not isinstance(layer, nn.Conv2d | nn.Linear) or not isinstance(norm, NORMS) or norm.running_mean is None:
        return False
    scale, shift = scale_and_shift(norm)
    bias = torch.zeros_like(shift) if layer.bias is None else layer.bias.double()
    weight = layer.weight.double() * scale.reshape(-1, *[1] * (layer.weight.dim() - 1))
    layer.weight = nn.Parameter(weight.to(layer.weight.dtype), requires_grad=False)
    layer.bias = nn.Parameter((bias * scale + shift).to(layer.weight.dtype), requires_grad=False)
    return True


def scale_and_shift(norm: nn.modules.batchnorm._BatchNorm) -> tuple[Tensor, Tensor]:
    """float64 (C,), (C,): what a batch normalisation multiplies by and then adds, in evaluation."""
    assert norm.running_mean is not None and norm.running_var is not None  # noqa: PT018 - for the type checker
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.double()


# -------------------------------------------------------------------------------------------------------------- groups
# A convolution in g groups is one in h groups, h a divisor of g, whose weights are block-diagonal inside each. It has
# g / h times as many products, most with zero, but groups of a few channels leave most of a vector unit idle.


def group_counts(conv: nn.Conv2d) -> tuple[int, ...]:
    """The numbers of groups worth trying for a convolution, its own first."""
    if type(conv) is not nn.Conv2d:
        return (conv.groups,)
    fewer = (count for count in range(conv.groups - 1, 0, -1) if conv.groups % count == 0)
    return (conv.groups, *(count for count in fewer if conv.in_channels // count <= WIDEST))


def groups_of(width: int, model: nn.Module) -> nn.Module:
    """Every grouped convolution in the finest groups of at least `width` channels.

    Depthwise convolutions stay as they are: they have kernels of their own in every runtime.
    """

    def pick(conv: nn.Conv2d) -> int:
        if conv.groups == conv.in_channels:
            return conv.groups
        finer = (n for n in range(conv.groups, 1, -1) if conv.groups % n == 0)
        return next((n for n in finer if min(conv.in_channels, conv.out_channels) // n >= width), 1)

    return regroup(model, pick)


def regroup(model: nn.Module, pick: Callable[[nn.Conv2d], int]) -> nn.Module:
    """Every grouped convolution in as many groups as `pick` says."""

    def build(conv: nn.Conv2d) -> nn.Module:
        if type(conv) is not nn.Conv2d or conv.groups == 1 or (count := pick(conv)) == conv.groups:
            return conv
        return merge_groups(conv, count).requires_grad_(False)

    return replace_each(model, nn.Conv2d, build)


# ------------------------------------------------------------------------------------------------------------- tidying


def tidy(model: nn.Module) -> nn.Module:
    """Dropout, drop path and DropBlock become identities; a convolution with its activation becomes a plain row, of
    layers that do something; rows in rows become one."""
    model = replace_each(model, IDLE, lambda module: nn.Identity())
    return replace_each(replace_each(model, ConvNormAct, _row), nn.Sequential, _flat)


def _row(layer: ConvNormAct) -> nn.Module:
    pool = [layer.pool] if isinstance(layer, PooledProjection) else []
    return row([*pool, layer.conv, layer.norm, layer.drop, layer.act])


def _flat(module: nn.Sequential) -> nn.Module:
    # a subclass may do more than call its children one after the other, and others may index into a plain one
    if type(module) is not nn.Sequential or not any(type(child) is nn.Sequential for child in module):
        return module
    return nn.Sequential(*(leaf for child in module for leaf in (child if type(child) is nn.Sequential else [child])))
