"""Results of classification. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from resurge.files import Json
from resurge.tasks.result import Result


@dataclass(frozen=True)
class Classified(Result):
    """The classes of an image, the most probable first."""

    names: tuple[str, ...]  # of all classes
    scores: np.ndarray  # float32 (K,), their probabilities, in the same order

    @staticmethod
    def of(logits: np.ndarray, classes: Sequence[str]) -> Classified:
        """From logits (K,)."""
        shares = softmax(logits)
        order = np.argsort(-logits.astype(np.float32), kind="stable")  # of equal ones the lower index, as in evaluation
        return Classified(tuple(classes[index] for index in order), shares[order])

    def best(self, count: int) -> Iterator[tuple[str, float]]:
        """(class, probability) of the `count` most probable."""
        return zip(self.names[:count], self.scores[:count].tolist(), strict=True)

    def to_json(
        self, classes: Sequence[str] = (), top: int | None = None, *, score: float = 0.0, masks: bool = True
    ) -> Json:
        """As plain data. `classes` is not needed, the names are here."""
        count = len(self.names) if top is None else top
        return {"predictions": [{"class": name, "score": score} for name, score in self.best(count)]}

    def to_text(self, classes: Sequence[str] = (), top: int = 1) -> str:
        return "  ".join(f"{name} {100 * score:.2f} %" for name, score in self.best(top))

    def to_rows(self, classes: Sequence[str] = (), top: int = 1) -> Iterator[list[str]]:
        yield [cell for name, score in self.best(top) for cell in (name, f"{score:.6f}")]


def softmax(logits: np.ndarray) -> np.ndarray:
    """float32 (..., K), summing to one over the last axis."""
    logits = logits.astype(np.float32)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=-1, keepdims=True)
    return shares
