"""What a model says of an image: classes, objects, or a class for every pixel. Imports no torch.

An answer is in the pixels of the image as it was given, upright, whatever size the network saw it at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_STRIP = 1 << 22  # values of an enlarged map at a time


@dataclass(frozen=True)
class Classified:
    """The classes of an image, the most probable first.

    names: of all classes. scores: float32 (K,), their probabilities, in the same order.
    """

    names: tuple[str, ...]
    scores: np.ndarray

    @staticmethod
    def of(logits: np.ndarray, classes: Sequence[str]) -> Classified:
        """From logits (K,)."""
        shares = softmax(logits)
        order = np.argsort(-shares, kind="stable")
        return Classified(tuple(classes[index] for index in order), shares[order])

    def best(self, count: int) -> Iterator[tuple[str, float]]:
        """(class, probability) of the `count` most probable."""
        return zip(self.names[:count], self.scores[:count].tolist(), strict=True)

    def to_json(self, classes: Sequence[str] = (), count: int | None = None) -> dict[str, Any]:
        """As plain data. `count` classes, all of them by default; `classes` is not needed, the names are here."""
        count = len(self.names) if count is None else count
        return {"predictions": [{"class": name, "score": score} for name, score in self.best(count)]}


@dataclass(frozen=True)
class Found:
    """The n objects of an image, surest first.

    boxes: float64 (n, 4) x1, y1, x2, y2. scores: float64 (n,). labels: int64 (n,). masks: n COCO run lengths, or None
    where the model gives no masks.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: list[dict[str, Any]] | None

    def __len__(self) -> int:
        return len(self.scores)

    def decoded(self) -> Iterator[np.ndarray] | None:
        """The masks as bool (H, W), one after the other."""
        if self.masks is None:
            return None
        from faster_coco_eval.core import mask as run_lengths

        return (run_lengths.decode(mask).astype(bool) for mask in self.masks)

    def to_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """As plain data."""
        return {"objects": [self._object(row, classes) for row in range(len(self))]}

    def _object(self, row: int, classes: Sequence[str]) -> dict[str, Any]:
        plain: dict[str, Any] = {
            "class": classes[self.labels[row]],
            "score": float(self.scores[row]),
            "box": [round(side, 2) for side in self.boxes[row].tolist()],
        }
        return plain if self.masks is None else plain | {"mask": as_text(self.masks[row])}


def as_text(mask: dict[str, Any]) -> dict[str, Any]:
    """Compressed run lengths as JSON holds them."""
    counts = mask["counts"]
    return {"size": list(mask["size"]), "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}


@dataclass(frozen=True)
class LabelMap:
    """classes: uint8 (H, W), the class of every pixel. confidence: the mean probability of these classes."""

    classes: np.ndarray
    confidence: float

    @staticmethod
    def of(values: np.ndarray, size: tuple[int, int]) -> LabelMap:
        """From float32 (K, h, w), logits or logarithms of probabilities, resized to the image's (H, W)."""
        labels, shares = enlarged_classes(values, size)
        return LabelMap(labels, float(shares.mean(dtype=np.float64)))

    def shares(self, classes: Sequence[str]) -> list[tuple[str, int, float]]:
        """(class, its pixels, their share of the image) of the classes that are there, largest first."""
        counts = np.bincount(self.classes.ravel(), minlength=len(classes))
        order = np.argsort(-counts, kind="stable")
        return [(classes[k], int(counts[k]), float(counts[k] / counts.sum())) for k in order if counts[k]]

    def to_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """As plain data, without the pixels."""
        shares = self.shares(classes)
        return {
            "confidence": self.confidence,
            "classes": [{"class": name, "pixels": pixels, "share": share} for name, pixels, share in shares],
        }


Answer = Classified | Found | LabelMap


def softmax(logits: np.ndarray) -> np.ndarray:
    """float32 (..., K), summing to one over the last axis."""
    logits = logits.astype(np.float32)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def enlarged_classes(values: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The most probable class of every pixel of the image, and its probability.

    What `resurge.tasks.evaluate_scenes.enlarged_classes` does with tensors: bilinear, align_corners=False, strip by
    strip, since with many classes the enlarged values would fill the memory.

    Args:
        values: (K, h, w) logits, or logarithms of probabilities; K is at most 256.
        size: (H, W) of the image.

    Returns:
        uint8 (H, W), float32 (H, W).
    """
    values = values.astype(np.float32, copy=False)
    classes, rows, columns = values.shape
    height, width = size
    down, across = _between(rows, height), _between(columns, width)
    labels = np.empty(size, dtype=np.uint8)
    shares = np.empty(size, dtype=np.float32)
    step = max(1, _STRIP // (classes * width))
    for start in range(0, height, step):
        strip = slice(start, start + step)
        part = _mixed(values, 1, *(side[strip] for side in down))
        part = part if columns == width else _mixed(part, 2, *across)
        label = part.argmax(axis=0)
        highest = np.take_along_axis(part, label[None], axis=0)
        labels[strip] = label
        shares[strip] = 1 / np.exp(part - highest).sum(axis=0)
    return labels, shares


def enlarged(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 (K, h, w) resized to (K, *size), bilinear, align_corners=False, all at once."""
    _, rows, columns = values.shape
    return _mixed(_mixed(values, 1, *_between(rows, size[0])), 2, *_between(columns, size[1]))


def _between(count: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `wanted` pixels: the two of `count` it lies between, and how near it is to the second."""
    at = np.maximum((np.arange(wanted) + 0.5) * (count / wanted) - 0.5, 0)
    first = np.minimum(at.astype(np.int64), count - 1)
    return first, np.minimum(first + 1, count - 1), (at - first).astype(np.float32)


def _mixed(values: np.ndarray, axis: int, first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    near, far = values.take(first, axis=axis), values.take(second, axis=axis)
    far -= near
    far *= share[:, None] if axis == 1 else share
    near += far
    return near
