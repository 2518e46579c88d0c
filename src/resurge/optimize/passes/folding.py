"""Batch normalisation as part of the layer before it.

In evaluation a batch normalisation is y = (x - mean) * g + beta with g = gamma / sqrt(var + eps), and behind a
convolution or linear layer x = W z + b that is the layer (g W) z + (b - mean) g + beta.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from resurge.arch.layers import BranchAttention, ConvNormAct
from resurge.optimize.passes.walking import replace_each

NORMS = (nn.modules.batchnorm._BatchNorm, FrozenBatchNorm2d)


def fold_norms(model: nn.Module) -> nn.Module:
    """Every batch normalisation, frozen and synchronised ones too, that directly follows a convolution or linear layer.

    Others stay: a group normalisation, one without running statistics, one behind a sum.
    """
    return replace_each(model, (ConvNormAct, BranchAttention, nn.Sequential), _folded)


def _folded(module: nn.Module) -> nn.Module:
    if isinstance(module, ConvNormAct):
        if _can_fold(module.conv, module.norm):
            fold(module.conv, module.norm)
            module.norm = nn.Identity()
    elif isinstance(module, BranchAttention):
        if _can_fold(module.fc1, module.norm):
            fold(module.fc1, module.norm)
            module.norm = nn.Identity()
    elif isinstance(module, nn.Sequential):
        names = list(module._modules)
        for name, following in pairwise(names):
            layer, norm = module._modules[name], module._modules[following]
            if layer is not None and norm is not None and _can_fold(layer, norm):
                fold(layer, norm)
                module._modules[following] = nn.Identity()
    return module


def _can_fold(layer: nn.Module, norm: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d | nn.Linear) and isinstance(norm, NORMS) and norm.running_mean is not None


def fold(layer: Any, norm: Any) -> None:
    """Make `layer` compute what `layer` and then `norm` compute in evaluation, reckoned in double precision."""
    scale, shift = scale_and_shift(norm)
    bias = torch.zeros_like(shift) if layer.bias is None else layer.bias.double()
    weight = layer.weight.double() * scale.reshape(-1, *[1] * (layer.weight.dim() - 1))
    layer.weight = nn.Parameter(weight.to(layer.weight.dtype), requires_grad=False)
    layer.bias = nn.Parameter((bias * scale + shift).to(layer.weight.dtype), requires_grad=False)


def scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """float64 (C,), (C,): what a batch normalisation multiplies by and then adds, in evaluation."""
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.double()
