"""Receptive fields: counted from kernels and strides, and measured from gradients.

The count follows arXiv:1603.07285, section 5 (relationships of convolution arithmetic applied layer by layer):
a layer with kernel k, dilation d and stride s turns a field f with step j into f + (k - 1)·d·j with step j·s.
Where paths meet, the larger field counts. Gates and attention see the whole map by their global mean; both the
count and the measurement leave that path out, because with it every field is the whole image. A deformable convolution
counts with its taps where they are before training.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from resurge.arch.backbone import Backbone
from resurge.arch.blocks import Residual
from resurge.arch.deformable import OffsetConv2d
from resurge.arch.gates import SqueezeExciteGate
from resurge.arch.layers import BranchAttention, ConvNormAct
from resurge.arch.shortcuts import HalvingPool, PooledProjection, ZeroPadShortcut
from resurge.arch.transforms import PooledTransform, Res2Conv, SelectiveKernelConv, SplitAttentionConv
from resurge.errors import UserError


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


# ------------------------------------------------------------------------------------------------- from gradients


class _EqualWeights(nn.Module):
    """What stands for attention while gradients are measured: all branches alike, whatever the input."""

    def __init__(self, branches: int) -> None:
        super().__init__()
        self.branches = branches

    def forward(self, pooled: Tensor) -> Tensor:
        n, c = pooled.shape[:2]
        return pooled.new_full((n, self.branches, c, 1, 1), 1.0 / self.branches)


def positive_copy(module: nn.Module) -> nn.Module:
    """A copy in float64 in which nothing cancels and nothing saturates: its gradients show every path there is.

    Convolutions average with equal positive weights, norms and dropout are identities, attention is constant and
    gates are open; max pools average. With a non-negative input every ReLU then passes everything.
    """
    twin = copy.deepcopy(module).double().eval()
    _make_positive(twin)
    return twin


def _make_positive(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, BranchAttention):
            setattr(module, name, _EqualWeights(child.branches))
        elif isinstance(child, nn.modules.batchnorm._NormBase | nn.GroupNorm | SqueezeExciteGate) or name in (
            "norm",
            "drop",
            "drop_path",
        ):
            setattr(module, name, nn.Identity())
        elif isinstance(child, nn.MaxPool2d):
            # A maximum passes one pixel of its window on; the mean passes all that it could have been.
            setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
        else:
            _make_positive(child)
    if isinstance(module, OffsetConv2d):
        module.reset_parameters()
    elif isinstance(module, nn.Conv2d):
        with torch.no_grad():
            module.weight.fill_(1.0 / module.weight[0].numel())
            if module.bias is not None:
                module.bias.zero_()


def sensitivity(
    module: nn.Module, in_channels: int, size: int, *, channels: slice = slice(None), output: int | None = None
) -> Tensor:
    """How much the middle of the output depends on every input pixel: (size, size), float64, largest value 1.

    Args:
        module: maps (1, in_channels, size, size) to (1, C, h, w); `output` names the map when it returns several.
        channels: which output channels are asked.

    The gradient of the sum of the asked channels at the middle pixel, through `positive_copy(module)`.
    """
    twin = positive_copy(module)
    image = torch.ones(1, in_channels, size, size, dtype=torch.float64, requires_grad=True)
    # A module may work in place on what it is given, which a leaf does not allow.
    y = twin(image * 1.0)
    result: Tensor = y if output is None else y[output]
    middle = result[0, channels, result.shape[2] // 2, result.shape[3] // 2].sum()
    (gradient,) = torch.autograd.grad(middle, image)
    seen = gradient[0].abs().sum(dim=0)
    peak = seen.max()
    return seen / peak if peak > 0 else seen


def measured_field(
    module: nn.Module, in_channels: int, size: int, *, channels: slice = slice(None), output: int | None = None
) -> tuple[int, int]:
    """Height and width of the input window that the middle output pixel depends on; see `sensitivity`.

    Raises:
        UserError: the window reaches the border, so that `size` hides how large it is.
    """
    seen = sensitivity(module, in_channels, size, channels=channels, output=output) > 0
    rows, columns = seen.any(dim=1).nonzero().flatten(), seen.any(dim=0).nonzero().flatten()
    if len(rows) == 0:
        return 0, 0
    edges = (int(rows[0]), int(columns[0]), size - 1 - int(rows[-1]), size - 1 - int(columns[-1]))
    if min(edges) == 0:
        raise UserError(f"the receptive field is not smaller than the input of {size} pixels. Give a larger size.")
    return int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1


def branch_fields(
    transform: nn.Module, in_channels: int, out_channels: int, branches: int, size: int = 65
) -> list[int]:
    """The measured field of each of the `branches` equal runs of output channels of a transform.

    For a later block of Res2Net with scale 4 this is [3, 5, 7, 1]: the first convolution sees 3 pixels, each further
    one adds two by the carry, and the last piece passes as it is (arXiv:1904.01169, section 3.1).

    Raises:
        UserError: the channels cannot be divided, or `size` is too small.
    """
    if branches < 1 or out_channels % branches:
        raise UserError(f"{out_channels} channels cannot be divided into {branches} equal branches.")
    run = out_channels // branches
    return [
        max(measured_field(transform, in_channels, size, channels=slice(i * run, (i + 1) * run)))
        for i in range(branches)
    ]
