"""Scores of segmenters at the images' own size: intersection over union per class, and how many pixels are right."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resurge.data.loading import SceneBatch
from resurge.data.splits import IGNORE, MaskSplit
from resurge.errors import UserError
from resurge.files import Json
from resurge.tasks.result import Size
from resurge.tasks.scenes.metrics import SceneScores, own_size
from resurge.tasks.segment.predict import LabelMap
from resurge.tasks.segment.sliding import class_values

_STRIP = 1 << 24  # numbers a strip of enlarged logits has at most


def confusion_matrix(
    predicted: np.ndarray | Tensor, truth: np.ndarray | Tensor, classes: int, ignore: int = IGNORE
) -> np.ndarray:
    """int64 (classes, classes): pixels by [true class][predicted class] of maps (H, W); none where the truth is
    `ignore`.

    Raises:
        UserError: the truth has a class there is none for.
        ValueError: another shape, or a predicted class there is none for.
    """
    predicted, truth = (values.cpu().numpy() if isinstance(values, Tensor) else values for values in (predicted, truth))
    if predicted.shape != truth.shape:
        raise ValueError(f"expected two maps of one size; got {predicted.shape} and {truth.shape}")
    counted = truth != ignore
    true, predicted = (values[counted].astype(np.int64) for values in (truth, predicted))
    for name, values in (("true", true), ("predicted", predicted)):
        if values.size and (values.min() < 0 or values.max() >= classes):
            wrong = int(values.max() if values.max() >= classes else values.min())
            message = f"a {name} label map holds the class {wrong}, expected 0 to {classes - 1}"
            if name == "predicted":
                raise ValueError(message)
            raise UserError(f"{message}. Pixels without a class are to be marked with {ignore}.")
    return np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)


def map_scores(confusion: np.ndarray, classes: Sequence[str], *, predicted_only: bool = True) -> Json:
    """The scores of a confusion matrix [true][predicted]; None where there is nothing to divide by.

    `per_class` has for each class its name, `pixels`, `iou` (pixels that are of the class and predicted as it / pixels
    that are either) and `accuracy` (share of the class's pixels that are predicted right). `miou` and `mean_accuracy`
    are means over the classes where it is defined, `pixel_accuracy` is the share of all pixels that are right; in 0..1.
    `confusion` is the matrix, in pixels. A class that no pixel is of has the IoU 0 if it was predicted; without
    `predicted_only` it has none then either: pixels that are taken for it count against their own classes anyway.
    """
    right, there, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    iou, accuracy = _ratio(right, there + predicted - right), _ratio(right, there)
    if not predicted_only:
        iou[there == 0] = np.nan
    return {
        "miou": _mean(iou),
        "pixel_accuracy": float(right.sum() / there.sum()) if there.sum() else None,
        "mean_accuracy": _mean(accuracy),
        "per_class": [
            {"class": name, "pixels": int(there[k]), "iou": _or_none(iou[k]), "accuracy": _or_none(accuracy[k])}
            for k, name in enumerate(classes)
        ],
        "confusion": confusion.tolist(),
    }


class MapScores(SceneScores[MaskSplit]):
    """Intersection over union and pixel accuracy; see `SceneScores`. `metrics` is that of `map_scores`."""

    needs = (MaskSplit, "label maps")

    def metrics(self) -> tuple[Json, np.ndarray]:
        total = np.zeros(len(self.classes) ** 2, dtype=np.int64)
        for image in self.images.values():
            cells, counts = image["confusion"]
            total[cells] += counts
        confusion = total.reshape(len(self.classes), -1)
        return self._scores(confusion), confusion

    def _scores(self, confusion: np.ndarray) -> Json:
        """Data need not hold every class of the network: those that do not occur are left out of the means."""
        there = confusion.sum(axis=1).tolist()
        return map_scores(confusion, self.classes, predicted_only=False) | self.absent(there)

    def result(self, image: Json) -> LabelMap:
        size, content, confidence = image["map"]
        labels = np.frombuffer(zlib.decompress(content), dtype=np.uint8).reshape(size)
        return LabelMap(labels, confidence)

    def rank(self, image: Json) -> tuple[object, ...]:
        cells, counts = image["confusion"]
        return cells.tolist(), counts.tolist(), image.get("score") or 0.0, image.get("weight", 0.0), image["index"]

    def update(self, model: nn.Module, batch: SceneBatch, split: MaskSplit) -> None:
        # Images of one size go together and without padding, which pooling over the whole image would see: a score
        # must not depend on what else is in the batch.
        by_size: dict[Size, list[int]] = {}
        for row, (height, width) in enumerate(batch.sizes):
            by_size.setdefault((height, width), []).append(row)
        for (height, width), rows in by_size.items():
            values = class_values(model, batch.images[rows, :, :height, :width], self.tta)
            self.check_classes(values.shape[1])
            for row, value in zip(rows, values, strict=True):
                index = int(batch.indices[row])
                self._add(value, _truth(batch, row, split, index), split, index)

    def _add(self, values: Tensor, truth: np.ndarray, split: MaskSplit, index: int) -> None:
        predicted, confidence = enlarged_classes(values, (truth.shape[0], truth.shape[1]))
        confusion = confusion_matrix(predicted, truth, len(self.classes), IGNORE)
        about: Json = {"confusion": (np.flatnonzero(confusion), confusion[confusion > 0])}
        if self.examples:
            about["score"] = map_scores(confusion, self.classes)["miou"]
            labels, shares = predicted.cpu().numpy().astype(np.uint8), confidence.cpu().numpy()
            about["map"] = labels.shape, zlib.compress(labels.tobytes(), 1), float(shares.mean(dtype=np.float64))
            counted = truth != IGNORE
            wrong = counted & (labels != truth)
            if wrong.any():
                sure = shares[wrong]
                about["weight"] = float(sure.sum() / counted.sum())
                about["wrong"] = _commonest_mistake(confusion, self.classes, float(sure.mean()))
        self.keep(split, index, **about)
        if self.examples and len(self.images) % (8 * self.examples) == 0:  # other maps are not looked at again
            shown = {image["id"] for image in self.shown()}
            for name, image in self.images.items():
                if name not in shown:
                    image.pop("map", None)


def enlarged_classes(values: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The most probable class of every pixel of an image of (H, W), int64, and its probability, float32.

    `values` are (K, h, w) logits, or logarithms of probabilities. They are resized bilinearly as `F.interpolate` does
    with align_corners=False, but strip by strip: with many classes the enlarged values would fill the memory.
    """
    classes, rows, _ = values.shape
    height, width = size
    at = ((torch.arange(height, device=values.device, dtype=torch.float64) + 0.5) * (rows / height) - 0.5).clamp(min=0)
    upper = at.long().clamp(max=rows - 1)
    lower = (upper + 1).clamp(max=rows - 1)
    share = (at - upper).to(values.dtype)[:, None]
    labels, shares = [], []
    for strip in torch.arange(height, device=values.device).split(max(1, _STRIP // (classes * width))):  # type: ignore[no-untyped-call]
        part = torch.lerp(values[:, upper[strip]], values[:, lower[strip]], share[strip])
        if part.shape[-1] != width:
            part = F.interpolate(part[None], (len(strip), width), mode="bilinear", align_corners=False)[0]
        highest, label = part.max(dim=0)
        labels.append(label)
        shares.append((highest - part.logsumexp(dim=0)).exp())
    return torch.cat(labels), torch.cat(shares)


def _truth(batch: SceneBatch, row: int, split: MaskSplit, index: int) -> np.ndarray:
    """The label map of an image, (H, W) uint8. Raises UserError when the image has another size."""
    truth = split.target(index)
    height, width = own_size(batch, row)
    if truth.shape != (height, width):
        raise UserError(
            f"{split.id(index)}: the image has {width} x {height} pixels and its label map "
            f"{truth.shape[1]} x {truth.shape[0]}. `resurge check-data` lists all such files."
        )
    return truth


def _commonest_mistake(confusion: np.ndarray, classes: Sequence[str], confidence: float) -> str:
    """ "12 % of the pixels, most of them road taken for pavement; mean probability 0.81" """
    wrong = confusion - np.diag(np.diag(confusion))
    true, predicted = divmod(int(wrong.argmax()), len(classes))
    share = wrong.sum() / confusion.sum()
    most = "most of them" if 2 * wrong[true, predicted] > wrong.sum() else "above all"
    what = f"{classes[true]} taken for {classes[predicted]}"
    return f"{share:.0%} of the pixels, {most} {what}; mean probability {confidence:.2f}"


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return result


def _mean(values: np.ndarray) -> float | None:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
