"""Scores of a classifier on a split: accuracy, calibration, per class, and the mistakes it was surest of."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

from resurge.data.bundle import Split
from resurge.data.transforms import Preprocessing
from resurge.errors import UserError
from resurge.files import atomic_write_text
from resurge.tasks.running import autocast, evaluating, pick_device

BINS = 15
MISTAKES = 24


class PreparedSplit(Dataset[tuple[Tensor, int, int]]):
    """Images of a split as a network sees them in evaluation: ((C, H, W), label, index)."""

    def __init__(self, split: Split, preprocessing: Preprocessing) -> None:
        self.split = split
        self.preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        return self.preprocessing(self.split.read(index)), self.split.labels[index], index


def evaluate(
    model: nn.Module,
    split: Split,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    *,
    batch_size: int = 128,
    device: str | torch.device = "auto",
    precision: str = "fp32",
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score a classifier. `progress(done, total)` is called after every batch.

    Returns plain data: `top1`, `top5` (null with five classes or fewer, where it says nothing),
    `nll` (mean negative log-likelihood), `ece` (expected calibration error over 15 bins, Guo et al. 2017, eq. 5),
    `count`, `per_class` (class, n, precision, recall, f1; zero where there is nothing to divide by), `confusion`
    (`[true][predicted]`), `reliability` (for each bin of confidence that holds images: their mean confidence, accuracy
    and number), and `mistakes`: the wrong answers given with the highest confidence.

    Raises:
        UserError: no images, the model has other classes, an image cannot be read, or the device is not there.
    """
    if not len(split):
        raise UserError("there are no images to evaluate on.")
    target = device if isinstance(device, torch.device) else pick_device(device)
    count = len(classes)
    alone: dict[str, Any] = {"sync_on_compute": False}  # one process evaluates, also when several have trained
    metrics = MetricCollection(
        {
            "confusion": MulticlassConfusionMatrix(count, **alone),
            "ece": MulticlassCalibrationError(count, n_bins=BINS, norm="l1", **alone),
            "precision": MulticlassPrecision(count, average=None, **alone),
            "recall": MulticlassRecall(count, average=None, **alone),
            "f1": MulticlassF1Score(count, average=None, **alone),
        },
        compute_groups=[["confusion"], ["ece"], ["precision", "recall", "f1"]],
    ).to(target)
    loader = DataLoader(PreparedSplit(split, preprocessing), batch_size=batch_size, num_workers=workers)
    model = model.to(target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    totals = torch.zeros(3, dtype=torch.float64)
    surest: list[tuple[float, int, int]] = []
    sure: list[Tensor] = []  # of each batch (2, N): confidence, and whether it was right
    with evaluating(model):
        for images, labels, indices in loader:
            images = images.to(target, memory_format=torch.channels_last)
            labels = labels.to(target)
            with autocast(target, precision):
                logits = model(images)
            logits = logits.float()
            if logits.shape[1] != count:
                raise UserError(f"the model tells {logits.shape[1]} classes apart, but the data has {count}.")
            probabilities = logits.softmax(1)
            metrics.update(probabilities, labels)
            top = logits.topk(min(5, count), 1).indices == labels[:, None]
            loss = F.cross_entropy(logits, labels, reduction="sum")
            totals += torch.stack([loss, top[:, 0].sum(), top.any(1).sum()]).double().cpu()
            confidence, predicted = probabilities.max(1)
            sure.append(torch.stack([confidence, (predicted == labels).float()]).cpu())
            _collect_mistakes(surest, probabilities.cpu(), labels.cpu(), indices)
            if progress is not None:
                progress(min(len(split), int(indices[-1]) + 1), len(split))
    nll, top1, top5 = (totals / len(split)).tolist()
    scores = {name: value.cpu() for name, value in metrics.compute().items()}
    return {
        "count": len(split),
        "top1": top1,
        "top5": top5 if count > 5 else None,
        "nll": nll,
        "ece": float(scores["ece"]),
        "per_class": [
            {
                "class": name,
                "n": int(scores["confusion"][index].sum()),
                **{key: float(scores[key][index]) for key in ("precision", "recall", "f1")},
            }
            for index, name in enumerate(classes)
        ],
        "confusion": scores["confusion"].tolist(),
        "reliability": _reliability(torch.cat(sure, dim=1)),
        "mistakes": [
            {
                "id": split.id(-index),
                "index": -index,
                "path": _path_text(split, -index),
                "true": classes[split.labels[-index]],
                "predicted": classes[predicted],
                "confidence": confidence,
            }
            for confidence, index, predicted in sorted(surest, reverse=True)
        ],
    }


def _collect_mistakes(
    surest: list[tuple[float, int, int]], probabilities: Tensor, labels: Tensor, indices: Tensor
) -> None:
    """Keep the surest wrong answers in a heap of (confidence, -index, predicted)."""
    confidence, predicted = probabilities.max(1)
    for row in (predicted != labels).nonzero().flatten().tolist():
        entry = (float(confidence[row]), -int(indices[row]), int(predicted[row]))
        if len(surest) < MISTAKES:
            heapq.heappush(surest, entry)
        else:
            heapq.heappushpop(surest, entry)


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


def _path_text(split: Split, index: int) -> str | None:
    path = split.path(index)
    return None if path is None else str(path)


def write_evaluation(folder: str | Path, evaluation: dict[str, Any]) -> Path:
    """Write `evaluation.json` into a run directory; returns its path."""
    path = Path(folder) / "evaluation.json"
    atomic_write_text(path, json.dumps(evaluation, indent=1, ensure_ascii=False) + "\n")
    return path
