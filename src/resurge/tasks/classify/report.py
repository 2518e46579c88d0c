"""The scores of a classifier as text, and its part of the report. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from resurge import text_tables
from resurge.quantities import percent
from resurge.run_files import RunFiles, number, section
from resurge.tasks.report import (
    Card,
    Cell,
    Context,
    Report,
    Section,
    Tile,
    class_table,
    confusion,
    count,
    gallery,
    objects,
    pictures,
    words,
)
from resurge.text_tables import fixed, table

WIDEST_MATRIX = 20
"""Classes up to which the confusion matrix is shown; with more it is wider than a terminal."""
SHOWN_IMAGES = 24


def score_lines(scores: Mapping[str, Any], classes: Sequence[str]) -> list[str]:
    """The scores of `ClassifierScores.compute` as parts that stand below each other."""
    parts = [f"top-1              {text_tables.percent(scores['top1'])}"]
    if scores["top5"] is not None:
        parts.append(f"top-5              {text_tables.percent(scores['top5'])}")
    rows = [
        (
            row["class"],
            f"{row['n']}",
            text_tables.percent(row["precision"]),
            text_tables.percent(row["recall"]),
            text_tables.percent(row["f1"]),
        )
        for row in scores["per_class"]
    ]
    parts += [
        f"calibration error  {text_tables.percent(scores['ece'])}",
        f"log-likelihood     {fixed(-scores['nll'], 4)}",
        "",
        table(rows, ("class", "images", "precision", "recall", "F1"), "<>>>>"),
    ]
    if len(classes) <= WIDEST_MATRIX:
        matrix = [(name, *map(str, row)) for name, row in zip(classes, scores["confusion"], strict=True)]
        head = ("true \\ said", *(name[:8] for name in classes))
        parts += ["", table(matrix, head, "<" + ">" * len(classes))]
    return parts


# ------------------------------------------------------------------------------------------------------- the page


def _tiles(run: RunFiles) -> list[Tile]:
    """Top-1 accuracy with its interval, then top-5 and the calibration error."""
    evaluation = run.evaluation or {}
    scores = section(run.model, "scores")
    top1 = number(evaluation if "top1" in evaluation else scores, "top1")
    images = _images(run)
    tiles = []
    if math.isfinite(top1):
        split = str(evaluation.get("split", "")) if evaluation else ""
        notes = [f"of {images} {split} images".replace("  ", " ") if images else f"{split} top-1".strip()]
        if images:
            low, high = _wilson(top1, images)
            notes.append(f"95\u202f% interval {percent(low)} to {percent(high)}")
        tiles.append(Tile("Top-1 accuracy", percent(top1, 2), notes, main=True))
    for key, label in (("top5", "Top-5 accuracy"), ("ece", "Calibration error")):
        value = number(evaluation if key in evaluation else scores, key)
        if math.isfinite(value) and not (key == "top5" and len(run.classes) <= 5):
            tiles.append(Tile(label, percent(value, 2)))
    return tiles


def _images(run: RunFiles) -> int:
    """How many images were evaluated: the sum over the classes."""
    counts = [number(row, "n") for row in objects(run.evaluation, "per_class")]
    return int(sum(n for n in counts if math.isfinite(n)))


def _wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a proportion (1927): unlike share ± z·sigma it stays in 0..1 near 100 %."""
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(max(share * (1 - share), 0.0) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def _classes(run: RunFiles) -> Context | None:
    """Precision, recall and F1 of each class."""

    def cells(row: Mapping[str, object]) -> list[Cell]:
        measures = [number(row, key) for key in ("precision", "recall", "f1")]
        return [run.class_name(row.get("class", "?")), count(row, "n", "g"), *measures]

    head = ("Class", "Images", "Precision", "Recall", "F1")
    return class_table(objects(run.evaluation, "per_class"), "f1", head, cells)


def _calibration(run: RunFiles) -> Context | None:
    """The expected calibration error and the bins of the reliability diagram."""
    ece, nll = number(run.evaluation, "ece"), number(run.evaluation, "nll")
    bins = [
        (confidence, accuracy, int(images))
        for row in objects(run.evaluation, "reliability")
        for confidence, accuracy, images in [[number(row, key) for key in ("confidence", "accuracy", "n")]]
        if 0 <= confidence <= 1 and 0 <= accuracy <= 1 and 1 <= images < math.inf
    ]
    if not math.isfinite(ece) and not bins:
        return None
    return {
        "ece": percent(ece, 2) if math.isfinite(ece) else None,
        "nll": f"{nll:.4f}" if math.isfinite(nll) else None,
        "bins": bins,
    }


def _gallery(run: RunFiles, entries: Sequence[Mapping[str, object]], about: str | None = None) -> Context | None:
    def card(entry: Mapping[str, object]) -> Card:
        predicted, true = run.class_name(entry.get("predicted", "?")), run.class_name(entry.get("true", "?"))
        return Card(
            pictures=pictures(run, entry, "image of", "class-activation map of"),
            name=words(entry, "path", "id"),
            predicted=predicted,
            confidence=percent(number(entry, "confidence")),
            true=true if true != predicted else None,
        )

    return gallery([card(entry) for entry in entries], SHOWN_IMAGES, about=about)


def _mistakes(run: RunFiles) -> Context | None:
    """The mistakes, most confident first."""

    def confidence(entry: Mapping[str, object]) -> float:
        value = number(entry, "confidence")
        return value if math.isfinite(value) else -1.0

    return _gallery(run, sorted(objects(run.evaluation, "mistakes"), key=confidence, reverse=True))


def _maps(run: RunFiles) -> Context | None:
    """Examples with their class activation maps."""
    about = (
        "Warm colours mark where the evidence for the predicted class lies (class-activation maps of the last stage)."
    )
    return _gallery(run, objects(run.evaluation, "examples"), about)


def _confusion(run: RunFiles) -> Context | None:
    return confusion(run, "Images", "No image was taken for another class.")


REPORT = Report(
    tiles=_tiles,
    curves=[("Top-1 accuracy", [("training", "train_top1"), ("validation", "val_top1")])],
    sections=[
        Section("confusion", "Confusion matrix", "confusion.html", _confusion),
        Section("classes", "Classes", "classes.html", _classes),
        Section("calibration", "Calibration", "calibration.html", _calibration),
        Section("mistakes", "Most confident mistakes", "gallery.html", _mistakes),
        Section("maps", "Class-activation maps", "gallery.html", _maps),
    ],
)
