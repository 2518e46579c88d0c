"""The heads of a segmenter, each in a module of its name. Imports no torch.

A head maps the last feature map (N, C, h, w) to logits (N, K, h, w). Its module has a function
`build(channels, stride, num_classes, settings)` that makes one for a map of so many channels and this stride.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from resurge.errors import UserError, suggest

if TYPE_CHECKING:
    from torch import nn

    from resurge.tasks.segment.settings import Segmenter

HEADS = ("deeplabv3", "fcn", "pspnet")
"""The first one is the default."""


def build_head(name: str, channels: int, stride: int, num_classes: int, settings: Segmenter) -> nn.Module:
    """A head with random weights.

    Raises:
        UserError: there is no head of this name.
    """
    if name not in HEADS:
        raise UserError(f"the task segment has the heads {', '.join(HEADS)}, not {name!r}.{suggest(name, HEADS)}")
    head: nn.Module = importlib.import_module(f"{__name__}.{name}").build(channels, stride, num_classes, settings)
    return head
