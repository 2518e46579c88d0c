"""What of a network's output is a smooth function of the images, so that two forms of it can be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

SHARES = (1, 2, 4, 8)
"""Parts of each side of an image that `diagonal_boxes` extend over."""


def smooth_outputs(model: nn.Module, images: Tensor) -> Iterator[Tensor]:
    """The outputs of a model for images (N, C, H, W), in its own type; of a detector see its `smooth_outputs`."""
    own = getattr(model, "smooth_outputs", None)
    found = model(images) if own is None else own(images)
    if isinstance(found, Tensor):
        yield found
    else:
        yield from found.values() if isinstance(found, Mapping) else found


def diagonal_boxes(limits: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (N * n, 4) along the diagonal of each image, and the image int64 (N * n,) of each.

    They are of all `SHARES`, so that some are pooled from every level of a pyramid.

    Args:
        limits: (N, 4), width, height, width and height of each image.
    """
    places = [(place / share, (place + 1) / share) for share in SHARES for place in range(share)]
    unit = limits.new_tensor([(begin, begin, end, end) for begin, end in places])
    image = torch.arange(len(limits), device=limits.device).repeat_interleave(len(unit))
    return (unit * limits[:, None]).flatten(0, 1), image
