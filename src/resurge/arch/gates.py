"""Axis `gate`: what scales the residual before the sum."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from resurge.arch.layers import global_pool, round_channels


@dataclass(frozen=True)
class NoGate:
    """The residual as it is."""

    def build(self, channels: int) -> nn.Module:
        return nn.Identity()


@dataclass(frozen=True)
class SqueezeExcite:
    """Channel weights from a bottleneck on the pooled map (SENet, arXiv:1709.01507, equations 2 to 4).

    The bottleneck has channels / reduction units, rounded to a multiple of `divisor`.
    """

    reduction: int = 16
    divisor: int = 8

    def build(self, channels: int) -> nn.Module:
        return SqueezeExciteGate(channels, round_channels(channels / self.reduction, self.divisor))


class SqueezeExciteGate(nn.Module):
    """x * sigmoid(fc2(relu(fc1(pool(x))))), shape unchanged."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.act: nn.Module = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(hidden, channels, 1)
        self.sigmoid: nn.Module = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x * self.sigmoid(self.fc2(self.act(self.fc1(global_pool(x)))))
        return y
