"""DeepLabV3 (arXiv:1706.05587)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from resurge.arch.backbone import Backbone
from resurge.arch.layers import BatchNorm2d, ConvNormAct, global_pool
from resurge.tasks.segment.settings import Segmenter


class AtrousPyramidHead(nn.Module):
    """Atrous spatial pyramid pooling (arXiv:1706.05587, section 3.3): (N, cin, h, w) -> (N, num_classes, h, w).

    A 1x1, a 3x3 for each rate of dilation, and the mean of the whole map through a 1x1 stand side by side; a 1x1 joins
    them and a 3x3 follows, all of `hidden` channels.
    """

    def __init__(self, backbone: Backbone, num_classes: int, settings: Segmenter) -> None:
        super().__init__()
        cin, hidden = backbone.channels[-1], settings.head_channels or 256
        rates = settings.atrous_rates or atrous_rates(backbone.strides[-1])
        self.branches = nn.ModuleList(
            [ConvNormAct(cin, hidden, 1), *(ConvNormAct(cin, hidden, 3, dilation=rate) for rate in rates)]
        )
        self.pooled = ConvNormAct(cin, hidden, 1)
        self.pooled.norm = BatchNorm2d(hidden, pooled=True)
        self.project = ConvNormAct(hidden * (len(rates) + 2), hidden, 1)
        self.conv = ConvNormAct(hidden, hidden, 3)
        self.drop = nn.Dropout(settings.head_dropout)
        self.predict = nn.Conv2d(hidden, num_classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        x = features[-1]
        maps = [branch(x) for branch in self.branches]
        # one pixel, enlarged by whatever interpolation, is that pixel everywhere
        maps.append(self.pooled(global_pool(x)).expand(-1, -1, *x.shape[-2:]))
        logits: Tensor = self.predict(self.drop(self.conv(self.project(torch.cat(maps, dim=1)))))
        return logits


def atrous_rates(stride: int) -> tuple[int, int, int]:
    """The three rates of DeepLabV3 on a map of this stride.

    12, 24, 36 at stride 8 and half of it at 16 (arXiv:1706.05587, section 4.1), so that they reach equally far in the
    image. Coarser maps go on halving; on finer ones the rates of stride 8 stay.
    """
    step = max(1, 96 // max(stride, 8))
    return step, 2 * step, 3 * step
