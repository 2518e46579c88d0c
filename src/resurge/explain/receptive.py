"""Receptive fields, counted from kernels and strides.

The count follows arXiv:1603.07285, section 5 (relationships of convolution arithmetic applied layer by layer):
a layer with kernel k, dilation d and stride s turns a field f with step j into f + (k - 1)·d·j with step j·s.
Where paths meet, the larger field counts. Gates and attention see the whole map by their global mean; the
count leaves that path out, because with it every field is the whole image. A deformable convolution
counts with its taps where they are before training.
"""

from __future__ import annotations

from functools import reduce, singledispatch
from typing import NamedTuple

from torch import nn

from resurge.arch.backbone import Backbone
from resurge.arch.blocks import Residual
from resurge.arch.gates import SqueezeExciteGate
from resurge.arch.layers import BranchAttention, ConvNormAct
from resurge.arch.shortcuts import HalvingPool, PooledProjection, ZeroPadShortcut
from resurge.arch.transforms import PooledTransform, Res2Conv, SelectiveKernelConv, SplitAttentionConv


class Field(NamedTuple):
    """Side of the square of input pixels that one output pixel sees, and the step between neighbours, in pixels."""

    size: int = 1
    step: int = 1

    def through(self, kernel: int, stride: int = 1, dilation: int = 1) -> Field:
        """The field behind a layer with a window."""
        return Field(self.size + (kernel - 1) * dilation * self.step, self.step * stride)


@singledispatch
def receptive_field(module: nn.Module, field: Field = Field()) -> Field:
    """The field behind `module` when `field` stands before it.

    A module class without a rule of its own counts as its children one after the other, which is an upper bound.
    """
    return _chain(field, *module.children())


def receptive_fields(backbone: Backbone) -> list[Field]:
    """The field behind the stem and behind every stage."""
    fields = [receptive_field(backbone.stem)]
    for stage in backbone.stages:
        fields.append(receptive_field(stage, fields[-1]))
    return fields


def _chain(field: Field, *modules: nn.Module) -> Field:
    return reduce(lambda before, module: receptive_field(module, before), modules, field)


def _first(value: int | tuple[int, ...]) -> int:
    return value if isinstance(value, int) else value[0]


@receptive_field.register(nn.Conv2d)
@receptive_field.register(nn.MaxPool2d)
@receptive_field.register(nn.AvgPool2d)
def _(module: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d, field: Field = Field()) -> Field:
    dilation = 1 if isinstance(module, nn.AvgPool2d) else module.dilation
    return field.through(_first(module.kernel_size), _first(module.stride), _first(dilation))


@receptive_field.register(nn.Identity)
@receptive_field.register(SqueezeExciteGate)
@receptive_field.register(BranchAttention)
def _(module: nn.Module, field: Field = Field()) -> Field:
    return field


@receptive_field.register
def _(module: Residual, field: Field = Field()) -> Field:
    trunk = _chain(field, module.reduce, module.transform, module.expand)
    return max(trunk, receptive_field(module.shortcut, field))


@receptive_field.register
def _(module: Res2Conv, field: Field = Field()) -> Field:
    field = receptive_field(module.adapt, field)
    seen = [receptive_field(module.convs[0], field)]
    for conv in list(module.convs)[1:]:
        # The carry comes from behind the convolution before, so its step is that of the output; it is only carried
        # where the stride is 1.
        seen.append(receptive_field(conv, max(field, seen[-1]) if module.carries else field))
    return max(*seen, receptive_field(module.pool, field))


receptive_field.register(HalvingPool, lambda m, field=Field(): field.through(2, 2))
receptive_field.register(ConvNormAct, lambda m, field=Field(): receptive_field(m.conv, field))
receptive_field.register(PooledProjection, lambda m, field=Field(): _chain(field, m.pool, m.conv))
receptive_field.register(ZeroPadShortcut, lambda m, field=Field(): field.through(1, m.stride))
receptive_field.register(SplitAttentionConv, lambda m, field=Field(): receptive_field(m.split, field))
receptive_field.register(
    PooledTransform,
    lambda m, field=Field(): _chain(field, *((m.pool, m.inner) if m.before else (m.inner, m.pool))),
)
receptive_field.register(
    SelectiveKernelConv, lambda m, field=Field(): max(receptive_field(branch, field) for branch in m.branches)
)
