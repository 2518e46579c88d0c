"""Semantic segmentation: a class per pixel.

One of the heads in `resurge.tasks.segment.heads` maps the feature maps of a backbone to logits; the model enlarges them
to the size of the image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resurge.arch.backbone import Backbone, initialize
from resurge.arch.spec import Spec
from resurge.data.splits import IGNORE
from resurge.errors import UserError, require_one_of
from resurge.tasks.segment.heads import HEADS
from resurge.tasks.segment.heads.fcn import FCNHead
from resurge.tasks.segment.layers import enlarge
from resurge.tasks.segment.settings import Segmenter


class SegmentationModel(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes, H, W) logits.

    Args:
        backbone: any backbone, built with `output_stride=settings.output_stride`. All its maps feed the head, and the
            last but one (stage 3 of four) the auxiliary head.
        num_classes: classes, 1 to 255; label 255 is that of ignored pixels.
        head: one of `HEADS`.
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
        require_one_of("head", head, HEADS)
        self.head_name = head
        self.num_classes = num_classes
        self.settings = settings
        self.backbone = backbone
        self.head = HEADS[head](backbone, num_classes, settings)
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
        return enlarge(self.head(self.backbone(images)), (images.shape[-2], images.shape[-1]))

    def losses(self, images: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> dict[str, Tensor]:
        """The terms of the training loss, scalars: "loss_main", and "loss_aux" if there is an auxiliary head.

        Args:
            targets: (N, H, W) whole numbers: classes 0 to num_classes - 1, 255 for ignored pixels.
            class_weights: (num_classes,); a pixel counts by the weight of its class.

        Raises:
            UserError: the targets have another shape or type, or hold a label that is no class.
        """
        self._check_targets(images, targets)
        maps = self.backbone(images)
        size = (images.shape[-2], images.shape[-1])
        terms = {"loss_main": pixel_cross_entropy(enlarge(self.head(maps), size), targets, class_weights)}
        if self.auxiliary is not None:
            logits = enlarge(self.auxiliary(maps[:-1] or maps), size)
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
