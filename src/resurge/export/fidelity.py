"""How far an exported classifier or segmenter is from its run, on images."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from resurge.data.splits import IGNORE
from resurge.errors import UserError
from resurge.export.calibration import Annotated, Batch
from resurge.export.intervals import Interval, jackknife_interval, paired_interval, share_interval
from resurge.files import Json
from resurge.tasks.result import Size
from resurge.tasks.segment.metrics import confusion_matrix, map_scores
from resurge.tasks.segment.predict import LabelMap

Outputs = Mapping[str, np.ndarray]
GROUPS = 20
"""Into how many groups images are divided, to see how much a score depends on them."""


@dataclass
class Comparison(ABC):
    """Sums over images of what a run and its export put out.

    classes: of the run. labelled: decisions or objects with an annotation.

    Class attributes: `measure`, what accuracy is called; `batch`, images that go through the network together;
    `most`, images to compare on and `calibration`, images to set the ranges of int8, unless another number is given.
    """

    measure: ClassVar[str | None] = None
    batch: ClassVar[int] = 8
    most: ClassVar[int] = 500
    calibration: ClassVar[int] = 300  # NNCF's own default

    classes: tuple[str, ...] = ()
    images: int = 0
    labelled: int = 0

    @staticmethod
    @abstractmethod
    def truth(split: Annotated, classes: np.ndarray, index: int, size: Size) -> object:
        """The annotation of an image of a split, in the classes of the run; see `Pictures`.

        Raises:
            UserError: it cannot be read, or does not fit the image.
        """

    @abstractmethod
    def take(self, batch: Batch, before: Outputs, after: Outputs) -> None:
        """Take in the outputs of the run and of its export for a batch."""

    @property
    @abstractmethod
    def agreement(self) -> float | None:
        """Share of the decisions, or of the objects, that are the same; None where there was nothing to compare."""

    @abstractmethod
    def accuracy(self) -> tuple[float, float]:
        """The score (0..1) before and after, with annotations."""

    @abstractmethod
    def differences(self) -> tuple[float | None, float | None]:
        """The largest difference, and as a share of the largest output; None where it is not known."""

    @property
    def drop(self) -> float:
        """What is lost, in points: of accuracy with annotations, else of agreement; 0 where nothing was compared."""
        before, after = self.accuracy() if self.labelled else (1.0, self.quality)
        return round(100 * (before - after), 9)

    @property
    def quality(self) -> float:
        """What is to be kept up: accuracy with annotations, else agreement."""
        return self.accuracy()[1] if self.labelled else 1.0 if self.agreement is None else self.agreement

    @cached_property
    def interval(self) -> Interval:
        """What is lost in all images like these, in points: the interval of 95 %, see `resurge.export.intervals`. To be
        asked for when all images were taken in."""
        return self._interval()

    @abstractmethod
    def _interval(self) -> Interval: ...

    def final(self) -> Comparison:
        """The comparison to state, when all images were taken in."""
        return self

    def to_json(self) -> Json:
        """As certificate.json states it."""
        difference, relative = self.differences()
        plain: Json = {
            "images": self.images, "difference": difference, "relative": relative, "agreement": self.agreement,
        }  # fmt: skip
        low, high = self.interval
        plain["drop_points"] = self.drop
        plain["drop_interval"] = [round(each, 9) if math.isfinite(each) else None for each in (low, high)]
        if self.labelled:
            before, after = self.accuracy()
            name = {} if self.measure is None else {"of": self.measure}
            plain["accuracy"] = {**name, "labelled": self.labelled, "before": before, "after": after}
        return plain


@dataclass
class LabelComparison(Comparison):
    """Of a classifier.

    difference: of a logit, or, where classes are put out in place of logits, of the probability of the class; None
    where neither is known. peak: the largest logit, or probability, before.
    decided, agreed: decisions (the class of an image or pixel) and those that are the same before and after.
    right: images that are right before and after. lost, gained: those that are right before, or after, alone.
    """

    difference: float | None = None
    peak: float = 0.0
    decided: int = 0
    agreed: int = 0
    right: np.ndarray = field(default_factory=lambda: np.zeros(2, dtype=np.int64))
    lost: int = 0
    gained: int = 0

    @staticmethod
    def truth(split: Annotated, classes: np.ndarray, index: int, size: Size) -> object:
        return classes[split.labels[index]]

    def take(self, batch: Batch, before: Outputs, after: Outputs) -> None:
        old, new = self.decide(before, after)
        if batch.truth is not None:
            self.labelled += len(old)
            before_right, after_right = (decided == np.array(batch.truth) for decided in (old, new))
            self.right += [before_right.sum(), after_right.sum()]
            self.lost += int((before_right & ~after_right).sum())
            self.gained += int((after_right & ~before_right).sum())

    def decide(self, before: Outputs, after: Outputs) -> tuple[np.ndarray, np.ndarray]:
        """Take in the outputs for some images; returns both decisions. Without `before["logits"]` no difference is
        measured."""
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
        return old, new

    @property
    def agreement(self) -> float:
        return self.agreed / max(self.decided, 1)

    def _interval(self) -> Interval:
        if self.labelled:
            low, high = paired_interval(self.lost, self.gained, self.labelled)
        else:
            low, high = share_interval(self.decided - self.agreed, self.decided)
        return 100 * low, 100 * high

    def accuracy(self) -> tuple[float, float]:
        before, after = (self.right / self.labelled).tolist()
        return before, after

    def differences(self) -> tuple[float | None, float | None]:
        return self.difference, None if self.difference is None else self.difference / max(self.peak, 1e-30)


def jackknifed(whole: Comparison, leaving_out: Callable[[int], Comparison]) -> Interval:
    """The interval of a score of all images together: `leaving_out(group)` is the comparison without the images group,
    group + GROUPS, group + 2 GROUPS, ..."""
    return jackknife_interval(whole.drop, [leaving_out(group).drop for group in range(min(GROUPS, whole.images))])


@dataclass
class MapComparison(LabelComparison):
    """Of a segmenter, image by image: its images keep their size. A decision is the class of a pixel as the network saw
    the image; right and wrong are counted at the image's own size, as `resurge eval` counts them."""

    measure = "mIoU"
    batch = 1

    groups: np.ndarray = field(default_factory=lambda: np.zeros((GROUPS, 2), dtype=np.int64), repr=False)
    confusions: list[np.ndarray] = field(default_factory=list, repr=False)
    """Before and after, (GROUPS, K, K); `groups` are decisions, and those that are the same."""

    @staticmethod
    def truth(split: Annotated, classes: np.ndarray, index: int, size: Size) -> np.ndarray:
        """uint8 (H, W): classes of the run, and IGNORE."""
        labels = split.target(index)
        if labels.shape != size:
            raise UserError(f"an image of {size} has a label map of {labels.shape}; `resurge check-data` lists them.")
        ours = np.full(256, IGNORE, dtype=np.uint8)
        ours[: len(classes)] = classes
        result: np.ndarray = ours[labels]
        return result

    def take(self, batch: Batch, before: Outputs, after: Outputs) -> None:
        group = self.images % GROUPS
        old, new = self.decide(before, after)
        self.groups[group] += [old.size, int((old == new).sum())]
        if batch.truth is not None:
            both = [self.confused(batch, outputs) for outputs in (before, after)]
            self.confusions = self.confusions or [np.zeros((GROUPS, *each.shape), each.dtype) for each in both]
            for sums, each in zip(self.confusions, both, strict=True):
                sums[group] += each
            self.labelled += int(both[1].sum())

    def leaving_out(self, group: int) -> Comparison:
        others = np.arange(GROUPS) != group
        decided, agreed = self.groups[others].sum(axis=0).tolist()
        confusions = [sums[others] for sums in self.confusions]
        return replace(self, decided=decided, agreed=agreed, confusions=confusions)

    def _interval(self) -> Interval:
        return jackknifed(self, self.leaving_out)  # pixels of an image are not independent of each other

    def confused(self, batch: Batch, outputs: Outputs) -> np.ndarray:
        """int64 (K, K): pixels of an image by [true class][predicted class], enlarged as a `Predictor` does."""
        assert batch.truth is not None
        if "confusion" in outputs:
            return outputs["confusion"]
        if "logits" in outputs:
            found = LabelMap.of(outputs["logits"][0], batch.originals[0])
        else:
            found = LabelMap.of_decided(outputs["classes"][0], outputs["confidence"][0], batch.originals[0])
        return confusion_matrix(found.classes, batch.truth[0], len(self.classes), IGNORE)

    def accuracy(self) -> tuple[float, float]:
        before, after = (
            map_scores(sums.sum(axis=0), (), predicted_only=False)["miou"] or 0.0 for sums in self.confusions
        )
        return before, after


def decisions(outputs: Outputs) -> np.ndarray:
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
    result: np.ndarray = 1 / total
    return result
