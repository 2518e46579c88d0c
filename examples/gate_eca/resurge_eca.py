"""Efficient channel attention (ECA-Net, arXiv:1910.03151) as a choice of the axis `gate`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class EfficientChannelAttention:
    """The weight of a channel from those beside it: a 1-D convolution over the pooled map (section 3.2).

    Its size is the odd number next to (log2(C) + beta) / gamma, C the channels (equation 12).
    """

    gamma: int = 2
    beta: int = 1

    def build(self, channels: int) -> nn.Module:
        size = int((math.log2(channels) + self.beta) / self.gamma)
        return Gate(size if size % 2 else size + 1)


class Gate(nn.Module):
    """(N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weights: Tensor = self.conv(x.mean((2, 3)).unsqueeze(1)).sigmoid()
        return x * weights.transpose(1, 2).unsqueeze(3)
