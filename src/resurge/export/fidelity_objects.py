"""How far an exported detector is from the run's: objects of both, matched on pictures.

An object of one network is the same as one of the other's when they are of one class and their boxes overlap by 0.9.
Of each network those count that are sure enough; what they are matched with may be less sure, so that a score at the
border makes no difference. Where the right answers are known, the average precision of both is stated too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from resurge.data.regions import Rle
from resurge.errors import UserError
from resurge.export.calibration import Pictures
from resurge.export.fidelity import points_lost
from resurge.tasks.detect.metrics import AveragePrecision, encode_masks
from resurge.tasks.detect.predict import Found, batched, found_in, overlaps
from resurge.tasks.result import Size

Run = Callable[[np.ndarray, np.ndarray], Mapping[str, np.ndarray]]
"""images (N, C, H, W) and sizes (N, 2) -> objects, as `resurge.tasks.detect.predict` describes them."""

SURE = 0.3  # the score from which an object counts
SAME = 0.9  # overlap of the boxes of what is one object
BATCH = 3


@dataclass(frozen=True)
class ObjectBatch:
    """Pictures of any sizes as one batch.

    images, sizes: as `batched` makes them. originals: height and width of the pictures. truth: their objects as
    `AveragePrecision.add` takes them, where they are known.
    """

    images: np.ndarray
    sizes: np.ndarray
    originals: tuple[Size, ...]
    truth: tuple[dict[str, Any], ...] | None = None


def object_batches(
    pictures: Pictures, preprocessing: Any, classes: tuple[str, ...], masks: bool, size: int = BATCH
) -> Iterator[ObjectBatch]:
    """What the network is given of some pictures; those that cannot be read are passed over.

    Args:
        classes: of the run. masks: the truth needs masks.
    """
    known = bool(pictures.classes) and set(pictures.classes) <= set(classes)
    rows: list[tuple[np.ndarray, Size, dict[str, Any] | None]] = []
    for index in pictures.indices:
        try:
            image = pictures.split.read(index)
            array = preprocessing.array(image)
        except UserError:
            continue
        own = (image.height, image.width)
        rows.append((array, own, _truth(pictures, index, own, classes, masks) if known else None))
        if len(rows) == size:
            yield _batch(rows)
            rows = []
    if rows:
        yield _batch(rows)


def _batch(rows: list[tuple[np.ndarray, Size, dict[str, Any] | None]]) -> ObjectBatch:
    images, sizes = batched([array for array, _, _ in rows])
    truth = tuple(known for _, _, known in rows if known is not None)
    return ObjectBatch(images, sizes, tuple(own for _, own, _ in rows), truth if len(truth) == len(rows) else None)


def _truth(pictures: Pictures, index: int, size: Size, classes: tuple[str, ...], masks: bool) -> dict[str, Any] | None:
    objects = pictures.split.target(index)
    if masks and objects.regions is None:
        return None
    ours = np.array([classes.index(name) for name in pictures.classes], dtype=np.int64)
    known = {
        "boxes": objects.boxes,
        "labels": ours[np.asarray(objects.labels, dtype=np.int64)],
        "crowd": objects.crowd,
        "area": objects.area,
    }
    if masks:
        known["masks"] = [encode_masks(region.decode(*size)[None], size)[0] for region in objects.regions]
    return known


@dataclass
class ObjectComparison:
    """Sums over images: of objects before and after, and of those that are the same.

    sure: the score from which an object counts. score, box: largest difference of a score, and of a coordinate in
    pixels of the image, of objects that are the same. mask: lowest overlap of their masks.
    """

    classes: tuple[str, ...]
    sure: float = SURE
    images: int = 0
    before: int = 0
    after: int = 0
    kept: int = 0
    explained: int = 0
    score: float = 0.0
    box: float = 0.0
    mask: float | None = None
    objects: int = 0
    _precision: tuple[AveragePrecision, AveragePrecision] | None = field(default=None, repr=False)

    def add(self, before: Found, after: Found, size: Size, truth: dict[str, Any] | None) -> None:
        """Take in what both networks say of one image."""
        self.images += 1
        pairs = same(before, after, before.scores >= self.sure)
        self.before += int((before.scores >= self.sure).sum())
        self.kept += len(pairs)
        self.after += int((after.scores >= self.sure).sum())
        self.explained += len(same(after, before, after.scores >= self.sure))
        for old, new in pairs:
            self.score = max(self.score, abs(float(before.scores[old] - after.scores[new])))
            self.box = max(self.box, float(np.abs(before.boxes[old] - after.boxes[new]).max()))
            if before.masks is not None and after.masks is not None:
                shared = _mask_overlap(before.masks[old], after.masks[new])
                self.mask = shared if self.mask is None else min(self.mask, shared)
        if truth is not None:
            self._add_truth(before, after, size, truth)

    def _add_truth(self, before: Found, after: Found, size: Size, truth: dict[str, Any]) -> None:
        if self._precision is None:
            kinds = ("box",) if before.masks is None else ("mask",)
            self._precision = (AveragePrecision(self.classes, kinds), AveragePrecision(self.classes, kinds))
        self.objects += len(truth["labels"])
        for collected, found in zip(self._precision, (before, after), strict=True):
            told = {"boxes": found.boxes, "scores": found.scores, "labels": found.labels}
            collected.add(self.images, size, truth, told if found.masks is None else told | {"masks": found.masks})

    @property
    def agreement(self) -> float:
        """Share of the objects of both networks that the other has too."""
        counted = self.before + self.after
        return (self.kept + self.explained) / counted if counted else 1.0

    def precision(self) -> tuple[float, float] | None:
        """Average precision (COCO's, 0..1) before and after; None where the right answers are not known."""
        if self._precision is None or not self.objects:
            return None
        old, new = (next(iter(collected.compute().values()))["ap"] or 0.0 for collected in self._precision)
        return float(old), float(new)

    @property
    def drop(self) -> float:
        """What is lost, in points: of average precision where it is known, else of agreement."""
        return points_lost(self.precision(), self.agreement)

    @property
    def quality(self) -> float:
        """What is to be kept up: the average precision, or, where it is not known, the agreement."""
        known = self.precision()
        return self.agreement if known is None else known[1]

    def to_json(self) -> dict[str, Any]:
        """As certificate.json states it."""
        objects: dict[str, Any] = {
            "score_from": self.sure, "overlap_from": SAME, "before": self.before, "after": self.after,
            "same": self.kept, "box_difference": self.box,
        }  # fmt: skip
        if self.mask is not None:
            objects["lowest_mask_overlap"] = self.mask
        said: dict[str, Any] = {
            "images": self.images,
            "difference": self.score,
            "relative": self.score,
            "agreement": self.agreement,
        }
        known = self.precision()
        if known is not None:
            said["accuracy"] = {"of": "AP", "labelled": self.objects, "before": known[0], "after": known[1]}
        return {**said, "objects": objects}


Told = tuple[ObjectBatch, Mapping[str, np.ndarray]]
"""Pictures, and what the run says of them."""


def compare_objects(told: Iterable[Told], after: Run, classes: tuple[str, ...]) -> ObjectComparison:
    """What the run says of batches of `object_batches`, and what another network does.

    Raises:
        UserError: the other network puts out what is no number.
    """
    found = ObjectComparison(classes)
    for batch, old in told:
        new = after(batch.images, batch.sizes)
        for name, values in new.items():
            if not np.isfinite(values).all():
                raise UserError(f"the exported network puts out {name} that are not finite numbers. Use another "
                                "--precision: fp16 overflows beyond 65504.")  # fmt: skip
        for row, size in enumerate(batch.originals):
            seen = (int(batch.sizes[row, 0]), int(batch.sizes[row, 1]))
            ours, theirs = (found_in(outputs, row, seen, size) for outputs in (old, new))
            found.add(ours, theirs, size, None if batch.truth is None else batch.truth[row])
    return found


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
