"""Results of semantic segmentation. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from resurge.files import Json
from resurge.tasks.result import Result, Size, between, mixed

_STRIP = 1 << 22  # values of an enlarged map at a time


@dataclass(frozen=True)
class LabelMap(Result):
    """classes: uint8 (H, W), the class of every pixel. confidence: the mean probability of these classes."""

    classes: np.ndarray
    confidence: float

    @staticmethod
    def of(values: np.ndarray, size: Size) -> LabelMap:
        """From float32 (K, h, w), logits or logarithms of probabilities, resized to the image's (H, W)."""
        labels, shares = enlarged_classes(values, size)
        return LabelMap(labels, float(shares.mean(dtype=np.float64)))

    @staticmethod
    def of_decided(labels: np.ndarray, confidence: np.ndarray, size: Size) -> LabelMap:
        """From classes (h, w) and their probabilities (h, w), resized to the image's (H, W)."""
        labels = labels.astype(np.uint8)
        if labels.shape != size:
            labels = np.asarray(Image.fromarray(labels).resize((size[1], size[0]), Image.Resampling.NEAREST))
        return LabelMap(labels, float(confidence.mean(dtype=np.float64)))

    @property
    def label_map(self) -> np.ndarray:
        return self.classes

    def shares(self, classes: Sequence[str]) -> list[tuple[str, int, float]]:
        """(class, its pixels, their share of the image) of the classes that are there, largest first."""
        counts = np.bincount(self.classes.ravel(), minlength=len(classes))
        order = np.argsort(-counts, kind="stable")
        return [(classes[k], int(counts[k]), float(counts[k] / counts.sum())) for k in order if counts[k]]

    def to_json(
        self, classes: Sequence[str], top: int | None = None, *, score: float = 0.0, masks: bool = True
    ) -> Json:
        """Without the pixels."""
        shares = self.shares(classes)
        return {
            "confidence": self.confidence,
            "classes": [{"class": name, "pixels": pixels, "share": share} for name, pixels, share in shares],
        }

    def to_text(self, classes: Sequence[str], top: int = 1) -> str:
        return ", ".join(f"{name} {100 * share:.1f} %" for name, _, share in self.shares(classes))

    def to_rows(self, classes: Sequence[str], top: int = 1) -> Iterator[list[str]]:
        for name, pixels, share in self.shares(classes):
            yield [name, str(pixels), f"{share:.6f}"]


def enlarged_classes(values: np.ndarray, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """The most probable class of every pixel of an image of (H, W), uint8, and its probability, float32: what
    `resurge.tasks.segment.metrics.enlarged_classes` does with tensors."""
    values = values.astype(np.float32, copy=False)
    classes, rows, columns = values.shape
    height, width = size
    down, across = between(rows, height), between(columns, width)
    labels = np.empty(size, dtype=np.uint8)
    shares = np.empty(size, dtype=np.float32)
    step = max(1, _STRIP // (classes * width))
    for start in range(0, height, step):
        strip = slice(start, start + step)
        part = mixed(values, 1, *(side[strip] for side in down))
        part = part if columns == width else mixed(part, 2, *across)
        label = part.argmax(axis=0)
        highest = np.take_along_axis(part, label[None], axis=0)
        labels[strip] = label
        shares[strip] = 1 / np.exp(part - highest).sum(axis=0)
    return labels, shares
