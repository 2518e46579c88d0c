"""The numbers of a detector's heads, as recipes state them. No torch here.

Defaults are those of the published systems: Ren et al. 2015 (arXiv:1506.01497), Lin et al. 2017 (arXiv:1612.03144 and
1708.02002), He et al. 2017 (arXiv:1703.06870) and Cai and Vasconcelos 2018 (arXiv:1712.00726) as torchvision and
detectron2 run them.
"""

from __future__ import annotations

from dataclasses import dataclass

from resurge.config import Section, option
from resurge.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Detector(Section):
    """A detector: feature pyramid, anchors, proposals, box head, what is kept."""

    fpn_channels: int = option(256, "channels of every level of the feature pyramid", low=1)
    head_norm: bool = option(False, "normalise inside the pyramid and the heads, by the policy in norm")
    anchor_scale: float | None = option(
        None, "side of an anchor in strides of its level; null: 8, RetinaNet 4", above=0
    )
    anchor_ratios: tuple[float, ...] = option((0.5, 1.0, 2.0), "height / width of the anchors", above=0)
    rpn_convs: int = option(1, "3x3 convolutions before the proposal predictor", low=1)
    rpn_proposals_train: int = option(2000, "proposals kept per image in training, before and after suppression", low=1)
    rpn_proposals_test: int = option(1000, "proposals kept per image in evaluation", low=1, high=100_000)
    rpn_batch: int = option(256, "anchors per image that the proposal loss samples", low=1)
    roi_batch: int = option(512, "proposals per image that the box loss samples", low=1)
    box_head: str = option("2fc", "layers before the box predictor", choices=("2fc", "4conv1fc"))
    box_channels: int = option(1024, "outputs of the box head's linear layers", low=1)
    box_size: int = option(7, "side of the map a box is pooled to", low=1, high=256)
    pool_scale: int = option(224, "side, pixels, of a box that is pooled from the level of stride 16", low=1)
    mask_size: int = option(14, "side of the map a mask is predicted from; the mask has twice that", low=1, high=256)
    mask_channels: int = option(256, "channels of the mask head's convolutions", low=1)
    cascade_ious: tuple[float, ...] = option((0.5, 0.6, 0.7), "overlap that counts as a hit, a cascade stage each",
                                             above=0, below=1)  # fmt: skip
    score_threshold: float = option(0.05, "detections with a lower score are dropped", low=0, below=1)
    nms_threshold: float = option(
        0.5, "overlap above which the lower of two boxes of a class is dropped", above=0, high=1
    )
    max_detections: int = option(100, "detections kept per image", low=1, high=100_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("anchor_ratios", "cascade_ious"):
            if not getattr(self, name):
                raise UserError(f"{name} needs at least one number.")
