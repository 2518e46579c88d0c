"""The decoder of U-Net (arXiv:1505.04597, figure 1) as a head of segmenters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from resurge.arch.backbone import Backbone
from resurge.arch.layers import ConvNormAct
from resurge.tasks.segment.layers import enlarge
from resurge.tasks.segment.settings import Segmenter


class UNetHead(nn.Module):
    """Maps (N, C_i, h_i, w_i) of the stages -> logits (N, num_classes, h_1, w_1).

    From the last map to the first: enlarge, concatenate the map of the stage before, two 3x3 convolutions.
    """

    def __init__(self, channels: Sequence[int], num_classes: int, hidden: int, dropout: float) -> None:
        super().__init__()
        inner = [channels[-1], *[hidden] * (len(channels) - 1)]
        self.steps = nn.ModuleList(
            nn.Sequential(ConvNormAct(below + skip, hidden, 3), ConvNormAct(hidden, hidden, 3))
            for below, skip in zip(inner, reversed(channels[:-1]), strict=False)
        )
        self.drop = nn.Dropout(dropout)
        self.predict = nn.Conv2d(inner[-1], num_classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        x = features[-1]
        for step, skip in zip(self.steps, reversed(features[:-1]), strict=True):
            x = step(torch.cat([enlarge(x, (skip.shape[-2], skip.shape[-1])).to(skip.dtype), skip], dim=1))
        logits: Tensor = self.predict(self.drop(x))
        return logits


def build(backbone: Backbone, num_classes: int, settings: Segmenter) -> UNetHead:
    return UNetHead(backbone.channels, num_classes, settings.head_channels or 64, settings.head_dropout)
