"""What is left over goes: layers that do nothing in evaluation."""

from __future__ import annotations

from torch import nn
from torchvision.ops import DropBlock2d, StochasticDepth

from resurge.arch.layers import ConvNormAct
from resurge.arch.shortcuts import PooledProjection
from resurge.optimize.passes.walking import replace_each

IDLE = (nn.modules.dropout._DropoutNd, StochasticDepth, DropBlock2d)


def tidy(model: nn.Module) -> nn.Module:
    """Dropout, drop path and DropBlock become identities; a convolution with its activation becomes a plain row, of
    layers that do something; rows in rows become one."""
    model = replace_each(model, IDLE, lambda module: nn.Identity())
    model = replace_each(model, ConvNormAct, _row)
    return replace_each(model, nn.Sequential, _flat)


def _row(layer: nn.Module) -> nn.Module:
    assert isinstance(layer, ConvNormAct)
    parts = [layer.conv, layer.norm, layer.drop, layer.act]
    return row([layer.pool, *parts] if isinstance(layer, PooledProjection) else parts)


def row(layers: list[nn.Module]) -> nn.Module:
    """The layers one after the other, without identities."""
    active = [layer for layer in layers if not isinstance(layer, nn.Identity)]
    return active[0] if len(active) == 1 else nn.Sequential(*active) if active else nn.Identity()


def _flat(module: nn.Module) -> nn.Module:
    # A subclass may do more than call its children one after the other, and others may index into a plain one.
    return module if type(module) is not nn.Sequential or not _has_rows(module) else nn.Sequential(*_leaves(module))


def _has_rows(module: nn.Sequential) -> bool:
    return any(type(child) is nn.Sequential for child in module)


def _leaves(module: nn.Sequential) -> list[nn.Module]:
    found: list[nn.Module] = []
    for child in module:
        found += list(child) if type(child) is nn.Sequential else [child]
    return found
