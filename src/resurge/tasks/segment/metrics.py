"""Scores of label maps: intersection over union of each class, and how many pixels are right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from resurge.errors import UserError


def confusion_matrix(predicted: Any, truth: Any, classes: int, ignore: int = 255) -> np.ndarray:
    """int64 (classes, classes): pixels by [true class][predicted class]; none where the truth is `ignore`.

    Args:
        predicted: (H, W) class indices, array or tensor.
        truth: (H, W) class indices, and `ignore`.

    Raises:
        UserError: the truth has a class there is none for.
        ValueError: another shape, or a predicted class there is none for.
    """
    predicted, truth = (_array(values) for values in (predicted, truth))
    if predicted.shape != truth.shape:
        raise ValueError(f"expected two maps of one size; got {predicted.shape} and {truth.shape}")
    counted = truth != ignore
    true, told = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)
    for name, values in (("true", true), ("predicted", told)):
        if values.size and (values.min() < 0 or values.max() >= classes):
            wrong = int(values.max() if values.max() >= classes else values.min())
            message = f"a {name} label map holds the class {wrong}, but there are {classes} classes, from 0"
            if name == "predicted":
                raise ValueError(message)
            raise UserError(f"{message}. Pixels without a class are to be marked with {ignore}.")
    return np.bincount(true * classes + told, minlength=classes**2).reshape(classes, classes)


def scores_of(confusion: np.ndarray) -> dict[str, Any]:
    """What a confusion matrix [true][predicted] says.

    `iou` (K,): pixels that are and are told to be of the class / pixels that are either; NaN for a class that is
    neither in the truth nor told. `accuracy` (K,): share of the class's pixels that are told right; NaN without any.
    `miou`, `mean_accuracy`: means over the classes where it is defined; `pixel_accuracy`: share of all pixels that are
    right; None where there is nothing to divide by.
    """
    right, there, told = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    iou, accuracy = _ratio(right, there + told - right), _ratio(right, there)
    return {
        "miou": _mean(iou),
        "pixel_accuracy": float(right.sum() / there.sum()) if there.sum() else None,
        "mean_accuracy": _mean(accuracy),
        "iou": iou,
        "accuracy": accuracy,
    }


class LabelMapScores:
    """Adds up the confusion matrix of label maps over images."""

    def __init__(self, classes: Sequence[str], ignore: int = 255) -> None:
        self.classes = tuple(classes)
        self.ignore = ignore
        self._confusion = np.zeros((len(self.classes), len(self.classes)), dtype=np.int64)

    def add(self, predicted: Any, truth: Any) -> np.ndarray:
        """Take in one image, (H, W) class indices each; returns its own confusion matrix. Raises as that."""
        confusion = confusion_matrix(predicted, truth, len(self.classes), self.ignore)
        self._confusion += confusion
        return confusion

    def state(self) -> np.ndarray:
        """What has been added up: int64 (K, K)."""
        return self._confusion

    def merge(self, states: Iterable[np.ndarray]) -> None:
        """Add what others have added up, in any order."""
        for state in states:
            self._confusion = self._confusion + state

    def compute(self) -> dict[str, Any]:
        """`miou`, `pixel_accuracy`, `mean_accuracy` in 0..1 (see `scores_of`), `per_class` (class, pixels, iou,
        accuracy; None where undefined) and `confusion` in pixels, [true][predicted]."""
        scores = scores_of(self._confusion)
        iou, accuracy = scores.pop("iou"), scores.pop("accuracy")
        pixels = self._confusion.sum(axis=1).tolist()
        return {
            **scores,
            "per_class": [
                {"class": name, "pixels": pixels[k], "iou": _or_none(iou[k]), "accuracy": _or_none(accuracy[k])}
                for k, name in enumerate(self.classes)
            ],
            "confusion": self._confusion.tolist(),
        }


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float | None:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
