"""Average precision of boxes and masks as the COCO data set defines it, and what became of each detection of an image.

The figures come from `faster_coco_eval`. Definitions: Lin et al. 2014, arXiv:1405.0312, and the evaluation page of
cocodataset.org. An object of up to 32^2 pixels is small, of up to 96^2 medium, above that large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask as run_lengths
from torch import Tensor, nn

from resurge.data.loading import SceneBatch, SomeSplit
from resurge.data.regions import Rle, run_lengths_of
from resurge.data.splits import ObjectSplit
from resurge.errors import UserError
from resurge.files import Json
from resurge.tasks.detect.predict import Found, found_in
from resurge.tasks.detect.report import FIGURES
from resurge.tasks.result import Size
from resurge.tasks.scenes.metrics import SceneScores, own_size
from resurge.tasks.task import Task
from resurge.tasks.tta import TTA

KINDS = {"box": "bbox", "mask": "segm"}
HIT = 0.5

_LIMITS = [1, 10, 100]  # detections of a class and image that count
_SHAPE = (10, 101, 4, 3)  # of the precision, without classes: IoU 0.5, 0.55, ..., recall, size of objects, limit

Arrays = dict[str, np.ndarray]
"""Objects or detections of one image, named as in `AveragePrecision.add`; `masks` as run lengths."""


class Kept(NamedTuple):
    """What is kept of an image."""

    size: Size  # of the image
    truth: Arrays
    found: Arrays


class AveragePrecision:
    """Collects the objects and detections of images, then computes all of COCO's figures.

    Memory grows with the number of objects; masks are kept as run lengths.

    Attributes:
        images: what is kept of each image by its number. Among detections of equal score the image of the lower number
            comes first.
    """

    def __init__(self, classes: Sequence[str], kinds: Sequence[str] = ("box",)) -> None:
        """`classes` by label; `kinds` of overlap to score by: "box", "mask" or both, else ValueError."""
        if not kinds or any(kind not in KINDS for kind in kinds):
            raise ValueError(f"expected kinds out of {', '.join(KINDS)}; got {kinds!r}")
        self.classes = tuple(classes)
        self.kinds = tuple(kinds)
        self.images: dict[int, Kept] = {}

    def add(self, image_id: int, size: Size, truth: Mapping[str, object], found: Mapping[str, object]) -> Kept:
        """Take in one image, with arrays or tensors; one that was added before is replaced.

        Args:
            image_id: its number.
            size: (height, width) of the image, in whose pixels all boxes and masks are.
            truth: the objects: boxes (n, 4) as x1, y1, x2, y2; labels (n,), from 0; crowd (n,) bool; area (n,), pixels,
                decides between small, medium and large; for masks also `masks`: bool (n, height, width), or n COCO run
                lengths, compressed or not.
            found: the detections: boxes, scores (n,), labels, and `masks`. One whose score or box is not finite is
                left out.

        Raises:
            ValueError: arrays of different lengths, a label without a class, masks of another size.
        """
        size = (int(size[0]), int(size[1]))
        objects, detections = self._arrays(truth, ("crowd", "area"), size), self._arrays(found, ("scores",), size)
        objects["crowd"] = objects["crowd"] != 0
        fine = np.isfinite(detections["scores"]) & np.isfinite(detections["boxes"]).all(axis=1)
        kept = Kept(size, objects, {name: values[fine] for name, values in detections.items()})
        self.images[int(image_id)] = kept
        return kept

    def _arrays(self, given: Mapping[str, object], columns: Sequence[str], size: Size) -> Arrays:
        """The arrays of one image, copied to the main memory and checked."""
        labels = _array(given["labels"]).astype(np.int64).reshape(-1)
        kept: Arrays = {"labels": labels, "boxes": _array(given["boxes"]).astype(np.float64).reshape(-1, 4)}
        for column in columns:
            kept[column] = _array(given[column]).astype(np.float64).reshape(-1)
        if "mask" in self.kinds:
            kept["masks"] = np.array(encode_masks(given["masks"], size), dtype=object)
        lengths = {key: len(value) for key, value in kept.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"an image's arrays differ in length: {lengths}")
        if len(labels) and (labels.min() < 0 or labels.max() >= len(self.classes)):
            raise ValueError(f"labels must be in 0..{len(self.classes) - 1}; got {labels.min()} to {labels.max()}")
        return kept

    def compute(self) -> Json:
        """For each kind: COCO's twelve figures in 0..1, `per_class` and `curves`.

        `ap` to `ap_large` are average precisions, `ar_1` to `ar_large` average recalls with 1, 10 or 100 detections of
        a class and image; a mean over the classes that have objects there, None when none has. `per_class` has for
        each class its name, n (objects that are no crowds), ap and ap50, None without objects. `curves` has for each
        class with objects the precision at recall 0, 0.01, ..., 1 and IoU 0.5.
        """
        counts = np.zeros(len(self.classes), dtype=np.int64)
        for _, truth, _ in self.images.values():
            counts += np.bincount(truth["labels"][~truth["crowd"]], minlength=len(self.classes))
        return {kind: self._scores(kind, counts.tolist()) for kind in self.kinds}

    def _scores(self, kind: str, counts: list[int]) -> Json:
        figures, every = np.full(len(FIGURES), -1.0), np.full((*_SHAPE[:2], len(counts), *_SHAPE[2:]), -1.0)
        if any(counts):
            evaluation = COCOeval_faster(
                *self._as_coco(kind), iouType=KINDS[kind], print_function=_silent, rle_iou_max_workers=1
            )
            evaluation.params.maxDets = _LIMITS
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            figures, every = evaluation.stats, evaluation.eval["precision"]
        precision = every[:, :, :, 0, -1]  # (IoU, recall, class) of objects of all sizes
        return {
            **{key: _mean(figures[i : i + 1]) for i, (key, *_) in enumerate(FIGURES)},
            "per_class": [
                {"class": name, "n": counts[k], "ap": _mean(precision[:, :, k]), "ap50": _mean(precision[0, :, k])}
                for k, name in enumerate(self.classes)
            ],
            "curves": [
                {"class": name, "precision": precision[0, :, k].tolist()}
                for k, name in enumerate(self.classes)
                if counts[k]
            ],
        }

    def _as_coco(self, kind: str) -> tuple[COCO, COCO]:
        """Objects and detections as the evaluator takes them; images in the order of their numbers."""
        objects, detections = [], []
        for image_id, (_, truth, found) in sorted(self.images.items()):
            objects += _annotations(kind, image_id, truth, truth["area"], iscrowd=truth["crowd"].astype(int))
            # the size class of a missed detection is that of its mask where masks are scored
            sides = found["boxes"][:, 2:] - found["boxes"][:, :2]
            areas = sides.prod(axis=1) if kind == "box" else np.asarray(run_lengths.area(found["masks"].tolist()))
            detections += _annotations(kind, image_id, found, areas, score=found["scores"])
        images = [{"id": i, "height": kept.size[0], "width": kept.size[1]} for i, kept in sorted(self.images.items())]
        categories = [{"id": label, "name": name} for label, name in enumerate(self.classes)]
        return _coco(images, categories, objects), _coco(images, categories, detections)


def _annotations(
    kind: str, image_id: int, arrays: Arrays, area: np.ndarray, **columns: np.ndarray
) -> list[dict[str, object]]:
    columns = {"category_id": arrays["labels"], "bbox": _corner_and_sides(arrays["boxes"]), "area": area, **columns}
    if kind == "mask":
        columns["segmentation"] = arrays["masks"]
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    return [{"image_id": image_id, "iscrowd": 0, **dict(zip(columns, row, strict=True))} for row in rows]


def _coco(images: list[Json], categories: list[Json], entries: list[Json]) -> COCO:
    coco = COCO(print_function=_silent)
    annotations = [{"id": number, **entry} for number, entry in enumerate(entries, 1)]
    coco.dataset = {"images": images, "categories": categories, "annotations": annotations}
    coco.createIndex()
    return coco


# ------------------------------------------------------------------------------------------- one image's detections


class Matches(NamedTuple):
    """What became of the d detections of an image with g objects, at IoU 0.5."""

    object: np.ndarray  # int (d,), which was found; -1 for none; -2 in a crowd of its class, which counts neither way
    iou: np.ndarray  # float (d, g) between all of them; with a crowd, the share of the detection inside it


def match(kept: Kept, kind: str = "box") -> Matches:
    """Match detections to objects of their class as COCO does at IoU 0.5: the highest score first, each to the object
    with the largest overlap that is still free."""
    _, truth, found = kept
    objects, detections = len(truth["labels"]), len(found["labels"])
    result = np.full(detections, -1, dtype=np.int64)
    if not objects or not detections:
        return Matches(result, np.zeros((detections, objects)))
    regions = [x["masks"].tolist() if kind == "mask" else _corner_and_sides(x["boxes"]) for x in (found, truth)]
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


def f1(kept: Kept, matches: Matches, threshold: float = 0.5) -> float | None:
    """F1 of one image, to order images by: 2 hits / (detections + objects), of detections with a score of at least
    `threshold`. Crowds and detections in them are left out. None where there is neither object nor detection."""
    sure = kept.found["scores"] >= threshold
    detected = int((sure & (matches.object != -2)).sum())
    there = int((~kept.truth["crowd"]).sum())
    hits = int((sure & (matches.object >= 0)).sum())
    return 2 * hits / (detected + there) if detected + there else None


def surest_mistake(kept: Kept, matches: Matches, classes: Sequence[str]) -> Json:
    """`overlap`, mean IoU of the objects found; `weight` and `wrong`, score and text of the surest other one."""
    _, truth, found = kept
    hits = np.flatnonzero(matches.object >= 0)
    result: Json = {"overlap": float(matches.iou[hits, matches.object[hits]].mean()) if hits.size else 0.0}
    misses = np.flatnonzero(matches.object == -1)
    if not misses.size:
        return result
    row = misses[np.argmax(found["scores"][misses])]
    score, label = float(found["scores"][row]), int(found["labels"][row])
    overlaps = np.where(truth["crowd"], 0.0, matches.iou[row])
    nearest = int(overlaps.argmax()) if overlaps.size else -1
    same = np.where(truth["labels"] == label, overlaps, 0.0)
    text = f"{classes[label]} {score:.2f} "
    if same.size and same.max() >= 0.5:
        text += "where another detection has found the object"
    elif overlaps.size and overlaps[nearest] >= 0.5:
        text += f"on {classes[truth['labels'][nearest]]} (IoU {overlaps[nearest]:.2f})"
    elif same.size and same.max() >= 0.1:
        text += f"off its place (IoU {same.max():.2f})"
    else:
        text += "where no object is"
    return result | {"weight": score, "wrong": text}


class ObjectScores(SceneScores[ObjectSplit]):
    """COCO's average precision and recall of boxes, and of masks where the task has them; see `SceneScores`.

    `metrics` has `box`, for instances also `mask`, as `AveragePrecision.compute` gives them, and `objects`, their
    number without crowds. The truth outlives `reset`, so that another validation reads no annotations.
    """

    needs = (ObjectSplit, "objects")

    def __init__(self, task: Task, classes: Sequence[str], examples: int | None = None, tta: TTA = TTA()) -> None:
        super().__init__(task, classes, examples, tta)
        self._truth: dict[str, tuple[Size, Json]] = {}
        self._kinds = ("box", "mask") if task.masks else ("box",)

    def check(self, model: nn.Module, split: SomeSplit) -> None:
        super().check(model, split)
        if isinstance(split, ObjectSplit) and len(set(split.image_ids)) < len(split):
            raise UserError("the image numbers of the data must differ, but one occurs twice.")

    def metrics(self) -> tuple[Json, list[Kept]]:
        precision = AveragePrecision(self.classes, self._kinds)
        precision.images = {image["number"]: image["kept"] for image in self.images.values()}
        found = precision.compute()
        there = [row["n"] for row in found["box"]["per_class"]]
        return found | {"objects": sum(there)} | self.absent(there), list(precision.images.values())

    def result(self, image: Json) -> Found:
        found = image["kept"].found
        order = np.argsort(-found["scores"], kind="stable")
        masks = found["masks"][order].tolist() if "masks" in found else None
        return Found(found["boxes"][order], found["scores"][order], found["labels"][order], masks)

    def rank(self, image: Json) -> tuple[object, ...]:
        scores = image["kept"].found["scores"].tolist()
        return len(scores), scores, image.get("score") or 0.0, image.get("weight", 0.0), image["index"]

    def update(self, model: nn.Module, batch: SceneBatch, split: ObjectSplit) -> None:
        sizes = torch.tensor(batch.sizes, device=batch.images.device)
        outputs = {name: values.cpu().numpy() for name, values in self.task.outputs(model, batch.images, sizes).items()}
        for row, index in enumerate(batch.indices.tolist()):
            size, truth = self._objects(batch, row, split, index)
            found, number = found_in(outputs, row, batch.sizes[row], size), split.image_ids[index]
            kept = AveragePrecision(self.classes, self._kinds).add(number, size, truth, vars(found))
            about: Json = {}
            if self.examples:
                matches = match(kept, self._kinds[-1])
                about = {"score": f1(kept, matches), **surest_mistake(kept, matches, self.classes)}
            self.keep(split, index, number=number, kept=kept, **about)

    def _objects(self, batch: SceneBatch, row: int, split: ObjectSplit, index: int) -> tuple[Size, Json]:
        """Size and objects of an image as it is, its masks encoded; read once."""
        known = self._truth.get(split.id(index))
        if known is None:
            size, objects = own_size(batch, row), split.target(index)
            truth = {name: getattr(objects, name) for name in ("boxes", "labels", "crowd", "area")}
            if self.task.masks:
                if objects.regions is None:
                    raise UserError("instance segmentation needs a mask for every object, but the data has boxes only.")
                truth["masks"] = [run_lengths_of(region.decode(*size)).to_coco() for region in objects.regions]
            known = self._truth[split.id(index)] = (size, truth)
        return known


# ------------------------------------------------------------------------------------------------------------ helpers


def encode_masks(masks: object, size: Size) -> list[Rle]:
    """COCO's compressed run lengths of n masks: bool (n, height, width), array or tensor, or n run lengths already.
    Raises ValueError for masks of another size."""
    if isinstance(masks, (Tensor, np.ndarray)) and masks.dtype != object:
        if masks.ndim != 3 or tuple(masks.shape[1:]) != size:
            raise ValueError(f"expected masks (n, {size[0]}, {size[1]}); got {tuple(masks.shape)}")
        # one at a time: the encoder wants columns first, which copies
        return [run_lengths_of(_array(mask)).to_coco() for mask in masks]
    assert isinstance(masks, Sequence)
    for mask in masks:
        if tuple(mask["size"]) != size:
            raise ValueError(f"expected masks of {size[0]} x {size[1]}; got one of {mask['size']}")
    return [run_lengths.frPyObjects(m, *size) if isinstance(m["counts"], list) else m for m in masks]


def _array(values: object) -> np.ndarray:
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    array: np.ndarray = (values.float() if values.dtype == torch.bfloat16 else values).numpy()  # NumPy has no bfloat16
    return array


def _corner_and_sides(boxes: np.ndarray) -> np.ndarray:
    """(n, 4) x1, y1, x2, y2 to COCO's x, y, width, height."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _mean(values: np.ndarray) -> float | None:
    """The mean of what is defined; the evaluator marks with -1 what is not."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None


def _silent(*_: object) -> None:
    pass
