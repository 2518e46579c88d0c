"""Small segmenters, and what the tests of them share."""

from __future__ import annotations

from torch import Tensor

from resurge.arch.backbone import Backbone
from resurge.arch.zoo import get_spec
from resurge.tasks.segment.layers import enlarge
from resurge.tasks.segment.model import SegmentationModel
from resurge.tasks.segment.settings import Segmenter

REJECTED = 1e-2  # what a wrong variant has to be off by, as a share of the peak
SMALL = "resnet50 depths=(1,1,1,1) planes=(8,16,16,32) stem=deep(8)"


def small(head: str = "fcn", classes: int = 4, spec: str = SMALL, **settings: object) -> SegmentationModel:
    """A segmenter of a few channels, not trained."""
    made = Segmenter(head_channels=16, **settings)  # type: ignore[arg-type]
    return SegmentationModel(Backbone(get_spec(spec), output_stride=made.output_stride), classes, head, made)


def auxiliary(model: SegmentationModel, images: Tensor) -> Tensor:
    """The logits of the auxiliary head, at the size of the images."""
    assert model.auxiliary is not None
    return enlarge(model.auxiliary(model.backbone(images)[:-1]), (images.shape[-2], images.shape[-1]))
