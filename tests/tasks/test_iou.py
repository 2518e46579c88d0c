"""Scores of label maps against a loop over pixels and against torchmetrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassJaccardIndex

from resurge.errors import UserError
from resurge.tasks.segment.metrics import confusion_matrix, map_scores

CLASSES = ("road", "sky", "tree", "told only", "car", "neither", "there only")


def random_maps(seed: int, count: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    """(predicted, truth): borders of truth ignored, as the formats mark them; the prediction mostly right."""
    random = np.random.default_rng(seed)
    maps = []
    for i in range(count):
        height, width = 20 + i, 31 - i
        blocks = random.choice([0, 1, 2, 4, 6], (height // 5 + 1, width // 5 + 1))
        truth = blocks.repeat(5, axis=0).repeat(5, axis=1)[:height, :width].astype(np.uint8)
        predicted = np.where(random.random(truth.shape) < 0.3, random.choice([0, 1, 2, 3, 4], truth.shape), truth)
        predicted[predicted == 6] = 0
        truth[::5] = 255
        truth[:, ::5] = 255
        maps.append((predicted.astype(np.int64), truth))
    return maps


def by_pixel(maps: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, list[float]]:
    """IoU and accuracy of each class, counted pixel by pixel."""
    both, either, there = ([0] * len(CLASSES) for _ in range(3))
    for predicted, truth in maps:
        for told, true in zip(predicted.ravel().tolist(), truth.ravel().tolist(), strict=True):
            if true == 255:
                continue
            there[true] += 1
            if told == true:
                both[true] += 1
                either[true] += 1
            else:
                either[true] += 1
                either[told] += 1
    nan = float("nan")
    return {
        "iou": [b / e if e else nan for b, e in zip(both, either, strict=True)],
        "accuracy": [b / t if t else nan for b, t in zip(both, there, strict=True)],
        "pixels": there,
        "right": [sum(both) / sum(there)],
    }


def scored(maps: Iterable[tuple[Any, np.ndarray]], classes: Sequence[str], ignore: int = 255) -> dict[str, Any]:
    """The scores over images, (predicted, truth) each."""
    return map_scores(sum(confusion_matrix(*pair, len(classes), ignore) for pair in maps), classes)


def column(scores: dict, name: str) -> list[float]:
    return [float("nan") if row[name] is None else row[name] for row in scores["per_class"]]


def test_scores_equal_a_loop_over_pixels_and_torchmetrics() -> None:
    maps = random_maps(0)
    got = scored([(torch.as_tensor(predicted), truth) for predicted, truth in maps], CLASSES)
    expected = by_pixel(maps)
    assert [row["class"] for row in got["per_class"]] == list(CLASSES)
    assert column(got, "iou") == pytest.approx(expected["iou"], nan_ok=True)
    assert column(got, "accuracy") == pytest.approx(expected["accuracy"], nan_ok=True)
    assert column(got, "pixels") == expected["pixels"]
    assert got["miou"] == pytest.approx(np.nanmean(expected["iou"]))
    assert got["mean_accuracy"] == pytest.approx(np.nanmean(expected["accuracy"]))
    assert got["pixel_accuracy"] == pytest.approx(expected["right"][0])
    # a class that is told but not there counts as 0, one that is neither does not count
    by_name = {row["class"]: row for row in got["per_class"]}
    assert by_name["told only"] == {"class": "told only", "pixels": 0, "iou": 0.0, "accuracy": None}
    assert by_name["neither"] == {"class": "neither", "pixels": 0, "iou": None, "accuracy": None}
    assert by_name["there only"]["iou"] == by_name["there only"]["accuracy"] == 0.0

    told, true = (torch.cat([torch.as_tensor(pair[i].ravel()).long() for pair in maps]) for i in (0, 1))
    about = {"num_classes": len(CLASSES), "ignore_index": 255}
    assert got["confusion"] == MulticlassConfusionMatrix(**about)(told, true).tolist()
    assert got["miou"] == pytest.approx(float(MulticlassJaccardIndex(**about)(told, true)), abs=1e-6)
    assert got["pixel_accuracy"] == pytest.approx(float(MulticlassAccuracy(average="micro", **about)(told, true)))


def test_variants_that_are_wrong_are_told_from_it() -> None:
    maps = random_maps(1)
    right = np.nanmean(by_pixel(maps)["iou"])

    def miou(changed: list[tuple[np.ndarray, np.ndarray]]) -> float:
        return scored(changed, CLASSES)["miou"]

    assert miou(maps) == pytest.approx(right)
    assert (
        abs(miou([(p, np.where(t == 255, 0, t)) for p, t in maps]) - right) > 1e-3
    )  # ignored pixels taken for class 0
    assert abs(np.mean([miou([pair]) for pair in maps]) - right) > 1e-3  # the mean over images of their own scores
    assert (
        abs(np.mean([iou or 0.0 for iou in np.nan_to_num(by_pixel(maps)["iou"])]) - right) > 1e-3
    )  # absent class as 0


def test_ignored_pixels_count_nowhere() -> None:
    truth = np.array([[0, 1, 255], [255, 255, 255]], dtype=np.uint8)
    for beyond in range(3):
        predicted = np.full((2, 3), beyond)
        predicted[0, :2] = 0, 1
        got = scored([(predicted, truth)], ("a", "b", "c"))
        assert got["miou"] == got["pixel_accuracy"] == 1.0
        assert got["confusion"] == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    # what is ignored may be predicted as anything, also as the mark itself
    assert confusion_matrix(np.full((2, 2), 255), np.full((2, 2), 255), 3).sum() == 0
    other = scored([(np.array([[0, 1]]), np.array([[0, 7]]))], ("a", "b"), ignore=7)
    assert other["confusion"] == [[1, 0], [0, 0]]


def test_all_ignored_or_nothing_is_undefined() -> None:
    nothing = np.zeros((2, 2), dtype=np.int64)
    for got in (map_scores(nothing, ("a", "b")), scored([(np.zeros((3, 3)), np.full((3, 3), 255))], ("a", "b"))):
        assert got["miou"] is got["pixel_accuracy"] is got["mean_accuracy"] is None
        assert [row["iou"] for row in got["per_class"]] == [None, None]


def test_what_does_not_fit_is_refused() -> None:
    two = np.zeros((2, 2), dtype=np.uint8)
    with pytest.raises(UserError, match=r"true label map holds the class 11, expected 0 to 10.*with 255"):
        confusion_matrix(two, two + 11, 11)
    with pytest.raises(ValueError, match="predicted label map holds the class -1"):
        confusion_matrix(two.astype(int) - 1, two, 11)
    with pytest.raises(ValueError, match="two maps of one size"):
        confusion_matrix(two, two[:1], 11)
