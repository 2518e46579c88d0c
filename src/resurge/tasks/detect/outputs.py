"""What an exported detector is given and what its outputs mean. Imports no torch.

The outputs: boxes float32 (N, D, 4) in the pixels of the batch, scores float32 (N, D), 0 where a place is not taken,
labels int64 (N, D), and of an instance segmenter masks float32 (N, D, s, s), probabilities within the box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from resurge.tasks.detect.predict import Found
from resurge.tasks.resizing import enlarged

Outputs = Mapping[str, np.ndarray]
Size = tuple[int, int]  # height, width

STRIDE = 32  # the sides of a batch are multiples of it, as in training's evaluation
_INSIDE = 0.5  # probability from which a pixel is of the object


@dataclass(frozen=True)
class Suppression:
    """How candidates become objects: one whose score is not above `score`, or with a side below `smallest` pixels,
    goes; of two of a class that overlap by more than `overlap` the lower one goes; `most` of an image stay."""

    score: float
    overlap: float
    most: int
    smallest: float

    @staticmethod
    def of(told: Mapping[str, Any]) -> Suppression | None:
        """What the `export` part of model.json says is left to do; None where the network did it itself."""
        values = told.get("suppression")
        return None if values is None else Suppression(**values)

    def __call__(self, outputs: Outputs) -> dict[str, np.ndarray]:
        """Candidates (N, n) -> objects (N, D), the best first; places that are not taken have the score 0."""
        batch = len(outputs["scores"])
        boxes = np.zeros((batch, self.most, 4), dtype=np.float32)
        scores = np.zeros((batch, self.most), dtype=np.float32)
        labels = np.full((batch, self.most), -1, dtype=np.int64)
        for row in range(batch):
            kept = self._kept(*(outputs[name][row] for name in ("boxes", "scores", "labels")))
            for made, name in ((boxes, "boxes"), (scores, "scores"), (labels, "labels")):
                made[row, : len(kept)] = outputs[name][row][kept]
        return {"boxes": boxes, "scores": scores, "labels": labels}

    def _kept(self, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        sides = boxes[:, 2:] - boxes[:, :2]
        fine = np.flatnonzero((scores > self.score) & (sides >= self.smallest).all(axis=1))
        kept: list[np.ndarray] = []
        for label in np.unique(labels[fine]):
            own = fine[labels[fine] == label]
            own = own[np.argsort(-scores[own], kind="stable")]
            kept.append(own[_surviving(boxes[own], self.overlap)])
        every = np.concatenate(kept) if kept else fine
        return every[np.argsort(-scores[every], kind="stable")][: self.most]


def _surviving(boxes: np.ndarray, overlap: float) -> np.ndarray:
    """Which boxes (n, 4), best first, stay."""
    stay = np.ones(len(boxes), dtype=bool)
    for row in range(len(boxes)):
        if stay[row]:
            stay[row + 1 :] &= ~(overlaps(boxes[row : row + 1], boxes[row + 1 :])[0] > overlap)
    return stay


def overlaps(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (n, 4) and (m, 4): (n, m); not a number for two boxes without an area."""
    low = np.maximum(ours[:, None, :2], theirs[None, :, :2])
    high = np.minimum(ours[:, None, 2:], theirs[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=2)
    ours_area, theirs_area = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (ours, theirs))
    with np.errstate(invalid="ignore"):
        shares: np.ndarray = common / (ours_area[:, None] + theirs_area[None] - common)
    return shares


def batched(arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Images (C, h, w) -> float32 (N, C, H, W), zeros at the right and below, and their sizes int64 (N, 2)."""
    sizes = np.array([array.shape[1:] for array in arrays], dtype=np.int64)
    height, width = -(-sizes.max(axis=0) // STRIDE) * STRIDE
    images = np.zeros((len(arrays), arrays[0].shape[0], height, width), dtype=np.float32)
    for image, array in zip(images, arrays, strict=True):
        image[:, : array.shape[1], : array.shape[2]] = array
    return images, sizes


def found_in(outputs: Outputs, row: int, seen: Size, size: Size, score: float = 0.0) -> Found:
    """The objects of one image of a batch, in the pixels of the image as it was given.

    What `resurge.tasks.detect.boxes.postprocess` does with tensors.

    Args:
        seen: height and width that it had in the batch, without padding. size: that it has.
        score: leave out what has a lower score.
    """
    scores, boxes = outputs["scores"][row], outputs["boxes"][row].astype(np.float32)
    fine = np.flatnonzero((scores > 0) & (scores >= score) & np.isfinite(boxes).all(axis=1))
    fine = fine[np.argsort(-scores[fine], kind="stable")]
    down, across = (np.float32(new) / np.float32(old) for new, old in zip(size, seen, strict=True))
    scale = np.array([across, down, across, down], dtype=np.float32)
    limits = np.array([size[1], size[0], size[1], size[0]], dtype=np.float32)
    boxes = np.clip(boxes[fine] * scale, 0, limits)
    masks = None
    if "masks" in outputs:
        from resurge.tasks.detect.run_lengths import encode_mask

        shares = outputs["masks"][row][fine]
        masks = [encode_mask(pasted(share, box, size)) for share, box in zip(shares, boxes, strict=True)]
    return Found(
        boxes.astype(np.float64), scores[fine].astype(np.float64), outputs["labels"][row][fine].astype(np.int64), masks
    )


def pasted(share: np.ndarray, box: np.ndarray, size: Size) -> np.ndarray:
    """Probabilities (s, s) within a box (4,) -> bool (height, width), true from a half on.

    As torchvision pastes: the map gets a border of zeros, the box grows by as much, its corners are cut to whole
    pixels, and the last pixel is of it.
    """
    whole = np.zeros(size, dtype=bool)
    side = share.shape[-1]
    half = (box[2:] - box[:2]) * np.float32(0.5) * np.float32((side + 2) / side)
    middle = (box[2:] + box[:2]) * np.float32(0.5)
    left, top = (middle - half).astype(np.int64)
    right, bottom = (middle + half).astype(np.int64)
    height, width = max(bottom - top + 1, 1), max(right - left + 1, 1)
    inside = enlarged(np.pad(share.astype(np.float32), 1)[None], (height, width))[0] >= _INSIDE
    x0, x1 = max(left, 0), min(right + 1, size[1])
    y0, y1 = max(top, 0), min(bottom + 1, size[0])
    if x0 < x1 and y0 < y1:
        whole[y0:y1, x0:x1] = inside[y0 - top : y1 - top, x0 - left : x1 - left]
    return whole
