"""Results of object detection and instance segmentation. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from resurge.tasks.result import Result


@dataclass(frozen=True)
class Found(Result):
    """The n objects of an image, the highest score first.

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

    def to_json(
        self, classes: Sequence[str], top: int | None = None, *, score: float = 0.0, masks: bool = True
    ) -> dict[str, Any]:
        rows = (row for row in range(len(self)) if self.scores[row] >= score)
        return {"objects": [self._object(row, classes, masks) for row in rows]}

    def _object(self, row: int, classes: Sequence[str], masks: bool) -> dict[str, Any]:
        plain: dict[str, Any] = {
            "class": classes[self.labels[row]],
            "score": float(self.scores[row]),
            "box": [round(side, 2) for side in self.boxes[row].tolist()],
        }
        return plain | {"mask": as_text(self.masks[row])} if masks and self.masks is not None else plain

    def to_text(self, classes: Sequence[str], top: int = 1) -> str:
        if not len(self):
            return "nothing found"
        counted = Counter(self.labels.tolist()).most_common()
        counts = ", ".join(f"{number} {classes[label]}" for label, number in counted)
        return f"{counts}; surest {classes[self.labels[0]]} {100 * self.scores[0]:.2f} %"

    def to_rows(self, classes: Sequence[str], top: int = 1) -> Iterator[list[str]]:
        for box, score, label in zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True):
            yield [classes[label], f"{score:.6f}", *(f"{side:.2f}" for side in box)]


def as_text(mask: dict[str, Any]) -> dict[str, Any]:
    """Compressed run lengths as JSON holds them."""
    counts = mask["counts"]
    return {"size": list(mask["size"]), "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}
