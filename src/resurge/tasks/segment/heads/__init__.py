"""The heads of a segmenter, each in a module of its name. Imports no torch.

A head maps the feature maps of the stages, each (N, C, h, w), to logits (N, K, h', w'). Its last layer is its attribute
`predict`. A new head is one file beside this one and one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from resurge.plugins import Table

if TYPE_CHECKING:
    from torch import nn

    from resurge.arch.backbone import Backbone
    from resurge.tasks.segment.settings import Segmenter

    Build = Callable[[Backbone, int, Segmenter], nn.Module]

HEADS: Mapping[str, Build] = Table(
    "segment.head",
    {
        "deeplabv3": f"{__name__}.deeplabv3:AtrousPyramidHead",
        "fcn": f"{__name__}.fcn:build",
        "pspnet": f"{__name__}.pspnet:PyramidPoolingHead",
    },
)
"""Functions that make a head with random weights from a backbone, a number of classes and the numbers of a
`Segmenter`. By name; the first one is the default."""
