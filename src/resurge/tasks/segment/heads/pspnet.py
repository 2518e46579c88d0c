"""PSPNet (arXiv:1612.01105)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resurge.arch.backbone import Backbone
from resurge.arch.layers import BatchNorm2d, ConvNormAct
from resurge.tasks.segment.layers import enlarge
from resurge.tasks.segment.settings import Segmenter

BINS = (1, 2, 3, 6)  # arXiv:1612.01105, section 3.2


class PyramidPoolingHead(nn.Module):
    """The pyramid pooling module (arXiv:1612.01105, section 3.2): (N, cin, h, w) -> (N, num_classes, h, w).

    The map is averaged over grids of 1x1, 2x2, 3x3 and 6x6 cells. Each grid is reduced to `hidden` channels by a 1x1
    and enlarged to h x w again; all of them and the map itself go through a 3x3 of `hidden` channels to the classes.
    """

    def __init__(self, backbone: Backbone, num_classes: int, settings: Segmenter) -> None:
        super().__init__()
        cin = backbone.channels[-1]
        hidden = settings.head_channels or max(1, cin // 4)
        self.levels = nn.ModuleList(ConvNormAct(cin, hidden, 1) for _ in BINS)
        for bins, level in zip(BINS, self.levels, strict=True):
            if bins == 1:
                level.norm = BatchNorm2d(hidden, pooled=True)
        self.conv = ConvNormAct(cin + hidden * len(BINS), hidden, 3)
        self.drop = nn.Dropout(settings.head_dropout)
        self.predict = nn.Conv2d(hidden, num_classes, 1)
        self.pool: Callable[[Tensor, int], Tensor] = F.adaptive_avg_pool2d  # an export has one that can be traced

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        x = features[-1]
        size = (x.shape[-2], x.shape[-1])
        maps = [x]
        for bins, level in zip(BINS, self.levels, strict=True):
            maps.append(enlarge(level(self.pool(x, bins)), size).to(x.dtype))
        logits: Tensor = self.predict(self.drop(self.conv(torch.cat(maps, dim=1))))
        return logits
