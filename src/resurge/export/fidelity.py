"""How far an exported network is from the one it was made of, on pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from resurge.errors import UserError
from resurge.files import Json

Run = Callable[[np.ndarray], dict[str, np.ndarray]]
"""float32 (N, C, H, W) -> outputs by name, as an `Engine` runs."""


@dataclass
class Comparison:
    """Sums over images: of the largest difference, of decisions that agree, of right answers.

    difference: of a logit, or, where classes are put out in place of logits, of the probability of the class; None
    where neither is known. peak: the largest logit, or probability, before.
    decided, agreed: decisions (an image's class, a pixel's) and those that are the same before and after.
    labelled, right_before, right_after: decisions whose right answer is known, and how many were right.
    """

    images: int = 0
    difference: float | None = None
    peak: float = 0.0
    decided: int = 0
    agreed: int = 0
    labelled: int = 0
    right_before: int = 0
    right_after: int = 0

    def add(self, before: dict[str, np.ndarray], after: dict[str, np.ndarray], truth: np.ndarray | None) -> None:
        """Take in the outputs for some images. Without `before["logits"]` no difference is measured. truth: the right
        classes, of the shape of the decisions; -1 is not counted."""
        for name, values in after.items():
            if not np.isfinite(values).all():
                raise UserError(
                    f"the exported network puts out {name} that are not finite numbers. Use another --precision: fp16 "
                    "overflows beyond 65504."
                )
        old, new = decisions(before), decisions(after)
        self.images += len(new)
        if "logits" in before:
            ours, theirs = before["logits"], after.get("logits")
            if theirs is None:
                ours, theirs = _highest_share(ours), after["confidence"]
            self.peak = max(self.peak, float(ours.max()), -float(ours.min()))
            self.difference = max(self.difference or 0.0, largest_difference(ours, theirs))
        self.decided += old.size
        self.agreed += int((old == new).sum())
        if truth is not None:
            known = truth >= 0
            self.labelled += int(known.sum())
            self.right_before += int(((old == truth) & known).sum())
            self.right_after += int(((new == truth) & known).sum())

    @property
    def agreement(self) -> float:
        """Share of decisions that are the same."""
        return self.agreed / max(self.decided, 1)

    @property
    def drop(self) -> float:
        """What is lost, in points: of accuracy where the right answers are known, else of agreement."""
        if not self.labelled:
            return 100 * (1 - self.agreement)
        return 100 * (self.right_before - self.right_after) / self.labelled

    @property
    def quality(self) -> float:
        """What is to be kept up: the share of right answers, or, where they are unknown, of those that stay."""
        return self.right_after / self.labelled if self.labelled else self.agreement

    def to_json(self) -> Json:
        """As certificate.json states it."""
        said: Json = {
            "images": self.images,
            "difference": self.difference,
            "relative": None if self.difference is None else self.difference / max(self.peak, 1e-30),
            "agreement": self.agreement,
        }
        if self.labelled:
            said["accuracy"] = {
                "labelled": self.labelled,
                "before": self.right_before / self.labelled,
                "after": self.right_after / self.labelled,
            }
        return said


def points_lost(known: tuple[float, float] | None, agreement: float) -> float:
    """Of a score (0..1) before and after, in points; where it is not known, of the agreement."""
    return 100 * (1 - agreement) if known is None else 100 * (known[0] - known[1])


def decisions(outputs: dict[str, np.ndarray]) -> np.ndarray:
    """The classes: (N,) or (N, H, W)."""
    found: np.ndarray = outputs["classes"] if "classes" in outputs else outputs["logits"].argmax(1)
    return found


def largest_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Of two arrays of one shape, which has two axes at least; a plane at a time, for label maps have many."""
    planes = (values.reshape(-1, *values.shape[-2:]) for values in (ours, theirs))
    return max(float(np.abs(one.astype(np.float64) - other).max()) for one, other in zip(*planes, strict=True))


def _highest_share(logits: np.ndarray) -> np.ndarray:
    """(N, K, H, W) -> (N, H, W): the probability of the most probable class."""
    highest = logits.max(axis=1)
    total = np.zeros_like(highest)
    for number in range(logits.shape[1]):
        total += np.exp(logits[:, number] - highest)
    return 1 / total


@dataclass(frozen=True)
class Batch:
    """Images float32 (N, C, H, W) of one size, and the right classes (N,) where they are known, else None."""

    images: np.ndarray
    truth: np.ndarray | None = field(default=None)


Told = tuple[Batch, dict[str, np.ndarray]]
"""Pictures, and what the run says of them."""


def compare(told: Iterable[Told], after: Run) -> Comparison:
    """What the run says of pictures, and what another network does."""
    found = Comparison()
    for batch, before in told:
        found.add(before, after(batch.images), batch.truth)
    return found
