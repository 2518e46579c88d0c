"""Axis `stem`: the layers before the first stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from resurge.arch.layers import ConvNormAct


@dataclass(frozen=True)
class Conv7x7:
    """One strided 7x7 convolution and a max pool (ResNet, arXiv:1512.03385, table 1)."""

    stride: ClassVar[int] = 4
    width: int = 64

    @property
    def out_channels(self) -> int:
        return self.width

    def build(self, in_channels: int) -> nn.Module:
        return PooledStem([ConvNormAct(in_channels, self.width, 7, stride=2)])


@dataclass(frozen=True)
class Deep:
    """Three 3x3 convolutions, the last twice as wide, and a max pool (tweak C, arXiv:1812.01187, figure 2b)."""

    stride: ClassVar[int] = 4
    width: int

    @property
    def out_channels(self) -> int:
        return 2 * self.width

    def build(self, in_channels: int) -> nn.Module:
        return PooledStem(
            [
                ConvNormAct(in_channels, self.width, 3, stride=2),
                ConvNormAct(self.width, self.width, 3),
                ConvNormAct(self.width, self.out_channels, 3),
            ]
        )


@dataclass(frozen=True)
class Conv3x3:
    """One 3x3 convolution at full resolution, for CIFAR's 32x32 images (arXiv:1512.03385, section 4.2)."""

    stride: ClassVar[int] = 1
    width: int

    @property
    def out_channels(self) -> int:
        return self.width

    def build(self, in_channels: int) -> nn.Module:
        return PooledStem([ConvNormAct(in_channels, self.width, 3)], pool=False)


class PooledStem(nn.Module):
    """Convolutions in a row, then a strided 3x3 max pool."""

    def __init__(self, convs: list[ConvNormAct], pool: bool = True) -> None:
        super().__init__()
        self.convs = nn.Sequential(*convs)
        self.pool: nn.Module = nn.MaxPool2d(3, stride=2, padding=1) if pool else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pool(self.convs(x))
        return y
