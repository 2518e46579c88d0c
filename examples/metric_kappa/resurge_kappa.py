"""Cohen's kappa: agreement of prediction and truth beyond what chance gives (Cohen, 1960, equation 1)."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def of_images(probabilities: Tensor, labels: Tensor) -> float:
    """Of a classifier: probabilities (n, K) and labels (n,)."""
    classes = probabilities.shape[1]
    places = labels * classes + probabilities.argmax(1)
    return of_pixels(np.bincount(places.numpy(), minlength=classes**2).reshape(classes, classes))


def of_pixels(confusion: np.ndarray) -> float:
    """Of a segmenter: numbers of pixels (K, K) by [true class][predicted class]."""
    total = confusion.sum()
    agreed, chance = np.trace(confusion) / total, (confusion.sum(0) @ confusion.sum(1)) / total**2
    return float((agreed - chance) / (1 - chance)) if chance < 1 else 1.0
