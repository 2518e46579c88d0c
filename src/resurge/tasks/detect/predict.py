"""Results of object detection and instance segmentation, from what a detector puts out. Imports no torch.

The outputs: boxes float32 (N, D, 4) in the pixels of the batch, scores float32 (N, D), 0 in a free slot,
labels int64 (N, D), and of an instance segmenter masks float32 (N, D, s, s), probabilities within the box.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from faster_coco_eval.core import mask as run_lengths

from resurge.data.regions import Rle, run_lengths_of
from resurge.files import MARK, atomic_write_text, require_free
from resurge.tasks.result import Result, Size, enlarged

Outputs = Mapping[str, np.ndarray]

STRIDE = 32  # the sides of a batch are multiples of it, as in training's evaluation
_INSIDE = 0.5  # probability from which a pixel is of the object


@dataclass(frozen=True)
class Found(Result):
    """The n objects of an image, the highest score first."""

    boxes: np.ndarray  # float64 (n, 4) x1, y1, x2, y2
    scores: np.ndarray  # float64 (n,)
    labels: np.ndarray  # int64 (n,)
    masks: list[Rle] | None  # None where the model gives no masks
    left_out: tuple[int, float] | None = None  # label and score of the surest object that was left out for its score

    def __len__(self) -> int:
        return len(self.scores)

    def from_score(self, score: float) -> Found:
        rows = np.flatnonzero(self.scores >= score)
        masks = None if self.masks is None else [self.masks[row] for row in rows]
        below = np.flatnonzero(self.scores < score)
        left_out = (int(self.labels[below[0]]), float(self.scores[below[0]])) if below.size else self.left_out
        return Found(self.boxes[rows], self.scores[rows], self.labels[rows], masks, left_out)

    def decoded(self) -> Iterator[np.ndarray] | None:
        """The masks as bool (H, W), one after the other."""
        if self.masks is None:
            return None
        return (run_lengths.decode(mask).astype(bool) for mask in self.masks)

    def to_json(
        self, classes: Sequence[str], top: int | None = None, *, score: float = 0.0, masks: bool = True
    ) -> dict[str, object]:
        rows = (row for row in range(len(self)) if self.scores[row] >= score)
        found: dict[str, object] = {"objects": [self._object(row, classes, masks) for row in rows]}
        if not found["objects"]:  # with the score that would show the surest one
            best = (self.labels[0], self.scores[0]) if len(self) else self.left_out
            found["best_left_out"] = best and {"class": classes[best[0]], "score": float(best[1])}
        return found

    def _object(self, row: int, classes: Sequence[str], masks: bool) -> dict[str, object]:
        plain: dict[str, object] = {
            "class": classes[self.labels[row]],
            "score": float(self.scores[row]),
            "box": [round(side, 2) for side in self.boxes[row].tolist()],
        }
        return plain | {"mask": _as_text(self.masks[row])} if masks and self.masks is not None else plain

    def to_text(self, classes: Sequence[str], top: int = 1) -> str:
        if not len(self):
            if self.left_out is None:
                return "nothing found, at any score"
            label, score = self.left_out
            lower = math.floor(100 * score) / 100
            return f"nothing found; the best score seen is {score:.3g}, of {classes[label]}: --score {lower:g} shows it"
        counted = Counter(self.labels.tolist()).most_common()
        counts = ", ".join(f"{number} {classes[label]}" for label, number in counted)
        return f"{counts}; surest {classes[self.labels[0]]} {100 * self.scores[0]:.2f} %"

    def to_rows(self, classes: Sequence[str], top: int = 1) -> Iterator[list[str]]:
        for box, score, label in zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True):
            yield [classes[label], f"{score:.6f}", *(f"{side:.2f}" for side in box)]


def _as_text(mask: Rle) -> dict[str, object]:
    """Run lengths as JSON holds them."""
    return {"size": list(mask["size"]), "counts": mask["counts"].decode("ascii")}


def found_in(outputs: Outputs, row: int, seen: Size, size: Size, score: float = 0.0) -> Found:
    """The objects of one image of a batch, in the pixels of the image as it was given; see `Task.decode`."""
    scores, boxes = outputs["scores"][row], outputs["boxes"][row].astype(np.float32)
    seen_rows = np.flatnonzero((scores > 0) & np.isfinite(boxes).all(axis=1))
    seen_rows = seen_rows[np.argsort(-scores[seen_rows], kind="stable")]
    fine = seen_rows[scores[seen_rows] >= score]
    lower = seen_rows[len(fine) :]
    left_out = (int(outputs["labels"][row][lower[0]]), float(scores[lower[0]])) if lower.size else None
    down, across = (np.float32(new) / np.float32(old) for new, old in zip(size, seen, strict=True))
    scale = np.array([across, down, across, down], dtype=np.float32)
    limits = np.array([size[1], size[0], size[1], size[0]], dtype=np.float32)
    boxes = np.clip(boxes[fine] * scale, 0, limits)
    masks = None
    if "masks" in outputs:
        shares = outputs["masks"][row][fine]
        masks = [run_lengths_of(pasted(share, box, size)).to_coco() for share, box in zip(shares, boxes, strict=True)]
    return Found(
        boxes.astype(np.float64), scores[fine].astype(np.float64), outputs["labels"][row][fine].astype(np.int64), masks,
        left_out,
    )  # fmt: skip


def pasted(share: np.ndarray, box: np.ndarray, size: Size) -> np.ndarray:
    """Probabilities (s, s) within a box (4,) -> bool (height, width), true from a half on. As torchvision pastes: the
    map gets a border of zeros, the box grows by as much, its corners are cut to whole pixels, and the last pixel is of
    it."""
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


def batched(arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Images (C, h, w) -> float32 (N, C, H, W), zeros at the right and below, and their sizes int64 (N, 2)."""
    sizes = np.array([array.shape[1:] for array in arrays], dtype=np.int64)
    height, width = -(-sizes.max(axis=0) // STRIDE) * STRIDE
    images = np.zeros((len(arrays), arrays[0].shape[0], height, width), dtype=np.float32)
    for image, array in zip(images, arrays, strict=True):
        image[:, : array.shape[1], : array.shape[2]] = array
    return images, sizes


# -------------------------------------------------------------------------------------------------------- suppression


@dataclass(frozen=True)
class Suppression:
    """How candidates become objects: one whose score is not above `score`, or with a side below `smallest` pixels,
    goes; of two of a class that overlap by more than `overlap` the lower one goes; `most` of an image stay."""

    score: float
    overlap: float
    most: int
    smallest: float

    @staticmethod
    def of(export: Mapping[str, object]) -> Suppression | None:
        """What the `export` part of model.json leaves to the caller; None where the network did it itself."""
        values = export.get("suppression")
        return Suppression(**values) if isinstance(values, dict) else None

    def __call__(self, outputs: Outputs) -> dict[str, np.ndarray]:
        """Candidates (N, n) -> objects (N, D), the best first; free slots have the score 0."""
        batch = len(outputs["scores"])
        found: dict[str, np.ndarray] = {
            "boxes": np.zeros((batch, self.most, 4), dtype=np.float32),
            "scores": np.zeros((batch, self.most), dtype=np.float32),
            "labels": np.full((batch, self.most), -1, dtype=np.int64),
        }
        for row in range(batch):
            kept = self._kept(*(outputs[name][row] for name in found))
            for name, values in found.items():
                values[row, : len(kept)] = outputs[name][row][kept]
        return found

    def _kept(self, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        sides = boxes[:, 2:] - boxes[:, :2]
        fine = np.flatnonzero((scores > self.score) & (sides >= self.smallest).all(axis=1))
        kept = [fine[:0]]
        for label in np.unique(labels[fine]):
            own = fine[labels[fine] == label]
            own = own[np.argsort(-scores[own], kind="stable")]
            kept.append(own[_surviving(boxes[own], self.overlap)])
        every = np.concatenate(kept)
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


# ---------------------------------------------------------------------------------------------------------- COCO file


class CocoFile:
    """Collects results and writes them as one COCO file with images, categories and annotations."""

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        require_free(path)
        self.path = path
        self.categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
        self.images: list[tuple[Path, tuple[int, int]]] = []
        self.annotations: list[dict[str, object]] = []

    def add(self, path: Path, size: tuple[int, int], found: Result) -> None:
        """Take in the result of one image; `size` is its width and height."""
        assert isinstance(found, Found)
        self.images.append((path.absolute(), size))
        areas = run_lengths.area(found.masks) if found.masks else []
        for row in range(len(found)):
            left, top, right, bottom = (round(side, 3) for side in found.boxes[row].tolist())
            width, height = round(right - left, 3), round(bottom - top, 3)
            entry: dict[str, object] = {
                "id": len(self.annotations) + 1,
                "image_id": len(self.images),
                "category_id": int(found.labels[row]) + 1,
                "bbox": [left, top, width, height],
                "area": round(width * height, 3) if found.masks is None else float(areas[row]),
                "iscrowd": 0,
                "score": float(found.scores[row]),
            }
            if found.masks is not None:
                entry["segmentation"] = _as_text(found.masks[row])
            self.annotations.append(entry)

    def write(self) -> None:
        """Write the file; images are named from the folder that holds all of them. Raises UserError when that fails."""
        root = os.path.commonpath([path.parent for path, _ in self.images]) if self.images else ""
        images = [
            {"id": number, "file_name": Path(os.path.relpath(path, root)).as_posix(), "width": width, "height": height}
            for number, (path, (width, height)) in enumerate(self.images, 1)
        ]
        content = {
            "info": {"description": MARK},
            "images": images,
            "categories": self.categories,
            "annotations": self.annotations,
        }
        atomic_write_text(self.path, json.dumps(content, ensure_ascii=False) + "\n")
