"""The tables of heads. A new head is one file beside this one and one line here. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from resurge.plugins import Table

if TYPE_CHECKING:
    from resurge.arch.backbone import Backbone
    from resurge.tasks.detect.head import Head
    from resurge.tasks.detect.pyramid import Pyramid
    from resurge.tasks.detect.settings import Detector

    Build = Callable[[Backbone, int, Detector], tuple[Pyramid, Head]]

BOX_HEADS: Mapping[str, Build] = Table(
    "detect.head",
    {
        "faster_rcnn": "resurge.tasks.detect.regions:faster_rcnn",
        "cascade_rcnn": "resurge.tasks.detect.regions:cascade_rcnn",
        "retinanet": "resurge.tasks.detect.retina:retinanet",
    },
)
"""Functions that make the pyramid and the head from a backbone, a number of classes without the background, and the
numbers of a `Detector`, with random weights. By name; the first one is the default."""

MASK_HEADS: Mapping[str, Build] = Table(
    "instances.head",
    {
        "mask_rcnn": "resurge.tasks.detect.regions:mask_rcnn",
        "cascade_mask_rcnn": "resurge.tasks.detect.regions:cascade_mask_rcnn",
    },
)
"""The same of heads whose objects have masks."""

_BOXES_ALONE = ("mask_size", "mask_channels")
UNUSED: Mapping[str, tuple[str, ...]] = {
    "faster_rcnn": (*_BOXES_ALONE, "cascade_ious"),
    "cascade_rcnn": _BOXES_ALONE,
    "retinanet": (
        *_BOXES_ALONE, "cascade_ious", "rpn_convs", "rpn_proposals_train", "rpn_batch", "roi_batch", "box_head",
        "box_channels", "box_size", "pool_scale",
    ),
    "mask_rcnn": ("cascade_ious",),
}  # fmt: skip
"""The fields of `Detector` that do nothing in a head, by its name."""
