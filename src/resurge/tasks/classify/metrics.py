"""Scores of a classifier: accuracy, calibration, per class, and the mistakes it was surest of.

The prediction is the class with the highest logit, in float32 whatever the network computed in; of classes with equal
logits the one with the lower index, as `argmax` picks it. Every score follows this one order.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import default_collate
from torchmetrics import MetricCollection
from torchmetrics import classification as metrics

from resurge.data.splits import Split
from resurge.files import Json
from resurge.tasks.classify.report import TOP
from resurge.tasks.evaluation import Gather, Reduce, Scores, named

if TYPE_CHECKING:
    from resurge.tasks.task import Task

BINS = 15
MISTAKES = 24
EXAMPLES = 12


class LabelBatch(NamedTuple):
    images: Tensor  # float32 (N, C, H, W)
    labels: Tensor  # int64 (N,)
    indices: Tensor  # int64 (N,), which images of the split these are


def collate(samples: Sequence[tuple[Tensor, int, int]]) -> LabelBatch:
    """A batch of samples (image, label, index)."""
    return LabelBatch(*default_collate(list(samples)))


class ClassifierScores(Scores[LabelBatch, Split]):
    """Scores of a classifier; `mistakes` are named. With 0 only loss and accuracy are collected, all of `validated`."""

    needs = (Split, "one label each")

    def __init__(self, task: Task, classes: Sequence[str], mistakes: int | None = None) -> None:
        self.mistakes = MISTAKES if mistakes is None else mistakes
        super().__init__(task, classes)

    def reset(self, device: torch.device | None = None) -> None:
        # sums of loss, of correct images, of those among the best five, and of images; double, so that their order does
        # not show
        self._sums = torch.zeros(4, dtype=torch.float64, device=device)
        self._surest: list[tuple[float, int, int, int]] = []  # confidence, -index, predicted, true class
        self._first: dict[int, tuple[float, int, int, int]] = {}  # the same of the first image of each class
        self._sure: list[Tensor] = []  # per batch (2, N): confidence, and whether it was right
        self._told: list[tuple[Tensor, Tensor]] = []  # per batch probabilities and labels, for metrics of plugins
        self._split: Split | None = None
        count = len(self.classes)
        alone: Json = {"sync_on_compute": False}  # one process evaluates, also when several have trained
        self._metrics = (
            MetricCollection(
                {
                    "confusion": metrics.MulticlassConfusionMatrix(count, **alone),
                    "precision": metrics.MulticlassPrecision(count, average=None, **alone),
                    "recall": metrics.MulticlassRecall(count, average=None, **alone),
                    "f1": metrics.MulticlassF1Score(count, average=None, **alone),
                },
                compute_groups=[["confusion"], ["precision", "recall", "f1"]],
            ).to(device)
            if self.mistakes
            else None
        )

    def update(self, model: nn.Module, batch: LabelBatch, split: Split) -> None:
        logits = model(batch.images).float()
        self.check_classes(logits.shape[1])
        labels = batch.labels.to(logits.device)
        place = places(logits, labels)
        loss = F.cross_entropy(logits, labels, reduction="sum")
        count = torch.tensor(len(labels), device=logits.device)
        self._sums += torch.stack([loss, (place < 1).sum(), (place < 5).sum(), count]).double()
        if self.task.plugin_metrics:
            self._told.append((logits.softmax(1).cpu(), labels.cpu()))
        if self._metrics is None:
            return
        self._split = split
        predicted = logits.argmax(1)
        confidence = logits.softmax(1).gather(1, predicted[:, None])[:, 0]
        self._metrics.update(predicted, labels)
        self._sure.append(torch.stack([confidence, (predicted == labels).float()]).cpu())
        columns = (confidence, -batch.indices, predicted, labels)
        entries = list(zip(*(column.tolist() for column in columns), strict=True))
        self._surest = heapq.nlargest(self.mistakes, self._surest + [each for each in entries if each[2] != each[3]])
        for each in entries:
            known = self._first.get(each[3])
            if known is None or each[1] > known[1]:
                self._first[each[3]] = each

    def validated(self, reduce: Reduce, gather: Gather) -> dict[str, float]:
        loss, top1, top5, count = reduce(self._sums.clone()).tolist()
        told = [part for parts in gather(self._told) for part in parts] if self.task.plugin_metrics else []
        if not count:
            return {}
        scores = {"loss": loss / count, "top1": top1 / count, "count": count} | self._plugin_scores(told)
        return scores | ({"top5": top5 / count} if len(self.classes) > TOP else {})

    def _plugin_scores(self, told: Sequence[tuple[Tensor, Tensor]]) -> dict[str, float]:
        return self.plugin_scores(*(torch.cat(values) for values in zip(*told, strict=True))) if told else {}

    def compute(self) -> Json:
        """The scores:

        - `count`, the images; `top1`; `top5`, null with five classes or fewer, where it means nothing;
        - `nll`, the mean negative log-likelihood; `ece`, the expected calibration error over 15 bins (Guo et al. 2017,
          eq. 5);
        - `per_class`: class, n, precision, recall, f1; zero where there is nothing to divide by;
        - `absent`: the classes that no image is of, where there are any;
        - `confusion`, `[true][predicted]`;
        - `reliability`: for each bin of confidence that holds images their mean confidence, accuracy and number;
        - `mistakes`: the wrong predictions with the highest confidence;
        - `examples`: the prediction for the first image of each class, of up to 12 classes.
        """
        assert self._metrics is not None
        assert self._split is not None
        count = int(self._sums[3])
        nll, top1, top5 = (self._sums[:3] / count).tolist()
        scores = {name: value.cpu() for name, value in self._metrics.compute().items()}
        there = scores["confusion"].sum(1).tolist()
        bins = _reliability(torch.cat(self._sure, dim=1))
        return {
            "count": count,
            "top1": top1,
            "top5": top5 if len(self.classes) > TOP else None,
            "nll": nll,
            "ece": sum(abs(row["confidence"] - row["accuracy"]) * row["n"] for row in bins) / count,
            "per_class": [
                {
                    "class": name,
                    "n": there[k],
                    **{key: float(scores[key][k]) for key in ("precision", "recall", "f1")},
                }
                for k, name in enumerate(self.classes)
            ],
            **self.absent(there),
            "confusion": scores["confusion"].tolist(),
            "reliability": bins,
            **({"plugin_metrics": plugins} if (plugins := self._plugin_scores(self._told)) else {}),
            "mistakes": [self._entry(self._split, *entry) for entry in self._surest],
            "examples": [self._entry(self._split, *self._first[label]) for label in sorted(self._first)[:EXAMPLES]],
        }

    def _entry(self, split: Split, confidence: float, negative: int, predicted: int, true: int) -> Json:
        prediction = {"true": self.classes[true], "predicted": self.classes[predicted], "confidence": confidence}
        return named(split, -negative) | prediction


def places(logits: Tensor, labels: Tensor) -> Tensor:
    """int64 (N,): how many of the classes (N, K) come before the label (N,): those with a higher logit, and of equal
    ones those with a lower index. `topk` leaves open which of them it takes."""
    own = logits.gather(1, labels[:, None])
    lower = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    # what is no number comes before everything, so that a broken network is never right
    return (~(logits <= own) | ((logits == own) & lower)).sum(1)


def _reliability(sure: Tensor) -> list[dict[str, float]]:
    """The bins of a reliability diagram from (2, N): confidence in 0..1, and 1 where the prediction was right."""
    confidence, right = sure.double()
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    count = torch.bincount(bins, minlength=BINS)
    sums = [torch.bincount(bins, weights, minlength=BINS) for weights in (confidence, right)]
    return [
        {"confidence": float(sums[0][i] / n), "accuracy": float(sums[1][i] / n), "n": n}
        for i, n in enumerate(count.tolist())
        if n
    ]
