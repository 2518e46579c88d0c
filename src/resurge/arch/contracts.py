"""What the parts of a network know of each other: one frozen `Site`, and one small protocol per axis.

Legend used in all of `arch`: N batch, C channels, H and W height and width, R radix or number of branches,
K cardinality (`groups`), G = K * R.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where a block, or a layer inside it, sits. `plan` makes them; nothing else knows about strides.

    Attributes:
        cin: channels that come in.
        cout: channels that go out.
        stride: the step of this site's strided layer.
        dilation: dilation of the layers up to and including the strided one.
        groups: cardinality K of the transform.
        entry: first block of its stage.
        reduces: the undilated network would halve the resolution here (in a dilated stage the stride is 1 then).
        stage: number of its stage, from 1.
    """

    cin: int
    cout: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    entry: bool = False
    reduces: bool = False
    stage: int = 1

    @property
    def dilation_after(self) -> int:
        """Dilation of the layers behind the strided one: they see the resolution that a traded stride kept."""
        return self.dilation * 2 if self.reduces and self.stride == 1 else self.dilation


@runtime_checkable
class Stem(Protocol):
    """The layers before the first stage: (N, in_channels, H, W) -> (N, out_channels, H/stride, W/stride)."""

    @property
    def out_channels(self) -> int: ...
    @property
    def stride(self) -> int: ...
    def build(self, in_channels: int) -> nn.Module: ...


@runtime_checkable
class Transform(Protocol):
    """The spatial layer of a block: (N, cin, H, W) -> (N, cout, H/stride, W/stride), activated."""

    def build(self, site: Site) -> nn.Module: ...


@runtime_checkable
class Gate(Protocol):
    """What scales the residual before the sum, shape unchanged."""

    def build(self, channels: int) -> nn.Module: ...


@runtime_checkable
class Shortcut(Protocol):
    """The other summand; built only where the block changes shape, an identity elsewhere."""

    def build(self, site: Site) -> nn.Module: ...


@runtime_checkable
class Block(Protocol):
    """The order of reduce, transform and expand. `cout` of a stage is `planes * expansion`."""

    @property
    def expansion(self) -> int: ...
    def build(self, site: Site, *, width: int, transform: Transform, gate: Gate, shortcut: Shortcut) -> nn.Module: ...


AXES: dict[str, type] = {"stem": Stem, "block": Block, "transform": Transform, "gate": Gate, "shortcut": Shortcut}
"""The axes of a spec that are choices, by the name of the field."""
