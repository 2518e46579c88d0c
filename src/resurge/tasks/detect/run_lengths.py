"""Masks as COCO's compressed run lengths. Imports no torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from faster_coco_eval.core import mask as run_lengths

Rle = dict[str, Any]


def encode_mask(mask: np.ndarray) -> Rle:
    """The run lengths of a mask (height, width): bool, or numbers that are not 0 on the object.

    COCO counts down the columns. Only the part that holds the object is turned round: turning a whole image takes
    longer than all else.
    """
    height, width = mask.shape
    mask = mask if mask.dtype == bool else mask != 0
    rows = np.flatnonzero(mask.any(axis=1))
    edges = np.zeros(0, dtype=np.int64)  # where a run of the object begins or has ended
    if rows.size:
        top, bottom = int(rows[0]), int(rows[-1]) + 1
        columns = np.flatnonzero(mask[top:bottom].any(axis=0))
        left, right = int(columns[0]), int(columns[-1]) + 1
        tall = bottom - top + 1  # a pixel of background under every column ends its last run
        flat = np.zeros((right - left) * tall + 1, dtype=bool)
        flat[1:].reshape(right - left, tall)[:, :-1] = mask[top:bottom, left:right].T
        column, row = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), tall)
        edges = (column + left) * height + row + top
        if tall > height:  # a run that goes on at the top of the next column has not ended
            goes_on = edges[1:] == edges[:-1]
            edges = edges[~(np.append(goes_on, False) | np.append(False, goes_on))]
    if edges.size and edges[-1] == height * width:
        edges = edges[:-1]
    counts = np.diff(edges, prepend=0, append=height * width).tolist()
    encoded: Rle = run_lengths.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return encoded
