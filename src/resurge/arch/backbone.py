"""A `Spec` built: images in, one feature map per stage out."""

from __future__ import annotations

from torch import Tensor, nn

from resurge.arch.deformable import OffsetConv2d
from resurge.arch.spec import Spec, plan
from resurge.errors import UserError


class Backbone(nn.Module):
    """(N, in_channels, H, W) -> one (N, channels[i], ~H/strides[i], ~W/strides[i]) per stage, sizes rounded up.

    Args:
        spec: the network.
        in_channels: channels of the image.
        output_stride: the coarsest stride; stages that would pass it are dilated instead. The weights are the same
            for every output stride.

    Attributes:
        channels: channels of each stage's map.
        strides: stride of each stage's map.

    Raises:
        UserError: the numbers of the spec do not fit together, or `output_stride` cannot be.
    """

    def __init__(self, spec: Spec, in_channels: int = 3, output_stride: int = 32) -> None:
        super().__init__()
        if type(in_channels) is not int or in_channels < 1:
            raise UserError(f"in_channels must be a positive whole number; got {in_channels!r}.")
        sites = plan(spec, output_stride)
        self.spec = spec
        self.in_channels = in_channels
        self.output_stride = output_stride
        self.channels = tuple(stage[-1].cout for stage in sites)
        strides, stride = [], spec.stem.stride
        for stage in sites:
            stride *= stage[0].stride
            strides.append(stride)
        self.strides = tuple(strides)
        self.stem = spec.stem.build(in_channels)
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    spec.block.build(
                        site, width=spec.width(i), transform=spec.transform, gate=spec.gate, shortcut=spec.shortcut
                    )
                    for site in stage
                )
            )
            for i, stage in enumerate(sites)
        )
        initialize(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def backbone_of(model: nn.Module) -> Backbone:
    """The model itself, or its child `backbone`; of a compiled model too.

    Raises:
        UserError: it is no backbone and has none there.
    """
    plain = uncompiled(model)
    found = plain if isinstance(plain, Backbone) else getattr(plain, "backbone", None)
    if not isinstance(found, Backbone):
        raise UserError(f"expected a Backbone or a model with one as .backbone, got {type(plain).__name__}.")
    return found


def uncompiled(model: nn.Module) -> nn.Module:
    """The model that torch.compile wrapped: the wrapper puts `_orig_mod.` before every name."""
    plain: nn.Module = getattr(model, "_orig_mod", model)
    return plain


def initialize(module: nn.Module) -> None:
    """He initialisation by fan-out for every convolution (arXiv:1502.01852, section 2.2), zeros for biases.

    Offsets of deformable convolutions start at zero.
    """
    for layer in module.modules():
        if isinstance(layer, OffsetConv2d):
            layer.reset_parameters()
        elif isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
