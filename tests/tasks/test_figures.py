"""What figures say: one rule for ties, the precision, the classes that do not occur, what a report shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from resurge.data.preprocessing import Preprocessing, ScenePreprocessing
from resurge.data.splits import ArrayImages, MaskSplit, Split
from resurge.tasks.classify.metrics import places
from resurge.tasks.classify.predict import Classified
from resurge.tasks.detect.predict import found_in
from resurge.tasks.evaluation import evaluate
from resurge.tasks.report import absent_lines, confusion_lines
from resurge.tasks.segment.metrics import map_scores
from resurge.tasks.table import get_task
from resurge.tasks.task import Network

CLASSIFY = get_task("classify")
CLASSES = ("a", "b", "c", "d", "e", "f", "g")
SEEN = Preprocessing(4, 1.0, (0.0,), (1.0,), 1, squash=True)


class Table(nn.Module):
    """Looks the logits up: an image's grey value is its row. A backbone and head as class activation maps want them."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.head = Pooled(len(CLASSES))

    def forward_features(self, images: Tensor) -> Tensor:
        return self.logits[(images[:, 0, 0, 0] * 255).round().long()][:, :, None, None].expand(-1, -1, 2, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.forward_features(images))


class Pooled(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(classes, classes, bias=False)
        nn.init.eye_(self.fc.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def split_of(labels: list[int]) -> Split:
    pixels = np.arange(len(labels), dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    return Split(tuple(f"image {i}" for i in range(len(labels))), ArrayImages(pixels), tuple(labels))


def test_of_equal_logits_the_lower_class_wins_in_every_figure() -> None:
    random = np.random.default_rng(0)
    logits = torch.tensor(random.integers(0, 3, (200, 7)), dtype=torch.float32)  # ties everywhere
    # sigmoids of these are equal in float32, the logits are not: the logits decide
    logits[:40] = logits[:40] * 1e-8 + 30
    labels = random.integers(0, 7, 200).tolist()
    got = evaluate(CLASSIFY, Table(logits), split_of(labels), SEEN, CLASSES, batch_size=50, device="cpu")
    order = np.argsort(-logits.numpy(), axis=1, kind="stable")
    right = order[:, 0] == labels
    confusion = np.zeros((7, 7), int)
    np.add.at(confusion, (labels, order[:, 0]), 1)
    assert got["confusion"] == confusion.tolist()
    assert got["top1"] == np.trace(confusion) / 200 == right.mean()
    assert got["top5"] == (order[:, :5] == np.array(labels)[:, None]).any(1).mean()
    assert sum(row["accuracy"] * row["n"] for row in got["reliability"]) == pytest.approx(right.sum())
    assert places(logits, torch.tensor(labels)).tolist() == [
        row.tolist().index(k) for row, k in zip(order, labels, strict=True)
    ]
    for row, ranked in zip(logits.numpy(), order, strict=True):
        assert Classified.of(row, CLASSES).names == tuple(CLASSES[k] for k in ranked)
    broken = torch.full((1, 7), torch.nan)
    assert places(broken, torch.tensor([0])).tolist() == [7]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_evaluation_names_its_precision(precision: str) -> None:
    got = evaluate(CLASSIFY, Table(torch.eye(7)), split_of([0, 1]), SEEN, CLASSES, device="cpu", precision=precision)
    assert got["precision"] == precision
    assert json.loads(json.dumps({"model": "x"} | got))["precision"] == precision


def test_the_pictures_show_what_was_scored(tmp_path: Path) -> None:
    """Another pass, in another precision or batch, may decide otherwise."""
    model = Table(torch.eye(7))
    got = evaluate(CLASSIFY, model, split_of([0, 1, 3]), SEEN, CLASSES, device="cpu")
    scored = [(entry["id"], entry["predicted"], entry["confidence"]) for entry in got["examples"]]
    assert scored[2][:2] == ("image 2", "c")
    assert [entry["predicted"] for entry in got["mistakes"]] == ["c"]
    model.logits.data = model.logits.data.roll(1, 1)
    CLASSIFY.write_pictures(Network(model, SEEN, CLASSES), tmp_path, got, split_of([0, 1, 3]))
    assert [(entry["id"], entry["predicted"], entry["confidence"]) for entry in got["examples"]] == scored
    assert all((tmp_path / entry[key]).is_file() for entry in got["examples"] for key in ("thumbnail", "overlay"))


def test_classes_that_do_not_occur_are_named_and_left_out() -> None:
    got = evaluate(CLASSIFY, Table(torch.eye(7)), split_of([0, 1, 1]), SEEN, CLASSES, device="cpu")
    assert got["absent"] == ["c", "d", "e", "f", "g"]
    assert absent_lines(got) == ["5 classes do not occur in these images, left out of all means: c, d, e, f, g"]
    assert "–" in "\n".join(CLASSIFY.report.lines(got, CLASSES))
    # three pixels are taken for a class that no pixel is of
    scores = map_scores(np.array([[6, 0, 3], [0, 9, 0], [0, 0, 0]]), "abc", predicted_only=False)
    assert scores["miou"] == pytest.approx((6 / 9 + 1) / 2)
    assert scores["per_class"][2] == {"class": "c", "pixels": 0, "iou": None, "accuracy": None}


@pytest.mark.parametrize(
    "score, text",
    [
        (0.5, "nothing found; the best score seen is 0.317, of dog: --score 0.31 shows it"),
        (0.31, "1 dog; surest dog 31.70 %"),
    ],
)
def test_nothing_found_says_which_score_would_find(score: float, text: str) -> None:
    outputs = {
        "boxes": np.array([[[0, 0, 9, 9], [1, 1, 5, 5]]], np.float32),
        "scores": np.array([[0.2, 0.317]], np.float32),
        "labels": np.array([[0, 1]]),
    }
    found = found_in(outputs, 0, (10, 10), (10, 10), score)
    assert found.to_text(("cat", "dog")) == text
    assert found_in(outputs, 0, (10, 10), (10, 10)).from_score(score).to_text(("cat", "dog")) == text
    none = {**outputs, "scores": np.zeros((1, 2), np.float32)}
    assert found_in(none, 0, (10, 10), (10, 10), score).to_text(("cat", "dog")) == "nothing found, at any score"
    left_out = found.to_json(("cat", "dog")).get("best_left_out")
    assert left_out == (None if len(found) else {"class": "dog", "score": pytest.approx(0.317)})


def test_no_name_of_a_class_is_cut() -> None:
    names = ("elephant seal", "elephant bull")
    lines = confusion_lines({"confusion": [[5, 1], [0, 7]]}, names, 20)
    assert lines[1].splitlines() == [
        "true \\ pred       1  2",
        "1  elephant seal  5  1",
        "2  elephant bull  0  7",
    ]


def test_a_segmenter_is_scored_on_data_that_lack_a_class() -> None:
    class Halves(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits = torch.zeros(len(images), 3, *images.shape[2:])
            logits[:, 0, :, :4] = logits[:, 2, :, 4:] = 1.0
            return logits

    class Zeros:
        def read(self, index: int) -> np.ndarray:
            return np.zeros((8, 8), np.uint8)

    split = MaskSplit(("a",), ArrayImages(np.zeros((1, 8, 8), np.uint8)), Zeros())
    seen = ScenePreprocessing(None, None, (0.0,), (1.0,), 1)
    got = evaluate(get_task("segment"), Halves(), split, seen, ("a", "b", "c"), device="cpu")
    assert got["absent"] == ["b", "c"]
    assert got["miou"] == 0.5
    assert [row["iou"] for row in got["per_class"]] == [0.5, None, None]
