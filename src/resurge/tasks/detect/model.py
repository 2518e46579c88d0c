"""What detection and instance segmentation share: a backbone, a pyramid, and a head that finds objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from resurge.arch.backbone import Backbone
from resurge.arch.spec import Spec
from resurge.errors import UserError
from resurge.tasks.detect.boxes import learnable, postprocess
from resurge.tasks.detect.pyramid import Pyramid, Size, image_batch
from resurge.tasks.detect.regions import RegionHead
from resurge.tasks.detect.retina import RetinaHead
from resurge.tasks.detect.settings import Detector
from resurge.tasks.table import pick_head


class SceneModel(nn.Module):
    """Images -> objects. See `DetectionModel` and `InstanceModel`, which only say what their task is."""

    task: ClassVar[str]
    finds_masks: ClassVar[bool]

    def __init__(self, backbone: Backbone, num_classes: int, head: str, settings: Detector) -> None:
        super().__init__()
        if type(num_classes) is not int or num_classes < 1:
            raise UserError(f"num_classes must be a positive whole number; got {num_classes!r}.")
        self.head_name = pick_head(self.task, head)
        self.num_classes = num_classes
        self.settings = settings
        self.backbone = backbone
        channels, norm = settings.fpn_channels, settings.head_norm
        self.head: RetinaHead | RegionHead
        if self.head_name == "retinanet":
            # arXiv:1708.02002, section 4: no level of stride 4, and two beyond the backbone's
            self.fpn = Pyramid(backbone, channels, LastLevelP6P7(channels, channels), finest=8, norm=norm)
            self.head = RetinaHead(self.fpn, num_classes, settings)
        else:
            self.fpn = Pyramid(backbone, channels, LastLevelMaxPool(), norm=norm)
            cascade = self.head_name.startswith("cascade")
            self.head = RegionHead(self.fpn, num_classes, settings, cascade, masks=self.finds_masks)

    @property
    def spec(self) -> Spec:
        return self.backbone.spec

    def forward(self, images: Tensor, sizes: Sequence[Size] | None = None) -> list[dict[str, Tensor]]:
        """What is found in each image, in the pixels of the batch, the highest score first.

        Args:
            images: (N, in_channels, H, W), padded at the right and below.
            sizes: (height, width) of each image without its padding; None where there is none.

        Returns:
            For each image boxes (n, 4) as left, top, right, bottom; scores (n,); labels (n,) from 0; with masks, masks
            (n, 1, s, s), the probabilities inside each box.

        Raises:
            UserError: the sizes do not fit the images.
        """
        batch = image_batch(images, sizes, self.backbone.strides[-1])
        return self.head.detect(batch, self.fpn(self.backbone(batch.tensors)))

    def losses(
        self, images: Tensor, targets: Sequence[Mapping[str, Tensor]], sizes: Sequence[Size] | None = None
    ) -> dict[str, Tensor]:
        """The terms of the training loss, scalars, by name. What is drawn at random comes from torch's generator.

        Args:
            images, sizes: as in `forward`.
            targets: for each image boxes (n, 4), labels (n,) from 0 and, for masks, masks (n, h, w) of 0 and 1. Boxes
                without a side are left out, and there may be none at all.

        Raises:
            UserError: a target is incomplete or a label is no class, or the sizes do not fit the images.
        """
        batch = image_batch(images, sizes, self.backbone.strides[-1])
        cleaned = learnable(targets, batch.image_sizes, self.num_classes, images.device, self.finds_masks)
        return self.head.losses(batch, self.fpn(self.backbone(batch.tensors)), cleaned)

    def postprocess(
        self, detections: Sequence[Mapping[str, Tensor]], sizes: Sequence[Size], originals: Sequence[Size]
    ) -> list[dict[str, Tensor]]:
        """What `forward` found, in the pixels of the original images; see `resurge.tasks.detect.boxes.postprocess`."""
        return postprocess(detections, sizes, originals)
