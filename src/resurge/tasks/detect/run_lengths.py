"""Masks as COCO's compressed run lengths. Imports no torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from resurge.data.regions import run_lengths_of

Rle = dict[str, Any]


def encode_mask(mask: np.ndarray) -> Rle:
    """The run lengths of a mask (height, width): bool, or numbers that are not 0 on the object."""
    return {**run_lengths_of(mask).to_coco()}
