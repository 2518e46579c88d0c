"""The feature pyramid (arXiv:1612.03144) over the maps of any backbone, and the batch of images it is made from."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from resurge.arch.backbone import Backbone
from resurge.arch.layers import BatchNorm2d
from resurge.errors import UserError
from resurge.tasks.detect.settings import Detector
from resurge.tasks.result import Size


class Pyramid(FeaturePyramidNetwork):  # type: ignore[misc]
    """The maps of a backbone -> the levels of a pyramid, finest first; all of `settings.fpn_channels` channels.

    Args:
        extra: makes the coarser levels beyond the backbone's, each of twice the stride of the one before.
        finest: maps of a finer stride are left out, unless there is no other.

    Attributes:
        strides: of the levels that come from the backbone; those of `extra` follow them.
    """

    def __init__(self, backbone: Backbone, settings: Detector, extra: ExtraFPNBlock, finest: int = 4) -> None:
        levels = pick_levels(backbone.strides, finest)
        channels = [backbone.channels[i] for i in levels]
        norm_layer: type[nn.Module] | None = BatchNorm2d if settings.head_norm else None
        super().__init__(channels, settings.fpn_channels, extra_blocks=extra, norm_layer=norm_layer)
        self.levels = levels
        self.strides = tuple(backbone.strides[i] for i in levels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        chosen = OrderedDict((str(name), maps[i]) for name, i in enumerate(self.levels))
        levels: dict[str, Tensor] = super().forward(chosen)
        return list(levels.values())


def pick_levels(strides: Sequence[int], finest: int) -> tuple[int, ...]:
    """The maps a pyramid is built on: of each stride from `finest` on, the last; the last map if there is none."""
    last = len(strides) - 1
    found = [i for i in range(last + 1) if strides[i] >= finest and (i == last or strides[i + 1] != strides[i])]
    return tuple(found) or (last,)


class Features(NamedTuple):
    """The pyramid of a batch of N images."""

    levels: list[Tensor]  # (N, C, h, w) each, the finest first
    area: Size  # of the batch, padding included
    limits: Tensor  # float32 (N, 4), width, height, width and height of each image without its padding


def image_sizes(images: Tensor, sizes: Sequence[Size] | None) -> Tensor:
    """int64 (N, 2): height and width of each image of (N, C, H, W) without its padding, at the right and below. Raises
    UserError when the sizes do not fit the images."""
    if images.ndim != 4:
        raise UserError(f"expected images of shape (N, C, H, W), got {tuple(images.shape)}.")
    n, height, width = images.shape[0], images.shape[-2], images.shape[-1]
    known = [(height, width)] * n if sizes is None else [(int(h), int(w)) for h, w in sizes]
    if len(known) != n or any(not (0 < h <= height and 0 < w <= width) for h, w in known):
        raise UserError(f"expected one (height, width) for each of {n} images, at most {height}x{width}; got {known}.")
    return torch.tensor(known, device=images.device).reshape(-1, 2)


def pad(images: Tensor, stride: int) -> Tensor:
    """Zeros at the right and below (N, C, H, W), up to a multiple of the stride: anchors are laid out by whole strides,
    which only a multiple has."""
    down, right = ((side + stride - 1) // stride * stride - side for side in images.shape[-2:])
    return F.pad(images, (0, right, 0, down))


def diagonal_boxes(limits: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (N * n, 4) along the diagonal of each image of `Features.limits`, and the image int64 (N * n,) of each.
    They extend over the whole, a half, a quarter and an eighth of each side: some are pooled from every level."""
    ranges = [(i / parts, (i + 1) / parts) for parts in (1, 2, 4, 8) for i in range(parts)]
    unit = limits.new_tensor([(begin, begin, end, end) for begin, end in ranges])
    image = torch.arange(len(limits), device=limits.device).repeat_interleave(len(unit))
    return (unit * limits[:, None]).flatten(0, 1), image
