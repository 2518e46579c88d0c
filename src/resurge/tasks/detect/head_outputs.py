"""What of a network's output is a smooth function of the images, so that two forms of it can be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RPNHead

from resurge.tasks.detect.pyramid import Size, image_batch
from resurge.tasks.detect.regions import RegionHead
from resurge.tasks.detect.retina import RetinaHead

SHARES = (1, 2, 4, 8)
"""Of each side of the image: what the boxes that a detector is asked about extend over."""


def smooth_outputs(model: nn.Module, images: Tensor) -> Iterator[Tensor]:
    """What a model puts out for images (N, C, H, W), in its own type.

    Of a detector that is all its layers put out, before anything is chosen by a threshold: the levels of its pyramid,
    what is said of every anchor and, of boxes that are always the same, the logits, offsets and masks of each stage.
    """
    if hasattr(model, "fpn"):
        yield from _of_detector(model, images)
        return
    found: Any = model(images)
    if isinstance(found, Tensor):
        yield found
    else:
        yield from found.values() if isinstance(found, Mapping) else found


def _of_detector(model: Any, images: Tensor) -> Iterator[Tensor]:
    batch = image_batch(images, None, model.backbone.strides[-1])
    by_name = model.fpn(model.backbone(batch.tensors))
    levels = list(by_name.values())
    yield from levels
    head = model.head
    if isinstance(head, RetinaHead):
        yield from head.net(levels).values()
        return
    assert isinstance(head, RegionHead)
    for of_levels in RPNHead.forward(head.rpn.head, levels):  # our own head puts out float32, whatever it is made of
        yield from of_levels
    boxes = diagonal_boxes(batch.image_sizes)
    pooled = _pooled(head.box.pool, by_name, boxes, batch)
    for layers, predictor in zip(head.box.heads, head.box.predictors, strict=True):
        yield from predictor(layers(pooled))
    if head.mask is not None:
        pooled = _pooled(head.mask.pool, by_name, boxes, batch)
        for layers, predictor in zip(head.mask.heads, head.mask.predictors, strict=True):
            yield predictor(layers(pooled))


def diagonal_boxes(sizes: Sequence[Size]) -> list[Tensor]:
    """For each image boxes (n, 4) of all `SHARES`, along its diagonal: of every level of a pyramid some are pooled."""
    places = [(place / share, (place + 1) / share) for share in SHARES for place in range(share)]
    unit = torch.tensor([(begin, begin, end, end) for begin, end in places])
    return [unit * torch.tensor([width, height, width, height]) for height, width in sizes]


def _pooled(pool: Any, by_name: dict[str, Tensor], boxes: list[Tensor], batch: ImageList) -> Tensor:
    """What `pool` makes of the boxes, in the type of the levels; half precision is pooled in float32."""
    first = next(iter(by_name.values()))
    wide = torch.promote_types(first.dtype, torch.float32)
    levels = {name: level.to(wide) for name, level in by_name.items()}
    found: Tensor = pool(levels, [own.to(first.device, wide) for own in boxes], batch.image_sizes)
    return found.to(first.dtype)
