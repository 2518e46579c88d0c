"""Semantic segmentation: a class for every pixel, from the last map of a backbone.

Three heads: FCN (arXiv:1411.4038, in torchvision's form), PSPNet (arXiv:1612.01105) and DeepLabV3 (arXiv:1706.05587).
Each maps the last feature map (N, C, h, w) to logits (N, K, h, w); the model enlarges them to the size of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resurge.arch.backbone import Backbone, initialize
from resurge.arch.layers import BatchNorm2d, ConvNormAct, global_pool
from resurge.arch.spec import Spec
from resurge.errors import UserError
from resurge.tasks.segment.settings import Segmenter
from resurge.tasks.table import pick_head

IGNORE = 255  # the label of pixels that are no class: neither learnt nor scored
BINS = (1, 2, 3, 6)  # arXiv:1612.01105, section 3.2


class FCNHead(nn.Module):
    """3x3 convolution, then a 1x1 to the classes: (N, cin, h, w) -> (N, num_classes, h, w)."""

    def __init__(self, cin: int, num_classes: int, hidden: int | None = None, dropout: float = 0.1) -> None:
        super().__init__()
        hidden = hidden or max(1, cin // 4)
        self.conv = ConvNormAct(cin, hidden, 3)
        self.drop = nn.Dropout(dropout)
        self.predict = nn.Conv2d(hidden, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.predict(self.drop(self.conv(x)))
        return logits


class PyramidPoolingHead(nn.Module):
    """The pyramid pooling module (arXiv:1612.01105, section 3.2): (N, cin, h, w) -> (N, num_classes, h, w).

    The map is averaged over grids of 1x1, 2x2, 3x3 and 6x6 cells. Each grid is reduced to `hidden` channels by a 1x1
    and enlarged to h x w again; all of them and the map itself go through a 3x3 of `hidden` channels to the classes.
    """

    def __init__(self, cin: int, num_classes: int, hidden: int | None = None, dropout: float = 0.1) -> None:
        super().__init__()
        hidden = hidden or max(1, cin // 4)
        self.levels = nn.ModuleList(ConvNormAct(cin, hidden, 1) for _ in BINS)
        for bins, level in zip(BINS, self.levels, strict=True):
            if bins == 1:
                level.norm = BatchNorm2d(hidden, pooled=True)
        self.conv = ConvNormAct(cin + hidden * len(BINS), hidden, 3)
        self.drop = nn.Dropout(dropout)
        self.predict = nn.Conv2d(hidden, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[-2], x.shape[-1])
        maps = [x]
        for bins, level in zip(BINS, self.levels, strict=True):
            maps.append(enlarge(level(F.adaptive_avg_pool2d(x, bins)), size))
        logits: Tensor = self.predict(self.drop(self.conv(torch.cat(maps, dim=1))))
        return logits


class AtrousPyramidHead(nn.Module):
    """Atrous spatial pyramid pooling (arXiv:1706.05587, section 3.3): (N, cin, h, w) -> (N, num_classes, h, w).

    A 1x1, a 3x3 for each rate of dilation, and the mean of the whole map through a 1x1 stand side by side; a 1x1 joins
    them and a 3x3 follows, all of `hidden` channels.
    """

    def __init__(
        self, cin: int, num_classes: int, rates: Sequence[int], hidden: int | None = None, dropout: float = 0.1
    ) -> None:
        super().__init__()
        hidden = hidden or 256
        self.branches = nn.ModuleList(
            [ConvNormAct(cin, hidden, 1), *(ConvNormAct(cin, hidden, 3, dilation=rate) for rate in rates)]
        )
        self.pooled = ConvNormAct(cin, hidden, 1)
        self.pooled.norm = BatchNorm2d(hidden, pooled=True)
        self.project = ConvNormAct(hidden * (len(rates) + 2), hidden, 1)
        self.conv = ConvNormAct(hidden, hidden, 3)
        self.drop = nn.Dropout(dropout)
        self.predict = nn.Conv2d(hidden, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [branch(x) for branch in self.branches]
        # one pixel, enlarged by whatever interpolation, is that pixel everywhere
        maps.append(self.pooled(global_pool(x)).expand(-1, -1, *x.shape[-2:]))
        logits: Tensor = self.predict(self.drop(self.conv(self.project(torch.cat(maps, dim=1)))))
        return logits


def atrous_rates(stride: int) -> tuple[int, int, int]:
    """The three rates of DeepLabV3 on a map of this stride.

    12, 24, 36 at stride 8 and half of it at 16 (arXiv:1706.05587, section 4.1), so that they reach equally far in the
    image. Coarser maps go on halving; on finer ones the rates of stride 8 stay.
    """
    step = max(1, 96 // max(stride, 8))
    return step, 2 * step, 3 * step


def enlarge(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, h, w) -> (N, C, *size): bilinear, pixel centres kept where they are (align_corners=False)."""
    if x.dtype not in (torch.float32, torch.float64):
        x = x.float()  # eight bits of mantissa would make steps out of the ramps between two pixels
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def _deeplabv3(channels: int, stride: int, num_classes: int, settings: Segmenter) -> nn.Module:
    rates = settings.atrous_rates or atrous_rates(stride)
    return AtrousPyramidHead(channels, num_classes, rates, settings.head_channels, settings.head_dropout)


