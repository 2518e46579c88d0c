"""The results of a detector in torch, at the sizes of the images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from resurge.tasks.detect.boxes import postprocess
from resurge.tasks.detect.metrics import encode_masks
from resurge.tasks.detect.predict import Found
from resurge.tasks.result import Size
from resurge.tasks.task import Inputs

_PIXELS_AT_ONCE = 1 << 27  # of masks at the size of the image, before they are run lengths


def find(model: Any, inputs: Inputs, sizes: Sequence[Size], score: float) -> Iterator[Found]:
    """The objects in each image with at least this score.

    Memory is bounded by the images of the batch: masks are brought to the size of the image a few at a time and kept as
    run lengths.

    Args:
        model: a detector, in evaluation mode.
        sizes: height and width of each image as it was given.
    """
    images = torch.from_numpy(inputs.images).to(next(model.parameters()).device)
    seen = [(int(height), int(width)) for height, width in inputs.sizes]
    with torch.inference_mode():
        detections = model(images, seen)
    for found, own, size in zip(detections, seen, sizes, strict=True):
        with torch.inference_mode():
            yield _at_own_size(found, own, size, score)


def _at_own_size(found: dict[str, Tensor], seen: Size, size: Size, score: float) -> Found:
    fine = (found["scores"] >= score) & found["boxes"].isfinite().all(1)
    found = {key: value[fine] for key, value in found.items()}
    order = found["scores"].argsort(descending=True, stable=True)
    found = {key: value[order] for key, value in found.items()}
    parts: list[dict[str, Tensor]] = []
    masks: list[dict[str, Any]] = []
    step = max(1, _PIXELS_AT_ONCE // (size[0] * size[1])) if "masks" in found else max(1, len(order))
    for start in range(0, len(order), step):
        few = {key: value[start : start + step] for key, value in found.items()}
        (own,) = postprocess([few], [seen], [size])
        if "masks" in own:
            masks += encode_masks(own.pop("masks").cpu(), size)
        parts.append(own)
    whole = {key: torch.cat([part[key] for part in parts]) for key in parts[0]} if parts else found
    return Found(
        whole["boxes"].double().cpu().numpy().reshape(-1, 4),
        whole["scores"].double().cpu().numpy(),
        whole["labels"].cpu().numpy(),
        masks if "masks" in found else None,
    )
