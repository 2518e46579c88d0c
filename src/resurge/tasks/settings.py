"""The tasks, their heads, and the numbers a head is built from. No torch here.

The defaults are those of Ren et al. 2015 (arXiv:1506.01497), Lin et al. 2017 (arXiv:1612.03144 and 1708.02002), He et
al. 2017 (arXiv:1703.06870) and Cai and Vasconcelos 2018 (arXiv:1712.00726) as torchvision and detectron2 run them.
"""

from __future__ import annotations

from dataclasses import dataclass

from resurge.config import Section, option
from resurge.errors import UserError, suggest

# task -> its heads; the first one is taken when none is named
HEADS: dict[str, tuple[str, ...]] = {
    "classify": ("linear",),
    "segment": ("deeplabv3", "fcn", "pspnet"),
    "detect": ("faster_rcnn", "cascade_rcnn", "retinanet"),
    "instances": ("mask_rcnn", "cascade_mask_rcnn"),
}
TASKS = tuple(HEADS)


def pick_head(task: str, head: str | None) -> str:
    """The head to build: the named one, or the task's first.

    Raises:
        UserError: the task is unknown, or it has no such head (a task that has it is named).
    """
    if task not in HEADS:
        raise UserError(f"expected a task, one of {', '.join(TASKS)}; got {task!r}.{suggest(task, TASKS)}")
    if head is None:
        return HEADS[task][0]
    if head not in HEADS[task]:
        other = [name for name, heads in HEADS.items() if head in heads]
        hint = f" It belongs to --task {other[0]}." if other else suggest(head, HEADS[task])
        raise UserError(f"the task {task} has the heads {', '.join(HEADS[task])}, not {head!r}.{hint}")
    return head


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
    rpn_proposals_train: int = option(2000, "proposals kept an image in training, before and after suppression", low=1)
    rpn_proposals_test: int = option(1000, "proposals kept an image in evaluation", low=1)
    rpn_batch: int = option(256, "anchors an image that the proposal loss samples", low=1)
    roi_batch: int = option(512, "proposals an image that the box loss samples", low=1)
    box_head: str = option("2fc", "layers before the box predictor", choices=("2fc", "4conv1fc"))
    box_channels: int = option(1024, "outputs of the box head's linear layers", low=1)
    box_size: int = option(7, "side of the map a box is pooled to", low=1)
    pool_scale: int = option(224, "side, pixels, of a box that is pooled from the level of stride 16", low=1)
    mask_size: int = option(14, "side of the map a mask is predicted from; the mask has twice that", low=1)
    mask_channels: int = option(256, "channels of the mask head's convolutions", low=1)
    cascade_ious: tuple[float, ...] = option((0.5, 0.6, 0.7), "overlap that counts as a hit, a cascade stage each",
                                             above=0, below=1)  # fmt: skip
    score_threshold: float = option(0.05, "detections with a lower score are dropped", low=0, below=1)
    nms_threshold: float = option(
        0.5, "overlap above which the lower of two boxes of a class is dropped", above=0, high=1
    )
    max_detections: int = option(100, "detections kept an image", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("anchor_ratios", "cascade_ious"):
            if not getattr(self, name):
                raise UserError(f"{name} needs at least one number.")


@dataclass(frozen=True, kw_only=True)
class Segmenter(Section):
    """A semantic segmenter: how fine its map is and what its loss is made of."""

    output_stride: int = option(8, "stride of the last feature map: 4, 8, 16 or 32", low=4, high=32)
    aux_weight: float = option(0.5, "weight of the auxiliary loss on stage 3; 0: no auxiliary head", low=0)
    head_channels: int | None = option(None, "channels inside the head; null: the head's usual number", low=1)
    head_dropout: float = option(0.1, "dropout before the head's last convolution", low=0, below=1)
    atrous_rates: tuple[int, ...] = option(
        (), "DeepLabV3: rates of the dilated branches; empty: 12, 24, 36 at stride 8 and half of it at 16", low=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output_stride & (self.output_stride - 1):
            raise UserError(f"output_stride must be 4, 8, 16 or 32, not {self.output_stride}.")