def _fcn(channels: int, stride: int, num_classes: int, settings: Segmenter) -> nn.Module:
    return FCNHead(channels, num_classes, settings.head_channels, settings.head_dropout)


def _pspnet(channels: int, stride: int, num_classes: int, settings: Segmenter) -> nn.Module:
    return PyramidPoolingHead(channels, num_classes, settings.head_channels, settings.head_dropout)


BUILDERS: dict[str, Callable[[int, int, int, Segmenter], nn.Module]] = {
    "deeplabv3": _deeplabv3,
    "fcn": _fcn,
    "pspnet": _pspnet,
}


class SegmentationModel(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes, H, W) logits.

    Args:
        backbone: any backbone, built with `output_stride=settings.output_stride`. Its last map feeds the head, and the
            one before it (stage 3 of four) the auxiliary head.
        num_classes: classes, 1 to 255; label 255 is that of ignored pixels.
        head: "fcn", "pspnet" or "deeplabv3".
        settings: the head's numbers; `aux_weight` 0 leaves out the auxiliary head, an FCN head that is used by
            `losses` alone (arXiv:1612.01105, section 3.3).

    Raises:
        UserError: no such head, or `num_classes` is out of range.
    """

    def __init__(
        self, backbone: Backbone, num_classes: int, head: str = "deeplabv3", settings: Segmenter = Segmenter()
    ) -> None:
        super().__init__()
        if type(num_classes) is not int or not 1 <= num_classes <= IGNORE:
            raise UserError(
                f"num_classes must be a whole number from 1 to {IGNORE}, because the label {IGNORE} marks ignored "
                f"pixels; got {num_classes!r}."
            )
        self.head_name = pick_head("segment", head)
        self.num_classes = num_classes
        self.settings = settings
        self.backbone = backbone
        self.head = BUILDERS[self.head_name](backbone.channels[-1], backbone.strides[-1], num_classes, settings)
        self.auxiliary: nn.Module | None = None
        if settings.aux_weight > 0:
            before_last = backbone.channels[max(0, len(backbone.channels) - 2)]
            self.auxiliary = FCNHead(before_last, num_classes, dropout=settings.head_dropout)
        for part in (self.head, self.auxiliary):
            if part is not None:
                _initialize(part)

    @property
    def spec(self) -> Spec:
        return self.backbone.spec

    def forward(self, images: Tensor) -> Tensor:
        return enlarge(self.head(self.backbone(images)[-1]), (images.shape[-2], images.shape[-1]))

    def losses(self, images: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> dict[str, Tensor]:
        """The terms of the training loss, scalars: "loss_main", and "loss_aux" if there is an auxiliary head.

        Args:
            images: (N, in_channels, H, W).
            targets: (N, H, W) whole numbers: classes 0 to num_classes - 1, 255 for ignored pixels.
            class_weights: (num_classes,); a pixel counts by the weight of its class.

        Raises:
            UserError: the targets have another shape or type, or hold a label that is no class.
        """
        self._check_targets(images, targets)
        maps = self.backbone(images)
        size = (images.shape[-2], images.shape[-1])
        terms = {"loss_main": pixel_cross_entropy(enlarge(self.head(maps[-1]), size), targets, class_weights)}
        if self.auxiliary is not None:
            logits = enlarge(self.auxiliary(maps[max(0, len(maps) - 2)]), size)
            terms["loss_aux"] = self.settings.aux_weight * pixel_cross_entropy(logits, targets, class_weights)
        return terms

    def _check_targets(self, images: Tensor, targets: Tensor) -> None:
        expected = (images.shape[0], *images.shape[-2:])
        if tuple(targets.shape) != expected or targets.is_floating_point():
            raise UserError(
                f"expected label maps of whole numbers, one as large as each image, {expected}; got "
                f"{tuple(targets.shape)} of {targets.dtype}."
            )
        wrong = (targets != IGNORE) & ((targets < 0) | (targets >= self.num_classes))
        # on a GPU this waits for it; the other way out is a failed device-side assertion, after which nothing works
        if wrong.any():
            found = torch.unique(targets[wrong]).tolist()
            shown = ", ".join(str(value) for value in found[:5]) + (", ..." if len(found) > 5 else "")
            raise UserError(
                f"the label maps of this batch hold {shown}, but the classes are 0 to {self.num_classes - 1}, and "
                f"{IGNORE} is ignored. Mend the maps (`resurge check-data` names the files) or raise num_classes."
            )


def _initialize(head: nn.Module) -> None:
    initialize(head)
    last = head.get_submodule("predict")
    if isinstance(last, nn.Conv2d):
        nn.init.normal_(last.weight, std=0.01)  # all classes equally likely at the start, however many there are


def pixel_cross_entropy(logits: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """The mean cross entropy of the pixels that are not ignored, weighted by class; 0 where there are none.

    logits (N, K, H, W), targets (N, H, W), class_weights (K,): sum_i w[t_i] * -log softmax(z_i)[t_i] / sum_i w[t_i].
    """
    targets = targets.long()
    total = F.cross_entropy(logits, targets, weight=class_weights, ignore_index=IGNORE, reduction="sum")
    counted = targets != IGNORE
    if class_weights is None:
        weight = counted.sum().to(total.dtype)
    else:
        weight = (class_weights[targets.where(counted, 0)] * counted).sum()
    return total / weight.clamp(min=torch.finfo(total.dtype).tiny)
