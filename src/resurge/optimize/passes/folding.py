"""Batch normalisation as part of the layer before it.

In evaluation a batch normalisation is y = (x - mean) * g + beta with g = gamma / sqrt(var + eps), and behind a
convolution or linear layer x = W z + b that is the layer (g W) z + (b - mean) g + beta.
"""

from __future__ import annotations

from itertools import pairwise

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
        if _fold(module.conv, module.norm):
            module.norm = nn.Identity()
    elif isinstance(module, BranchAttention):
        if _fold(module.fc1, module.norm):
            module.norm = nn.Identity()
    elif isinstance(module, nn.Sequential):
        for name, following in pairwise(list(module._modules)):
            if _fold(module._modules[name], module._modules[following]):
                module._modules[following] = nn.Identity()
    return module


def _fold(layer: nn.Module | None, norm: nn.Module | None) -> bool:
    """Make `layer` compute what `layer` and then `norm` compute in evaluation, in double precision; False where they
    are not a layer and a norm with running statistics."""
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
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.double()
