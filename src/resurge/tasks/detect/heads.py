"""The table of heads. A new head is one file beside this one and one line here. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resurge.arch.backbone import Backbone
    from resurge.tasks.detect.head import Head
    from resurge.tasks.detect.pyramid import Pyramid
    from resurge.tasks.detect.settings import Detector


@dataclass(frozen=True)
class HeadEntry:
    """A head by the place of its code.

    module: the module of this package that has a function of the head's name. masks: whether its objects have masks.
    """

    module: str
    masks: bool = False


HEADS = {
    "faster_rcnn": HeadEntry("regions"),
    "cascade_rcnn": HeadEntry("regions"),
    "retinanet": HeadEntry("retina"),
    "mask_rcnn": HeadEntry("regions", masks=True),
    "cascade_mask_rcnn": HeadEntry("regions", masks=True),
}
"""By name; of the heads with and of those without masks the first one is the default."""


def names_of_heads(masks: bool) -> tuple[str, ...]:
    """The heads whose objects have masks, or the others."""
    return tuple(name for name, entry in HEADS.items() if entry.masks == masks)


def build_head(name: str, backbone: Backbone, num_classes: int, settings: Detector) -> tuple[Pyramid, Head]:
    """The pyramid and the head, with random weights. `num_classes` does not count the background."""
    module = import_module(f"{__package__}.{HEADS[name].module}")
    built: tuple[Pyramid, Head] = getattr(module, name)(backbone, num_classes, settings)
    return built
