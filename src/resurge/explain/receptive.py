"""Receptive fields, counted from kernels and strides.

The count follows arXiv:1603.07285, section 5 (relationships of convolution arithmetic applied layer by layer):
a layer with kernel k, dilation d and stride s turns a field f with step j into f + (k - 1)·d·j with step j·s.
Where paths meet, the larger field counts. Gates and attention see the whole map by their global mean; the
count leaves that path out, because with it every field is the whole image. A deformable convolution
counts with its taps where they are before training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from resurge.arch.backbone import Backbone
from resurge.arch.blocks import Residual
from resurge.arch.gates import SqueezeExciteGate
from resurge.arch.layers import BranchAttention, ConvNormAct
from resurge.arch.shortcuts import HalvingPool, PooledProjection, ZeroPadShortcut
from resurge.arch.transforms import PooledTransform, Res2Conv, SelectiveKernelConv, SplitAttentionConv


@dataclass(frozen=True)
class Field:
    """Side of the square of input pixels that one output pixel sees, and the step between neighbours, in pixels."""

    size: int = 1
    step: int = 1

    def through(self, kernel: int, stride: int = 1, dilation: int = 1) -> Field:
        """The field behind a layer with a window."""
        return Field(self.size + (kernel - 1) * dilation * self.step, self.step * stride)


def receptive_field(module: nn.Module, field: Field = Field()) -> Field:
    """The field behind `module` when `field` stands before it.

    A module class without a rule of its own counts as its children one after the other, which is an upper bound.
    """
    for kind in type(module).__mro__:
        if kind in RULES:
            return RULES[kind](module, field)
    return _chain(module.children(), field)


def receptive_fields(backbone: Backbone) -> list[Field]:
    """The field behind the stem and behind every stage."""
    fields = [receptive_field(backbone.stem)]
    for stage in backbone.stages:
        fields.append(receptive_field(stage, fields[-1]))
    return fields


def _chain(modules: Iterable[nn.Module], field: Field) -> Field:
    for module in modules:
        field = receptive_field(module, field)
    return field


def _widest(fields: Iterable[Field]) -> Field:
    return max(fields, key=lambda field: (field.size, field.step))


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)


def _window(module: Any, field: Field) -> Field:
    dilation = getattr(module, "dilation", 1)
    return field.through(_first(module.kernel_size), _first(module.stride), _first(dilation))


def _residual(module: Any, field: Field) -> Field:
    trunk = _chain((module.reduce, module.transform, module.expand), field)
    return _widest((trunk, receptive_field(module.shortcut, field)))


def _res2(module: Any, field: Field) -> Field:
    field = receptive_field(module.adapt, field)
    seen = [receptive_field(module.convs[0], field)]
    for conv in list(module.convs)[1:]:
        # The carry comes from behind the convolution before, so its step is that of the output; it is only carried
        # where the stride is 1.
        seen.append(receptive_field(conv, _widest((field, seen[-1])) if module.carries else field))
    return _widest((*seen, receptive_field(module.pool, field)))


def _same(module: Any, field: Field) -> Field:
    return field


RULES: dict[type[nn.Module], Callable[[Any, Field], Field]] = {
    nn.Identity: _same,
    nn.Conv2d: _window,
    nn.MaxPool2d: _window,
    nn.AvgPool2d: _window,
    Residual: _residual,
    HalvingPool: lambda m, field: field.through(2, 2),
    ConvNormAct: lambda m, field: receptive_field(m.conv, field),
    PooledProjection: lambda m, field: _chain((m.pool, m.conv), field),
    ZeroPadShortcut: lambda m, field: field.through(1, m.stride),
    PooledTransform: lambda m, field: _chain((m.pool, m.inner) if m.before else (m.inner, m.pool), field),
    SplitAttentionConv: lambda m, field: receptive_field(m.split, field),
    SelectiveKernelConv: lambda m, field: _widest(receptive_field(branch, field) for branch in m.branches),
    Res2Conv: _res2,
    SqueezeExciteGate: _same,
    BranchAttention: _same,
}
