"""Axis `block`, and the residual unit that every network of the project is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from resurge.arch.contracts import Gate, Shortcut, Site, Transform
from resurge.arch.layers import ConvNormAct
from resurge.errors import UserError


class Residual(nn.Module):
    """y = act(shortcut(x) + drop_path(gate(expand(transform(reduce(x)))))).

    (N, cin, H, W) -> (N, cout, H/stride, W/stride). This is the only residual sum of the project. `drop_path` is an
    identity until `surgery.set_drop_path` fills it; it acts on the residual, never on the shortcut.
    """

    def __init__(
        self, *, reduce: nn.Module, transform: nn.Module, expand: nn.Module, gate: nn.Module, shortcut: nn.Module
    ) -> None:
        super().__init__()
        self.reduce, self.transform, self.expand, self.gate, self.shortcut = reduce, transform, expand, gate, shortcut
        self.drop_path: nn.Module = nn.Identity()
        self.act: nn.Module = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.drop_path(self.gate(self.expand(self.transform(self.reduce(x)))))
        y: Tensor = self.act(residual.add_(self.shortcut(x)))
        return y


def _shortcut(site: Site, shortcut: Shortcut) -> nn.Module:
    return shortcut.build(site) if site.reduces or site.cin != site.cout else nn.Identity()


@dataclass(frozen=True)
class Basic:
    """transform to the width, then a 3x3 convolution (arXiv:1512.03385, figure 5 left). No reduction."""

    expansion: ClassVar[int] = 1

    def build(self, site: Site, *, width: int, transform: Transform, gate: Gate, shortcut: Shortcut) -> Residual:
        return Residual(
            reduce=nn.Identity(),
            transform=transform.build(replace(site, cout=width)),
            expand=ConvNormAct(width, site.cout, 3, dilation=site.dilation_after, act=False),
            gate=gate.build(site.cout),
            shortcut=_shortcut(site, shortcut),
        )


@dataclass(frozen=True)
class Bottleneck:
    """1x1 down to the width, transform, 1x1 up (arXiv:1512.03385, figure 5 right).

    `stride_in` names the layer that takes the stride: "reduce" is the original (tweak A in this project's names),
    "transform" is tweak B and the default of every later network. `reduce_first` narrows the first 1x1 further
    (SENet-154).
    """

    stride_in: str = "transform"
    expansion: int = 4
    reduce_first: int = 1

    def __post_init__(self) -> None:
        if self.stride_in not in ("transform", "reduce"):
            raise UserError(f"Bottleneck: stride_in must be 'transform' or 'reduce', got {self.stride_in!r}.")

    def build(self, site: Site, *, width: int, transform: Transform, gate: Gate, shortcut: Shortcut) -> Residual:
        early = self.stride_in == "reduce"
        narrow = width // self.reduce_first
        if narrow < 1:
            raise UserError(f"Bottleneck: reduce_first={self.reduce_first} leaves nothing of a width of {width}.")
        inner = replace(site, cin=narrow, cout=width)
        if early:
            inner = replace(inner, stride=1, dilation=site.dilation_after, reduces=False)
        return Residual(
            reduce=ConvNormAct(site.cin, narrow, 1, stride=site.stride if early else 1),
            transform=transform.build(inner),
            expand=ConvNormAct(width, site.cout, 1, act=False),
            gate=gate.build(site.cout),
            shortcut=_shortcut(site, shortcut),
        )
