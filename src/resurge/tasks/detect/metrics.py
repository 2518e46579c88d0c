"""Average precision of boxes and masks as the COCO data set defines it, and what became of each detection of an image.

The figures come from `faster_coco_eval`. Definitions: Lin et al. 2014, arXiv:1405.0312, and the evaluation page of
cocodataset.org. An object of up to 32^2 pixels is small, of up to 96^2 medium, above that large.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask as run_lengths
from torch import Tensor

from resurge.tasks.detect.run_lengths import Rle, encode_mask

KINDS = {"box": "bbox", "mask": "segm"}
FIGURES = (
    "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
    "ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip
HIT = 0.5

_LIMITS = (1, 10, 100)  # detections of a class and image that count
_AREAS = ("all", "small", "medium", "large")
_MOST = len(_LIMITS) - 1
_AT_50, _AT_75 = 0, 5  # places of the IoUs 0.5 and 0.75 among 0.5, 0.55, ..., 0.95

Record = dict[str, Any]


class AveragePrecision:
    """Collects the objects and detections of images, then computes all of COCO's figures.

    Memory grows with the number of objects; masks are kept as run lengths.
    """

    def __init__(self, classes: Sequence[str], kinds: Sequence[str] = ("box",)) -> None:
        """`classes` by label; `kinds` of overlap to score by: "box", "mask" or both.

        Raises:
            ValueError: another kind.
        """
        if not kinds or any(kind not in KINDS for kind in kinds):
            raise ValueError(f"expected kinds out of {', '.join(KINDS)}; got {kinds!r}")
        self.classes = tuple(classes)
        self.kinds = tuple(kinds)
        self._images: dict[int, Record] = {}

    def __len__(self) -> int:
        """Images so far."""
        return len(self._images)

    def add(
        self, image_id: int, size: tuple[int, int], truth: Mapping[str, Any], found: Mapping[str, Any]
    ) -> tuple[Record, Record]:
        """Take in one image; one that was added before is replaced.

        Args:
            image_id: its number. Among detections of equal score the image of the lower number comes first.
            size: (height, width) of the image, in whose pixels all boxes and masks are.
            truth: the objects: boxes (n, 4) as x1, y1, x2, y2; labels (n,), from 0; crowd (n,) bool; area (n,), pixels,
                decides between small, medium and large; for masks also `masks`: bool (n, height, width), or n COCO run
                lengths, compressed or not.
            found: the detections: boxes, scores (n,), labels, and `masks`. One whose score or box is not finite is
                left out.

        Returns:
            (truth, found) as they are kept: NumPy arrays, masks as compressed run lengths; what `match` takes.

        Raises:
            ValueError: arrays of different lengths, a label without a class, masks of another size.
        """
        height, width = (int(side) for side in size)
        with_masks = "mask" in self.kinds
        kept_truth = _objects(truth, ("crowd", "area"), len(self.classes), with_masks, (height, width))
        kept_found = _objects(found, ("scores",), len(self.classes), with_masks, (height, width))
        kept_truth["crowd"] = kept_truth["crowd"] != 0
        fine = np.isfinite(kept_found["scores"]) & np.isfinite(kept_found["boxes"]).all(axis=1)
        if not fine.all():
            kept_found = {key: _select(value, np.flatnonzero(fine)) for key, value in kept_found.items()}
        self._images[int(image_id)] = {"size": (height, width), "truth": kept_truth, "found": kept_found}
        return kept_truth, kept_found

    def state(self) -> dict[int, Record]:
        """What has been collected, by image; can be pickled and sent to another process."""
        return self._images

    def merge(self, states: Iterable[dict[int, Record]]) -> None:
        """Take in what other processes have collected. The order of the states does not matter.

        An image that several processes saw, since a sampler gave it to each so that all have as many, counts once.
        """
        for state in states:
            for image_id, record in state.items():
                present = self._images.get(image_id)
                if present is None or _rank(record) > _rank(present):
                    self._images[image_id] = record

    def compute(self) -> dict[str, Any]:
        """For each kind: COCO's twelve figures in 0..1, `per_class` and `curves`.

        `ap` to `ap_large` are average precisions, `ar_1` to `ar_large` average recalls with 1, 10 or 100 detections of
        a class and image; a mean over the classes that have objects there, None when none has. `per_class` has for
        each class its name, n (objects that are no crowds), ap and ap50, None without objects. `curves` has for each
        class with objects the precision at recall 0, 0.01, ..., 1 and IoU 0.5.
        """
        counts = np.zeros(len(self.classes), dtype=np.int64)
        for record in self._images.values():
            truth = record["truth"]
            counts += np.bincount(truth["labels"][~truth["crowd"]], minlength=len(self.classes))
        return {kind: self._scores(kind, counts.tolist()) for kind in self.kinds}

    def _scores(self, kind: str, counts: list[int]) -> dict[str, Any]:
        if not any(counts):
            precision = np.full((10, 101, len(self.classes), len(_AREAS), len(_LIMITS)), -1.0)
            recall = precision[:, 0]
        else:
            evaluation = COCOeval_faster(
                *self._as_coco(kind), iouType=KINDS[kind], print_function=_silent, rle_iou_max_workers=1
            )
            evaluation.params.maxDets = list(_LIMITS)
            evaluation.evaluate()
            evaluation.accumulate()
            precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
        figures = [
            precision[..., 0, _MOST], precision[_AT_50, ..., 0, _MOST], precision[_AT_75, ..., 0, _MOST],
            *(precision[..., area, _MOST] for area in (1, 2, 3)),
            *(recall[..., 0, limit] for limit in range(len(_LIMITS))),
            *(recall[..., area, _MOST] for area in (1, 2, 3)),
        ]  # fmt: skip
        return {
            **dict(zip(FIGURES, map(_mean, figures), strict=True)),
            "per_class": [
                {
                    "class": name,
                    "n": counts[k],
                    "ap": _mean(precision[:, :, k, 0, _MOST]),
                    "ap50": _mean(precision[_AT_50, :, k, 0, _MOST]),
                }
                for k, name in enumerate(self.classes)
            ],
            "curves": [
                {"class": name, "precision": precision[_AT_50, :, k, 0, _MOST].tolist()}
                for k, name in enumerate(self.classes)
                if counts[k]
            ],
        }

    def _as_coco(self, kind: str) -> tuple[COCO, COCO]:
        """Objects and detections as the evaluator takes them; images in the order of their numbers."""
        objects: list[dict[str, Any]] = []
        detections: list[dict[str, Any]] = []
        images = []
        for image_id, record in sorted(self._images.items()):
            truth, found = record["truth"], record["found"]
            images.append({"id": image_id, "height": record["size"][0], "width": record["size"][1]})
            start = len(objects)
            rows = zip(
                truth["labels"].tolist(), _corner_and_sides(truth["boxes"]).tolist(), truth["area"].tolist(),
                truth["crowd"].tolist(), strict=True,
            )  # fmt: skip
            for number, (label, box, area, crowd) in enumerate(rows, start + 1):
                objects.append({"id": number, "image_id": image_id, "category_id": label, "bbox": box, "area": area,
                                "iscrowd": int(crowd)})  # fmt: skip
            boxes = _corner_and_sides(found["boxes"])
            # the size class of a missed detection is that of its mask where masks are scored
            areas = boxes[:, 2] * boxes[:, 3] if kind == "box" else _areas(found["masks"])
            first = len(detections)
            rows = zip(found["labels"].tolist(), boxes.tolist(), areas.tolist(), found["scores"].tolist(), strict=True)
            for number, (label, box, area, score) in enumerate(rows, first + 1):
                detections.append({"id": number, "image_id": image_id, "category_id": label, "bbox": box, "area": area,
                                   "iscrowd": 0, "score": score})  # fmt: skip
            if kind == "mask":
                for entries, masks in ((objects[start:], truth["masks"]), (detections[first:], found["masks"])):
                    for entry, mask in zip(entries, masks, strict=True):
                        entry["segmentation"] = mask
        categories = [{"id": label, "name": name} for label, name in enumerate(self.classes)]
        return _coco(images, categories, objects), _coco(images, categories, detections)


# ------------------------------------------------------------------------------------------- one image's detections


@dataclass(frozen=True)
class Matches:
    """What became of the d detections of an image with g objects, at IoU 0.5.

    object: int (d,), which object was found; -1 for none; -2 where the detection lies in a crowd of its class and
    counts neither way. iou: float (d, g) between all of them; with a crowd, the share of the detection inside it.
    """

    object: np.ndarray
    iou: np.ndarray


def match(truth: Mapping[str, Any], found: Mapping[str, Any], kind: str = "box") -> Matches:
    """Match detections to objects of their class as COCO does at IoU 0.5: the highest score first, each to the
    object with the largest overlap that is still free. `truth` and `found` as `AveragePrecision.add` returns them."""
    objects, detections = len(truth["labels"]), len(found["labels"])
    result = np.full(detections, -1, dtype=np.int64)
    if not objects or not detections:
        return Matches(result, np.zeros((detections, objects)))
    regions = (
        (found["masks"], truth["masks"])
        if kind == "mask"
        else (_corner_and_sides(found["boxes"]), _corner_and_sides(truth["boxes"]))
    )
    iou = np.asarray(run_lengths.iou(*regions, truth["crowd"].astype(int).tolist()))
    own_class = np.where(found["labels"][:, None] == truth["labels"][None, :], iou, -1.0)
    free = ~truth["crowd"]
    for row in np.argsort(-found["scores"], kind="stable"):
        best = int(np.argmax(np.where(free, own_class[row], -1.0)))
        if free[best] and own_class[row, best] >= HIT:
            result[row] = best
            free[best] = False
        elif (own_class[row][truth["crowd"]] >= HIT).any():
            result[row] = -2
    return Matches(result, iou)


def f1(truth: Mapping[str, Any], found: Mapping[str, Any], matches: Matches, threshold: float = 0.5) -> float | None:
    """F1 of one image: 2 hits / (detections + objects), counting detections with a score of at least `threshold`.

    Crowds and detections in them are left out. None where there is neither object nor detection. A figure to order
    images by, not a part of COCO's.
    """
    sure = found["scores"] >= threshold
    told = int((sure & (matches.object != -2)).sum())
    there = int((~truth["crowd"]).sum())
    hits = int((sure & (matches.object >= 0)).sum())
    return 2 * hits / (told + there) if told + there else None


# -------------------------------------------------------------------------------------------------------- run lengths


def encode_masks(masks: Any, size: tuple[int, int]) -> list[Rle]:
    """COCO's compressed run lengths of n masks: bool (n, height, width), array or tensor, or n run lengths already.

    Raises:
        ValueError: masks of another size.
    """
    if isinstance(masks, (Tensor, np.ndarray)):
        if masks.ndim != 3 or tuple(masks.shape[1:]) != size:
            raise ValueError(f"expected masks (n, {size[0]}, {size[1]}); got {tuple(masks.shape)}")
        # one at a time: the encoder wants columns first, which copies
        return [encode_mask(_array(mask)) for mask in masks]
    encoded = [encode_mask(_array(mask)) if isinstance(mask, (Tensor, np.ndarray)) else mask for mask in masks]
    for mask in encoded:
        if tuple(mask["size"]) != size:
            raise ValueError(f"expected masks of {size[0]} x {size[1]}; got one of {mask['size']}")
    return [run_lengths.frPyObjects(m, *size) if isinstance(m["counts"], list) else m for m in encoded]


# ------------------------------------------------------------------------------------------------------------ helpers


def _objects(
    given: Mapping[str, Any], columns: Sequence[str], classes: int, with_masks: bool, size: tuple[int, int]
) -> Record:
    """The arrays of one image, copied to the main memory and checked."""
    labels = _array(given["labels"]).astype(np.int64).reshape(-1)
    kept: Record = {"labels": labels, "boxes": _array(given["boxes"]).astype(np.float64).reshape(-1, 4)}
    for column in columns:
        kept[column] = _array(given[column]).astype(np.float64).reshape(-1)
    if with_masks:
        kept["masks"] = encode_masks(given["masks"], size)
    lengths = {key: len(value) for key, value in kept.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"an image's arrays differ in length: {lengths}")
    if len(labels) and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(f"labels must be in 0..{classes - 1}; got {labels.min()} to {labels.max()}")
    return kept


def _array(values: Any) -> np.ndarray:
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    array: np.ndarray = (values.float() if values.dtype == torch.bfloat16 else values).numpy()  # NumPy has no bfloat16
    return array


def _select(values: Any, rows: np.ndarray) -> Any:
    return values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows]


def _rank(record: Record) -> tuple[int, list[float]]:
    """An order between two records of one image, which may differ in the last digits."""
    return len(record["found"]["scores"]), record["found"]["scores"].tolist()


def _corner_and_sides(boxes: np.ndarray) -> np.ndarray:
    """(n, 4) x1, y1, x2, y2 to COCO's x, y, width, height."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _areas(masks: list[Rle]) -> np.ndarray:
    return np.asarray(run_lengths.area(masks)) if masks else np.zeros(0)


def _mean(values: np.ndarray) -> float | None:
    """The mean of what is defined; the evaluator marks with -1 what is not."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None


def _silent(*_: object) -> None:
    pass


def _coco(images: list[Record], categories: list[Record], entries: list[Record]) -> COCO:
    coco = COCO(print_function=_silent)
    coco.dataset = {"images": images, "categories": categories, "annotations": entries}
    coco.createIndex()
    return coco
