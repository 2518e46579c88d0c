"""The scores of a segmenter as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from resurge.text_tables import percent, table

WIDEST_MATRIX = 12
"""Classes up to which the confusion matrix is shown; with more it is wider than a terminal."""


def score_lines(scores: Mapping[str, Any], classes: Sequence[str]) -> list[str]:
    """The scores of `MapScores.compute` as parts that stand below each other."""
    rows = [
        (row["class"], f"{row['pixels']:,}", percent(row["iou"]) or "–", percent(row["accuracy"]) or "–")
        for row in scores["per_class"]
    ]
    parts = [
        f"mIoU            {percent(scores['miou']) or '–'}",
        f"pixel accuracy  {percent(scores['pixel_accuracy']) or '–'}",
        f"mean accuracy   {percent(scores['mean_accuracy']) or '–'}",
        "",
        table(rows, ("class", "pixels", "IoU", "accuracy"), "<>>>"),
    ]
    if len(classes) <= WIDEST_MATRIX:
        shares = [
            (name, *(f"{100 * count / max(1, sum(row)):.1f}" for count in row))
            for name, row in zip(classes, scores["confusion"], strict=True)
        ]
        head = ("true \\ said, %", *(name[:8] for name in classes))
        parts += ["", table(shares, head, "<" + ">" * len(classes))]
    return parts
