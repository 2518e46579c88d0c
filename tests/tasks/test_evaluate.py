"""Scores against plain NumPy written down from their definitions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from resurge.data.preprocessing import Preprocessing
from resurge.data.splits import ArrayImages, Split
from resurge.errors import UserError
from resurge.tasks.classify.metrics import BINS, MISTAKES
from resurge.tasks.evaluation import evaluate, write_evaluation
from resurge.tasks.running import pick_device
from resurge.tasks.table import get_task

CLASSIFY = get_task("classify")
CLASSES = ("a", "b", "c", "d", "e", "f", "g")


class Table(nn.Module):
    """Looks the logits up: an image's grey value is its row."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.drop = nn.Dropout(0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.drop(self.logits[(images[:, 0, 0, 0] * 255).round().long()])


@pytest.fixture
def case() -> tuple[Table, Split, Preprocessing, np.ndarray, np.ndarray]:
    count = 200
    random = np.random.default_rng(0)
    labels = random.integers(0, len(CLASSES) - 1, count)  # the last class does not occur
    logits = random.normal(size=(count, len(CLASSES))) * 2
    logits[np.arange(count), labels] += 1.5
    pixels = np.arange(count, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    split = Split(tuple(f"image {i}" for i in range(count)), ArrayImages(pixels), tuple(labels.tolist()))
    pre = Preprocessing(4, 1.0, (0.0,), (1.0,), 1, squash=True)
    return Table(torch.tensor(logits, dtype=torch.float32)).train(), split, pre, logits, labels


def test_scores_are_their_definitions(case: tuple[Table, Split, Preprocessing, np.ndarray, np.ndarray]) -> None:
    model, split, pre, logits, labels = case
    done: list[tuple[int, int]] = []
    got = evaluate(
        CLASSIFY, model, split, pre, CLASSES, batch_size=64, device="cpu", progress=lambda *at: done.append(at)
    )
    assert done == [(64, 200), (128, 200), (192, 200), (200, 200)]
    assert model.training
    assert model.drop.training

    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    predicted, confidence = shares.argmax(1), shares.max(1)
    right = predicted == labels
    order = (-logits).argsort(1)
    assert got["count"] == 200
    assert got["top1"] == pytest.approx(right.mean())
    assert got["top5"] == pytest.approx((order[:, :5] == labels[:, None]).any(1).mean())
    assert got["nll"] == pytest.approx(-np.log(shares[np.arange(200), labels]).mean(), rel=1e-5)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    assert got["ece"] == pytest.approx(sum(gaps), rel=1e-4)
    assert [row["n"] for row in got["reliability"]] == [(bins == b).sum() for b in np.unique(bins)]
    drawn = sum(abs(row["accuracy"] - row["confidence"]) * row["n"] for row in got["reliability"]) / 200
    assert drawn == pytest.approx(got["ece"], rel=1e-4)

    confusion = np.zeros((7, 7), int)
    np.add.at(confusion, (labels, predicted), 1)
    assert got["confusion"] == confusion.tolist()
    for index, row in enumerate(got["per_class"]):
        hits, told, there = confusion[index, index], confusion[:, index].sum(), confusion[index].sum()
        assert row["class"] == CLASSES[index]
        assert row["n"] == there
        assert row["precision"] == pytest.approx(hits / told if told else 0.0)
        assert row["recall"] == pytest.approx(hits / there if there else 0.0)
        assert row["f1"] == pytest.approx(2 * hits / (told + there) if told + there else 0.0)

    wrong = sorted((-confidence[i], i) for i in np.flatnonzero(~right))[:MISTAKES]
    assert [mistake["index"] for mistake in got["mistakes"]] == [i for _, i in wrong]
    first = got["mistakes"][0]
    index = wrong[0][1]
    assert first["id"] == f"image {index}"
    assert first["path"] is None
    assert first["true"] == CLASSES[labels[index]]
    assert first["predicted"] == CLASSES[predicted[index]]
    assert first["confidence"] == pytest.approx(confidence[index], rel=1e-5)


def test_the_result_is_json(case: tuple[Table, Split, Preprocessing, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    model, split, pre, _, _ = case
    got = evaluate(CLASSIFY, model, split, pre, CLASSES, device="cpu")
    assert json.loads(write_evaluation(tmp_path, got).read_text()) == got


def test_what_cannot_be_evaluated(case: tuple[Table, Split, Preprocessing, np.ndarray, np.ndarray]) -> None:
    model, split, pre, _, _ = case
    with pytest.raises(UserError, match="7 classes"):
        evaluate(CLASSIFY, model, split, pre, CLASSES[:6], device="cpu")
    with pytest.raises(UserError, match="no images"):
        evaluate(CLASSIFY, model, split.select([]), pre, CLASSES, device="cpu")
    with pytest.raises(UserError, match="auto, cpu, cuda or mps"):
        pick_device("gpu")
    with pytest.raises(UserError, match="precision"):
        evaluate(CLASSIFY, model, split, pre, CLASSES, device="cpu", precision="fp8")
