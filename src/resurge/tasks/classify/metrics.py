"""Scores of a classifier: accuracy, calibration, per class, and the mistakes it was surest of."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import default_collate
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

from resurge.data.splits import Split
from resurge.errors import UserError
from resurge.tasks.evaluation import Gather, PreparedImages, Reduce, Scores

if TYPE_CHECKING:
    from PIL import Image

BINS = 15
MISTAKES = 24


class LabelBatch(NamedTuple):
    """images: float32 (N, C, H, W). labels: int64 (N,). indices: int64 (N,), which images of the split these are."""

    images: Tensor
    labels: Tensor
    indices: Tensor


def collate(samples: Sequence[tuple[Tensor, int, int]]) -> LabelBatch:
    """A batch of samples (image, label, index)."""
    return LabelBatch(*default_collate(list(samples)))


class LabelledImages(PreparedImages[Split]):
    """Images of a split as a network sees them in evaluation: ((C, H, W), label, index)."""

    def about(self, image: Image.Image, index: int) -> int:
        return self.label(index)

    def label(self, index: int) -> int:
        return self.split.labels[index]


class ClassifierScores(Scores[LabelBatch, Split]):
    """Scores of a classifier.

    Args:
        classes: their names.
        mistakes: mistakes that are named. With 0 only loss and accuracy are collected, which is all of `validated`.
    """

    def __init__(self, classes: Sequence[str], mistakes: int = MISTAKES) -> None:
        self.classes = tuple(classes)
        self.mistakes = mistakes
        self.reset()

    def reset(self, device: torch.device | None = None) -> None:
        # sums of loss, of correct images, of those among the best five, and of images; double, so that their order does
        # not show
        self._sums = torch.zeros(4, dtype=torch.float64, device=device)
        self._surest: list[tuple[float, int, int, int]] = []
        self._sure: list[Tensor] = []  # per batch (2, N): confidence, and whether it was right
        self._split: Split | None = None
        count = len(self.classes)
        alone: dict[str, Any] = {"sync_on_compute": False}  # one process evaluates, also when several have trained
        self._metrics = (
            MetricCollection(
                {
                    "confusion": MulticlassConfusionMatrix(count, **alone),
                    "ece": MulticlassCalibrationError(count, n_bins=BINS, norm="l1", **alone),
                    "precision": MulticlassPrecision(count, average=None, **alone),
                    "recall": MulticlassRecall(count, average=None, **alone),
                    "f1": MulticlassF1Score(count, average=None, **alone),
                },
                compute_groups=[["confusion"], ["ece"], ["precision", "recall", "f1"]],
            ).to(device)
            if self.mistakes
            else None
        )

    def check(self, model: nn.Module, split: object) -> None:
        if not isinstance(split, Split):
            raise UserError("the task classify needs images with one label each.")

    def update(self, model: nn.Module, batch: LabelBatch, split: Split) -> None:
        logits = model(batch.images).float()
        if logits.shape[1] != len(self.classes):
            raise UserError(f"the model tells {logits.shape[1]} classes apart, but the data has {len(self.classes)}.")
        labels = batch.labels.to(logits.device)
        top = logits.topk(min(5, logits.shape[1]), 1).indices == labels[:, None]
        loss = F.cross_entropy(logits, labels, reduction="sum")
        count = torch.tensor(len(labels), device=logits.device)
        self._sums += torch.stack([loss, top[:, 0].sum(), top.any(1).sum(), count]).double()
        if self._metrics is None:
            return
        self._split = split
        probabilities = logits.softmax(1)
        self._metrics.update(probabilities, labels)
        confidence, predicted = probabilities.max(1)
        self._sure.append(torch.stack([confidence, (predicted == labels).float()]).cpu())
        self._collect_mistakes(confidence.cpu(), predicted.cpu(), labels.cpu(), batch.indices)

    def _collect_mistakes(self, confidence: Tensor, predicted: Tensor, labels: Tensor, indices: Tensor) -> None:
        """Keep the surest mistakes in a heap of (confidence, -index, predicted, label)."""
        for row in (predicted != labels).nonzero().flatten().tolist():
            entry = (float(confidence[row]), -int(indices[row]), int(predicted[row]), int(labels[row]))
            if len(self._surest) < self.mistakes:
                heapq.heappush(self._surest, entry)
            else:
                heapq.heappushpop(self._surest, entry)

    def validated(self, reduce: Reduce, gather: Gather) -> dict[str, float]:
        loss, top1, top5, count = reduce(self._sums.clone()).tolist()
        return {"loss": loss / count, "top1": top1 / count, "top5": top5 / count, "count": count} if count else {}

    def compute(self) -> dict[str, Any]:
        """Plain data:

        - `count`, the images; `top1`; `top5`, null with five classes or fewer, where it says nothing;
        - `nll`, the mean negative log-likelihood; `ece`, the expected calibration error over 15 bins (Guo et al. 2017,
          eq. 5);
        - `per_class`: class, n, precision, recall, f1; zero where there is nothing to divide by;
        - `confusion`, `[true][predicted]`;
        - `reliability`: for each bin of confidence that holds images their mean confidence, accuracy and number;
        - `mistakes`: the wrong predictions with the highest confidence.
        """
        assert self._metrics is not None
        assert self._split is not None
        count = int(self._sums[3])
        nll, top1, top5 = (self._sums[:3] / count).tolist()
        scores = {name: value.cpu() for name, value in self._metrics.compute().items()}
        return {
            "count": count,
            "top1": top1,
            "top5": top5 if len(self.classes) > 5 else None,
            "nll": nll,
            "ece": float(scores["ece"]),
            "per_class": [
                {
                    "class": name,
                    "n": int(scores["confusion"][index].sum()),
                    **{key: float(scores[key][index]) for key in ("precision", "recall", "f1")},
                }
                for index, name in enumerate(self.classes)
            ],
            "confusion": scores["confusion"].tolist(),
            "reliability": _reliability(torch.cat(self._sure, dim=1)),
            "mistakes": [self._mistake(self._split, *entry) for entry in sorted(self._surest, reverse=True)],
        }

    def _mistake(self, split: Split, confidence: float, negative: int, predicted: int, label: int) -> dict[str, Any]:
        path = split.path(-negative)
        return {
            "id": split.id(-negative),
            "index": -negative,
            "path": None if path is None else str(path),
            "true": self.classes[label],
            "predicted": self.classes[predicted],
            "confidence": confidence,
        }


def _reliability(sure: Tensor) -> list[dict[str, float]]:
    """The bins of a reliability diagram from (2, N): confidence in 0..1, and 1 where the answer was right."""
    confidence, right = sure.double()
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    count = torch.bincount(bins, minlength=BINS)
    sums = [torch.bincount(bins, weights, minlength=BINS) for weights in (confidence, right)]
    return [
        {"confidence": float(sums[0][i] / n), "accuracy": float(sums[1][i] / n), "n": n}
        for i, n in enumerate(count.tolist())
        if n
    ]
