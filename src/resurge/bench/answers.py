"""Whether what runs in a race computes what it should: a fast network that does not is of no interest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

APART = {"fp32": 1e-3, "bf16": 0.25}
"""How far an answer may be from the network's own in fp32, as a share of the largest: beyond it nothing is timed.

fp32 stays below a thousandth even in networks this deep, and bf16 does not, so that fp32 is known to be fp32. What int8
loses is stated and not judged: random weights say little of it.
"""
SAME = 1e-4
"""The same between two networks in torch, both in fp32."""


def answers(net: nn.Module, images: np.ndarray) -> np.ndarray:
    """What a network in torch, as it stands, answers to images float32 (N, C, H, W)."""
    with torch.inference_mode():
        found: np.ndarray = net(torch.from_numpy(images)).numpy()
    return found


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest, as a share of the largest value expected; not a number where one of them is not."""
    peak = max(float(np.abs(expected).max()), 1e-30)
    return float(np.abs(found.astype(np.float64) - expected).max()) / peak


@dataclass(frozen=True)
class Compared:
    """difference: of the answers, as a share of the largest; agreement: share of decisions that are the same. Both
    None where there is nothing to compare with."""

    difference: float | None = None
    agreement: float | None = None

    @staticmethod
    def of(found: np.ndarray, expected: np.ndarray | None) -> Compared:
        if expected is None:
            return Compared()
        same = float((found.argmax(1) == expected.argmax(1)).mean())
        return Compared(difference(found, expected), same)

    def fits(self, precision: str) -> bool:
        """Whether the answers are near enough for the precision; where nothing can be compared they are."""
        return self.difference is None or self.difference <= APART.get(precision, np.inf)

    def to_json(self) -> dict[str, Any]:
        return {"difference": self.difference, "agreement": self.agreement}
