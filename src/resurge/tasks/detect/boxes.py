"""Boxes before and after the network: target filtering, rescaling to the original image, pasting of masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from resurge.errors import UserError
from resurge.tasks.detect.outputs import pasted
from resurge.tasks.detect.slots import clip
from resurge.tasks.result import Size


def clean_targets(
    targets: Sequence[Mapping[str, Tensor]], sizes: Sequence[Size], num_classes: int, device: torch.device, masks: bool
) -> list[dict[str, Tensor]]:
    """The objects that can be learnt from, with labels that leave 0 to the background.

    A box without a side, with a coordinate that is no number, or wholly outside its image is left out: no anchor
    overlaps it, so that the rule "the best anchor of each object is a hit" would take every anchor.

    Args:
        targets: for each image boxes (n, 4), labels (n,) from 0, and masks (n, h, w) if `masks`.

    Raises:
        UserError: a target lacks something or has another shape, or a label is no class.
    """
    if len(targets) != len(sizes):
        raise UserError(f"expected targets for {len(sizes)} images, got {len(targets)}.")
    needed = ("boxes", "labels", "masks") if masks else ("boxes", "labels")
    cleaned = []
    for target, (height, width) in zip(targets, sizes, strict=True):
        absent = [name for name in needed if name not in target]
        if absent:
            raise UserError(f"a target needs {', '.join(needed)}; one without {', '.join(absent)} came.")
        boxes = torch.as_tensor(target["boxes"], device=device).float().reshape(-1, 4)
        labels = torch.as_tensor(target["labels"], device=device).long().reshape(-1)
        if len(labels) != len(boxes) or (masks and len(target["masks"]) != len(boxes)):
            counts = ", ".join(f"{len(target[name])} {name}" for name in needed)
            raise UserError(f"a target needs as many of each of {', '.join(needed)}; got {counts}.")
        wrong = (labels < 0) | (labels >= num_classes)
        if wrong.any():
            found = sorted(set(labels[wrong].tolist()))[:5]
            raise UserError(f"the classes are 0 to {num_classes - 1}; a target holds the label {found[0]}.")
        (left, top, right, bottom) = boxes.unbind(1)
        keep = (right > left) & (bottom > top) & (right > 0) & (bottom > 0) & (left < width) & (top < height)
        keep &= boxes.isfinite().all(1)
        kept = {"boxes": boxes[keep], "labels": labels[keep] + 1}
        if masks:
            kept["masks"] = torch.as_tensor(target["masks"], device=device)[keep]
        cleaned.append(kept)
    return cleaned


def postprocess(
    detections: Sequence[Mapping[str, Tensor]], sizes: Sequence[Size], originals: Sequence[Size]
) -> list[dict[str, Tensor]]:
    """Detections in the pixels of the network's input -> in those of the original images.

    Args:
        detections: for each image boxes (n, 4), scores, labels, and perhaps masks (n, 1, s, s), probabilities.
        sizes: (height, width) that each image had in the batch, without padding.
        originals: (height, width) that it had before.

    Returns:
        The same; boxes are clipped to the image and masks are pasted into it, bool (n, height, width).
    """
    results = []
    for found, seen, (height, width) in zip(detections, sizes, originals, strict=True):
        boxes = found["boxes"]
        limits, before = boxes.new_tensor([width, height] * 2), boxes.new_tensor([seen[1], seen[0]] * 2)
        result = {**found, "boxes": clip(boxes * (limits / before), limits)}
        if "masks" in found:
            masks = np.zeros((len(boxes), height, width), dtype=bool)
            shares, places = (values.detach().float().cpu().numpy() for values in (found["masks"], result["boxes"]))
            for mask, share, box in zip(masks, shares, places, strict=True):
                mask[:] = pasted(share[0], box, (height, width))
            result["masks"] = torch.from_numpy(masks).to(boxes.device)
        results.append(result)
    return results
