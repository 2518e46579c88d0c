"""PSPNet's pooling in a form that can be traced with open height and width.

`adaptive_avg_pool2d` averages over cells whose sides depend on the size of the map, which no tracer leaves open. A mean
over cells is linear along each side, so that it is two products with matrices that the size alone determines.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from resurge.tasks.segment.heads.pspnet import BINS, PyramidPoolingHead
from resurge.tasks.segment.layers import enlarge


class TraceablePyramidPooling(nn.Module):
    """What a `PyramidPoolingHead` computes, with its layers."""

    def __init__(self, head: PyramidPoolingHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[-2], x.shape[-1])
        maps = [x]
        for bins, level in zip(BINS, self.head.levels, strict=True):
            maps.append(enlarge(level(grid_means(x, bins)), size).to(x.dtype))
        logits: Tensor = self.head.predict(self.head.drop(self.head.conv(torch.cat(maps, dim=1))))
        return logits


def grid_means(x: Tensor, bins: int) -> Tensor:
    """(N, C, h, w) -> (N, C, bins, bins): the means of the cells of a grid, as `adaptive_avg_pool2d` cuts it."""
    if bins == 1:
        return x.mean((2, 3), keepdim=True)
    down, across = (_shares(bins, x.shape[axis], x) for axis in (-2, -1))
    return down @ x @ across.T


def _shares(bins: int, length: int, like: Tensor) -> Tensor:
    """(bins, length): what each of `length` places is of the mean of each cell; cells may overlap by one place."""
    cell = torch.arange(bins, device=like.device)[:, None]
    first, behind = cell * length // bins, ((cell + 1) * length + bins - 1) // bins
    place = torch.arange(length, device=like.device)
    inside = (place >= first) & (place < behind)
    return inside.to(like.dtype) / (behind - first).to(like.dtype)
