"""Deformable convolution, as a combinator on the axis `transform`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from resurge.arch.contracts import Site, Transform
from resurge.arch.layers import ConvNormAct


@dataclass(frozen=True)
class Deform:
    """`inner` with deformable convolutions, version 2 (arXiv:1811.11168, section 3.2), from stage `first_stage` on.

    Every convolution of `inner` with a kernel above 1x1 gets a `DeformableConv2d` in its place; names and shapes of its
    weights stay, so weights of the plain network load. Stage 2 of four is the paper's conv3.
    """

    inner: Transform
    first_stage: int = 2

    def build(self, site: Site) -> nn.Module:
        built = self.inner.build(site)
        if site.stage >= self.first_stage:
            for layer in built.modules():
                conv = layer.conv if isinstance(layer, ConvNormAct) else None
                if conv is not None and max(conv.kernel_size) > 1 and not isinstance(conv, DeformableConv2d):
                    layer.conv = DeformableConv2d(conv)
        return built


def undeformed(transform: Transform) -> Transform:
    """The transform without the `Deform` around it, if there is one."""
    return undeformed(transform.inner) if isinstance(transform, Deform) else transform


class OffsetConv2d(nn.Conv2d):
    """The convolution that says where and how strongly a `DeformableConv2d` samples: born zero, and kept in float32."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        y: Tensor = self._conv_forward(x, self.weight.to(x.dtype), bias)
        return y


class DeformableConv2d(nn.Conv2d):
    """A convolution whose taps are moved and weighted at every pixel: (N, cin, H, W) -> (N, cout, ~H/s, ~W/s).

    y(p) = sum_k w_k * m_k(p) * x(p + p_k + d_k(p)), x between pixels read bilinearly and zero outside the map
    (arXiv:1811.11168, equation 1; with groups, channel by channel as in any grouped convolution). `offset`, a
    convolution like this one, computes the 2 K displacements d (row, column for each of the K taps, the same in all
    channels) and K numbers z with m = 2 sigmoid(z). The paper has m = sigmoid(z), in (0, 1); the factor makes m 1 where
    `offset` is zero, as it is at first, so that the layer starts as the plain convolution with the same weights. The
    functions that can be learnt are the same, with weights half as large.

    Computed in float32 under autocast too: half precision would round the places that are read, and the operator has
    no bfloat16 on CPUs. On a GPU its gradient is summed in no fixed order.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        """`conv` with offsets of zero, which computes the same: shares its weights and draws no random numbers."""
        shape = (conv.kernel_size[0], conv.stride[0], int(conv.padding[0]), conv.dilation[0])
        super().__init__(conv.in_channels, conv.out_channels, *shape, conv.groups, conv.bias is not None, device="meta")
        self.weight, self.bias = conv.weight, conv.bias
        self.offset = OffsetConv2d(conv.in_channels, 3 * shape[0] ** 2, *shape, device=conv.weight.device)
        self.train(conv.training)

    def forward(self, x: Tensor) -> Tensor:
        exact = torch.float64 if x.dtype == torch.float64 else torch.float32
        with _without_autocast(x.device):
            z = self.offset(x.to(exact))
            taps = z.shape[1] // 3
            y: Tensor = deform_conv2d(
                x.to(exact),
                z[:, : 2 * taps],
                self.weight.to(exact),
                None if self.bias is None else self.bias.to(exact),
                self.stride,
                self.padding,
                self.dilation,
                2 * z[:, 2 * taps :].sigmoid(),
            )
        return y.to(x.dtype)


def _without_autocast(device: torch.device) -> AbstractContextManager[None]:
    # Where there is none, nothing is switched off: torch.export would put what is inside into a graph of its own. The
    # meta device, which cost is counted on, knows no autocast.
    known = torch.amp.is_autocast_available(device.type)
    on = known and torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if on else nullcontext()
