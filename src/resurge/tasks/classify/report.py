"""The scores of a classifier as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from resurge.text_tables import fixed, percent, table

WIDEST_MATRIX = 20
"""Classes up to which the confusion matrix is shown; with more it is wider than a terminal."""


def score_lines(scores: Mapping[str, Any], classes: Sequence[str]) -> list[str]:
    """The scores of `ClassifierScores.compute` as parts that stand below each other."""
    parts = [f"top-1              {percent(scores['top1'])}"]
    if scores["top5"] is not None:
        parts.append(f"top-5              {percent(scores['top5'])}")
    rows = [
        (row["class"], f"{row['n']}", percent(row["precision"]), percent(row["recall"]), percent(row["f1"]))
        for row in scores["per_class"]
    ]
    parts += [
        f"calibration error  {percent(scores['ece'])}",
        f"log-likelihood     {fixed(-scores['nll'], 4)}",
        "",
        table(rows, ("class", "images", "precision", "recall", "F1"), "<>>>>"),
    ]
    if len(classes) <= WIDEST_MATRIX:
        matrix = [(name, *map(str, row)) for name, row in zip(classes, scores["confusion"], strict=True)]
        head = ("true \\ said", *(name[:8] for name in classes))
        parts += ["", table(matrix, head, "<" + ">" * len(classes))]
    return parts
