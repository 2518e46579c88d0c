"""How far an exported detector is from its run: objects of both, matched on images.

An object of one network is the same as one of the other's when they are of one class and their boxes overlap by 0.9.
Of each network those count that are sure enough; what they are matched with may be less sure, so that a score at the
border makes no difference. Where neither network is sure of any object, the surest of each image count. With
annotations, the average precision of both is stated too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from resurge.data.regions import Rle
from resurge.export.calibration import Annotated, Batch
from resurge.export.fidelity import GROUPS, Comparison, Outputs, jackknifed
from resurge.export.intervals import Interval
from resurge.files import Json
from resurge.tasks.detect.metrics import AveragePrecision, encode_masks
from resurge.tasks.detect.predict import Found, found_in, overlaps
from resurge.tasks.result import Size

SURE = 0.3  # the score from which an object counts
SUREST = 5  # where no object has that score: as many of each image, the surest, count
SAME = 0.9  # overlap of the boxes of what is one object


@dataclass
class ObjectComparison(Comparison):
    """Of a detector.

    sure: the score from which an object counts. surest: None, or as many of an image count, whatever their score.
    before, after: objects that count. kept: of those before, the ones that are there after; explained: of those after,
    the ones that were there before. score, box: largest difference of a score, and of a coordinate in pixels of the
    image, of objects that are the same. mask: lowest overlap of masks. groups: before, after, kept and explained, by
    group of images. unsure: the same of the surest of each image, as long as no object has the score.
    """

    measure = "AP"
    batch = 3
    most = 50  # a detector takes many times a classifier's work
    calibration = 64  # each has thousands of anchors

    sure: float = SURE
    surest: int | None = None
    before: int = 0
    after: int = 0
    kept: int = 0
    explained: int = 0
    score: float = 0.0
    box: float = 0.0
    mask: float | None = None
    groups: np.ndarray = field(default_factory=lambda: np.zeros((GROUPS, 4), dtype=np.int64), repr=False)
    unsure: ObjectComparison | None = field(default=None, repr=False)
    _precision: tuple[AveragePrecision, ...] = field(default=(), repr=False)

    @staticmethod
    def truth(split: Annotated, classes: np.ndarray, index: int, size: Size) -> Json:
        """As `AveragePrecision.add` takes it."""
        objects = split.target(index)
        known: Json = {"boxes": objects.boxes, "crowd": objects.crowd, "area": objects.area}
        known["labels"] = classes[np.asarray(objects.labels, dtype=np.int64)]
        if objects.regions is not None:
            known["masks"] = [encode_masks(region.decode(*size)[None], size)[0] for region in objects.regions]
        return known

    def take(self, batch: Batch, before: Outputs, after: Outputs) -> None:
        for row, size in enumerate(batch.originals):
            height, width = batch.sizes[row].tolist()
            ours, theirs = (found_in(outputs, row, (height, width), size) for outputs in (before, after))
            self.add(ours, theirs, size, None if batch.truth is None else batch.truth[row])

    def add(self, before: Found, after: Found, size: Size, truth: Json | None) -> None:
        """Take in the objects of both networks for one image."""
        group, counted = self.images % GROUPS, (self._counts(before), self._counts(after))
        self.images += 1
        pairs = same(before, after, counted[0])
        numbers = [int(counted[0].sum()), int(counted[1].sum()), len(pairs), len(same(after, before, counted[1]))]
        self.groups[group] += numbers
        self.before, self.after, self.kept, self.explained = self.groups.sum(axis=0).tolist()
        if self.surest is None and self.sure > 0:
            if self.before + self.after:
                self.unsure = None
            else:
                self.unsure = self.unsure or replace(
                    self, images=self.images - 1, surest=SUREST, groups=self.groups.copy()
                )
                self.unsure.add(before, after, size, None)
        for old, new in pairs:
            self.score = max(self.score, abs(float(before.scores[old] - after.scores[new])))
            self.box = max(self.box, float(np.abs(before.boxes[old] - after.boxes[new]).max()))
            if before.masks is not None and after.masks is not None:
                shared = _mask_overlap(before.masks[old], after.masks[new])
                self.mask = shared if self.mask is None else min(self.mask, shared)
        if truth is None or (before.masks is not None and "masks" not in truth):
            return
        if not self._precision:
            kinds = ("box",) if before.masks is None else ("mask",)
            self._precision = (AveragePrecision(self.classes, kinds), AveragePrecision(self.classes, kinds))
        self.labelled += len(truth["labels"])
        for collected, found in zip(self._precision, (before, after), strict=True):
            own = {"boxes": found.boxes, "scores": found.scores, "labels": found.labels}
            collected.add(self.images, size, truth, own if found.masks is None else own | {"masks": found.masks})

    def _counts(self, found: Found) -> np.ndarray:
        """bool (n,): which objects count."""
        result: np.ndarray = found.scores >= self.sure if self.surest is None else np.arange(len(found)) < self.surest
        return result

    @property
    def agreement(self) -> float | None:
        counted = self.before + self.after
        return (self.kept + self.explained) / counted if counted else None

    def _interval(self) -> Interval:
        return jackknifed(self, self.leaving_out)

    def leaving_out(self, group: int) -> Comparison:
        before, after, kept, explained = self.groups[np.arange(GROUPS) != group].sum(axis=0).tolist()
        precision = [AveragePrecision(each.classes, each.kinds) for each in self._precision]
        for less, each in zip(precision, self._precision, strict=True):
            less.images = {n: image for n, image in each.images.items() if (n - 1) % GROUPS != group}
        return replace(self, before=before, after=after, kept=kept, explained=explained, _precision=tuple(precision))

    def final(self) -> Comparison:
        if self.unsure is None:
            return self
        return replace(self.unsure, labelled=self.labelled, _precision=self._precision)

    def accuracy(self) -> tuple[float, float]:
        """Average precision, COCO's."""
        before, after = (next(iter(each.compute().values()))["ap"] or 0.0 for each in self._precision)
        return float(before), float(after)

    def differences(self) -> tuple[float | None, float | None]:
        return (self.score, self.score) if self.kept else (None, None)

    def to_json(self) -> Json:
        objects: Json = {
            "score_from": self.sure if self.surest is None else 0.0, "overlap_from": SAME, "before": self.before,
            "after": self.after, "same": self.kept, "box_difference": self.box if self.kept else None,
        }  # fmt: skip
        if self.surest is not None:
            objects["surest_of_an_image"] = self.surest
        if self.mask is not None:
            objects["lowest_mask_overlap"] = self.mask
        return {**super().to_json(), "objects": objects}


def same(ours: Found, theirs: Found, counted: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (row, row) of one object, each used once, the surest first; of ours those `counted` (n,)."""
    pairs = []
    shares = overlaps(ours.boxes, theirs.boxes)
    shares = np.where((ours.labels[:, None] == theirs.labels[None]) & (shares >= SAME), shares, 0.0)
    for row in np.flatnonzero(counted).tolist():
        if shares.shape[1] and shares[row].max() > 0:
            other = int(shares[row].argmax())
            shares[:, other] = 0
            pairs.append((row, other))
    return pairs


def _mask_overlap(ours: Rle, theirs: Rle) -> float:
    from faster_coco_eval.core import mask as run_lengths

    if not run_lengths.area(ours) and not run_lengths.area(theirs):
        return 1.0
    return float(run_lengths.iou([ours], [theirs], [0])[0][0])
