"""Object detection: Faster R-CNN, Cascade R-CNN and RetinaNet on any backbone."""

from __future__ import annotations

from resurge.arch.backbone import Backbone
from resurge.tasks.detect.model import SceneModel
from resurge.tasks.detect.settings import Detector


class DetectionModel(SceneModel):
    """Images -> boxes, scores and labels, an image at a time; `losses` trains it.

    Args:
        backbone: any backbone; its maps from stride 4 on are used.
        num_classes: classes, not counting the background, at least one.
        head: "faster_rcnn" (arXiv:1506.01497), "cascade_rcnn" (arXiv:1712.00726) or "retinanet" (arXiv:1708.02002).
        settings: the numbers of pyramid, proposals and heads.

    Raises:
        UserError: no such head, or `num_classes` is out of range.
    """

    task = "detect"
    finds_masks = False

    def __init__(
        self, backbone: Backbone, num_classes: int, head: str = "faster_rcnn", settings: Detector = Detector()
    ) -> None:
        super().__init__(backbone, num_classes, head, settings)
