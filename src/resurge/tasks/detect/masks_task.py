"""Instance segmentation: Mask R-CNN and Cascade Mask R-CNN on any backbone."""

from __future__ import annotations

from resurge.arch.backbone import Backbone
from resurge.tasks.detect.model import SceneModel
from resurge.tasks.detect.settings import Detector


class InstanceModel(SceneModel):
    """Images -> boxes, scores, labels and masks, an image at a time; `losses` trains it.

    Args:
        backbone: any backbone; its maps from stride 4 on are used.
        num_classes: classes, not counting the background, at least one.
        head: "mask_rcnn" (arXiv:1703.06870) or "cascade_mask_rcnn" (arXiv:1906.09756).
        settings: the numbers of pyramid, proposals and heads.

    Raises:
        UserError: no such head, or `num_classes` is out of range.
    """

    task = "instances"
    finds_masks = True

    def __init__(
        self, backbone: Backbone, num_classes: int, head: str = "mask_rcnn", settings: Detector = Detector()
    ) -> None:
        super().__init__(backbone, num_classes, head, settings)
