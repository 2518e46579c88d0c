"""How well a loss is known from some images: 95 % intervals of differences, on the same images before and after."""

from __future__ import annotations

import math
from collections.abc import Sequence

CONFIDENCE = 0.95
Interval = tuple[float, float]


def paired_interval(lost: int, gained: int, count: int) -> Interval:
    """Of the share of right decisions that is lost, of `count` on the same images, of which `lost` are right before
    alone and `gained` after alone: the score interval of Tango (1998, Statistics in Medicine 17:891), which inverts
    McNemar's test and holds for few images and shares near 0."""
    from scipy.optimize import brentq
    from scipy.stats import norm

    def score(loss: float) -> float:
        a, b = 2 * count, (2 * count - lost + gained) * loss - lost - gained
        c = -gained * loss * (1 - loss)
        nuisance = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = count * (2 * nuisance + loss * (1 - loss))
        return (lost - gained - count * loss) / math.sqrt(max(variance, 1e-12))

    z, middle, edge = norm.ppf((1 + CONFIDENCE) / 2), (lost - gained) / count, 1 - 1e-9
    low = -1.0 if score(-edge) < z else brentq(lambda loss: score(loss) - z, -edge, middle)
    high = 1.0 if score(edge) > -z else brentq(lambda loss: score(loss) + z, middle, edge)
    return float(low), float(high)


def share_interval(part: int, count: int) -> Interval:
    """Of a share: Wilson's (1927)."""
    from scipy.stats import binomtest

    found = binomtest(part, count).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def jackknife_interval(value: float, without: Sequence[float]) -> Interval:
    """Of a score that is no mean over images, such as AP or mIoU, from its values `without` one group of the images
    each: the grouped jackknife (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 11)."""
    from scipy.stats import t

    count = len(without)
    if count < 2:
        return -math.inf, math.inf
    mean = sum(without) / count
    error = math.sqrt((count - 1) / count * sum((each - mean) ** 2 for each in without))
    half = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * error
    return value - half, value + half
