"""Axis `shortcut`: what carries x to the sum where the block changes its shape.

Whether a shortcut has weights depends on the undilated network alone, so that one set of weights serves every
output stride.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resurge.arch.contracts import Site
from resurge.arch.layers import ConvNormAct
from resurge.errors import UserError


@dataclass(frozen=True)
class Projection:
    """A strided 1x1 convolution (option B, arXiv:1512.03385, section 3.3).

    `kernel=3` makes it a 3x3 where the stage halves the resolution, as in SENet-154.
    """

    kernel: int = 1

    def __post_init__(self) -> None:
        if self.kernel not in range(1, 32, 2):
            # an even kernel would give the shortcut another size than the residual
            raise UserError(f"Projection: kernel must be an odd number from 1 to 31; got {self.kernel!r}.")

    def build(self, site: Site) -> nn.Module:
        kernel = self.kernel if site.reduces else 1
        return ConvNormAct(site.cin, site.cout, kernel, stride=site.stride, dilation=site.dilation, act=False)


@dataclass(frozen=True)
class AvgProjection:
    """A 2x2 average pool that takes the stride, then a 1x1 convolution (tweak D, arXiv:1812.01187, figure 2c).

    In a dilated stage `dilated="keep"` averages with stride 1 (zeros beyond the right and bottom border, as timm's
    ResNet-D does); `dilated="drop"` leaves the pool out, as the ResNeSt authors do. Undilated they are the same.
    """

    dilated: str = "keep"

    def __post_init__(self) -> None:
        if self.dilated not in ("keep", "drop"):
            raise UserError(f"AvgProjection: dilated must be 'keep' or 'drop', got {self.dilated!r}.")

    def build(self, site: Site) -> nn.Module:
        pool: nn.Module = nn.Identity()
        if site.stride > 1:
            pool = HalvingPool()
        elif site.reduces and self.dilated == "keep":
            pool = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.AvgPool2d(2, 1))
        return PooledProjection(site.cin, site.cout, pool)


@dataclass(frozen=True)
class ZeroPad:
    """Every stride-th pixel, new channels filled with zeros on both sides; no weights.

    Option A of arXiv:1512.03385, section 4.2.
    """

    def build(self, site: Site) -> nn.Module:
        if site.cout < site.cin:
            raise UserError(
                f"shortcut=zeropad only adds channels, but a block goes from {site.cin} to {site.cout}: "
                "use growing planes or shortcut=proj."
            )
        return ZeroPadShortcut(site.cout - site.cin, site.stride)


class HalvingPool(nn.Module):
    """The 2x2 average with stride 2, sizes rounded up: a window over the border averages what is inside."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            # ceil_mode would tie an exported graph to even sizes or to odd ones. A repeated border gives the same
            # averages for both, at the price of a copy that only a compiler removes.
            return F.avg_pool2d(F.pad(x, (0, 1, 0, 1), mode="replicate"), 2, 2)
        return F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False)


class PooledProjection(ConvNormAct):
    """`pool`, then a 1x1 convolution and its norm."""

    def __init__(self, cin: int, cout: int, pool: nn.Module) -> None:
        super().__init__(cin, cout, 1, act=False)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.pool(x))


class ZeroPadShortcut(nn.Module):
    """(N, C, H, W) -> (N, C + extra, H/stride, W/stride)."""

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self.before, self.after = extra // 2, extra - extra // 2
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        # a 1x1 pool is a slice whose size an exporter sees to be that of the convolution it is added to
        return F.pad(F.avg_pool2d(x, 1, self.stride), (0, 0, 0, 0, self.before, self.after))
