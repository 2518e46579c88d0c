"""What the heads of segmenters share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def enlarge(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, h, w) -> (N, C, *size): bilinear, pixel centres kept where they are (align_corners=False)."""
    if x.dtype not in (torch.float32, torch.float64):
        x = x.float()  # eight bits of mantissa would make steps out of the ramps between two pixels
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
