"""Squeeze-and-excitation on the narrow map before the expansion.

A mean over space commutes with a 1x1 convolution, so behind one, y = W t + b, only the mean of its input is needed:
fc1(pool(y)) = (fc1 W) pool(t) + fc1(b).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from resurge.arch.blocks import Residual
from resurge.arch.gates import SqueezeExciteGate
from resurge.arch.layers import ConvNormAct, global_pool
from resurge.arch.slicing import conv_like
from resurge.optimize.passes.cutting import is_plain
from resurge.optimize.passes.tidying import row
from resurge.optimize.passes.walking import replace_each


class GatedExpand(nn.Module):
    """A 1x1 expansion whose outputs are scaled by what its pooled input says: (N, C, H, W) -> (N, C', H, W)."""

    def __init__(self, expand: nn.Module, squeeze: nn.Module, excite: nn.Conv2d) -> None:
        super().__init__()
        self.expand = expand
        self.squeeze = squeeze
        self.excite = excite

    def forward(self, t: Tensor) -> Tensor:
        scale = self.excite(self.squeeze(global_pool(t))).sigmoid()
        y: Tensor = self.expand(t) * scale
        return y


def early_squeeze(model: nn.Module) -> nn.Module:
    """Squeeze-and-excitation behind a 1x1 expansion pools the expansion's input, which is narrower or as narrow."""
    return replace_each(model, Residual, _squeezed_early)


def _squeezed_early(block: nn.Module) -> nn.Module:
    if not isinstance(block, Residual) or not isinstance(block.gate, SqueezeExciteGate):
        return block
    expand, gate = block.expand, block.gate
    if not isinstance(expand, ConvNormAct) or not is_plain(expand) or not isinstance(expand.act, nn.Identity):
        return block
    conv = expand.conv
    if conv.kernel_size != (1, 1) or conv.stride != (1, 1) or conv.groups != 1:
        return block
    exact = gate.fc1.weight.double()[..., 0, 0]
    bias = torch.zeros(gate.fc1.out_channels, dtype=exact.dtype, device=exact.device)
    if gate.fc1.bias is not None:
        bias = gate.fc1.bias.double()
    if conv.bias is not None:
        bias = bias + exact @ conv.bias.double()
    weight = (exact @ conv.weight.double()[..., 0, 0])[..., None, None]
    like = conv.weight.dtype
    squeeze = conv_like(gate.fc1, weight.to(like), groups=1, bias=bias.to(like))
    block.expand = GatedExpand(conv, row([squeeze, gate.act]), gate.fc2)
    block.gate = nn.Identity()
    return block
