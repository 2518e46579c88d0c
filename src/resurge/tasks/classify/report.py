"""The scores of a classifier as text, and its part of the report. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from resurge.files import Json
from resurge.quantities import fixed, percent, table
from resurge.run_files import RunFiles, number, section
from resurge.tasks import report as page

SHOWN_IMAGES = 24
TOP = 5  # with as many classes or fewer, the score of the best five says nothing


def _lines(scores: Json, classes: Sequence[str]) -> list[str]:
    measures = ("precision", "recall", "f1")
    rows = [
        (row["class"], f"{row['n']}", *(page.share(row[name] if row["n"] else None) for name in measures))
        for row in scores["per_class"]
    ]
    return [
        f"top-1              {page.share(scores['top1'])}",
        *([] if scores["top5"] is None else [f"top-5              {page.share(scores['top5'])}"]),
        f"calibration error  {page.share(scores['ece'])}",
        f"log-likelihood     {fixed(-scores['nll'], 4)}",
        "",
        table(rows, ("class", "images", "precision", "recall", "F1"), "<>>>>"),
        *page.confusion_lines(scores, classes, widest=20),
    ]


def _tiles(run: RunFiles) -> list[page.Tile]:
    """Top-1 accuracy with its interval, then top-5 and the calibration error."""
    evaluation, scores = run.evaluation or {}, section(run.model, "scores")
    names = {"top1": "Top-1 accuracy", "top5": "Top-5 accuracy", "ece": "Calibration error"}
    shown = {key: number(evaluation if key in evaluation else scores, key) for key in names}
    if len(run.classes) <= TOP:
        del shown["top5"]
    counts = [number(row, "n") for row in page.objects(run.evaluation, "per_class")]
    images = sum(count for count in counts if math.isfinite(count)) or math.nan
    tiles = page.score_tiles(run, [(names[key], value) for key, value in shown.items()], images, digits=2)
    if math.isfinite(images) and math.isfinite(shown["top1"]):
        low, high = _wilson(shown["top1"], images)
        tiles[0] = replace(tiles[0], notes=(*tiles[0].notes, f"95\u202f% interval {percent(low)} to {percent(high)}"))
    return tiles


def _wilson(share: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a proportion (1927): unlike share ± z·sigma it stays in 0..1 near 100 %."""
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(max(share * (1 - share), 0.0) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def _classes(run: RunFiles) -> page.Context | None:
    measures = {"Precision": "precision", "Recall": "recall", "F1": "f1"}
    rows = page.objects(run.evaluation, "per_class")
    known = [row if row.get("n") else {"class": row.get("class", "?"), "n": row.get("n")} for row in rows]
    return page.class_table(run, known, "f1", ("Images", "n"), measures)


def _calibration(run: RunFiles) -> page.Context | None:
    """The expected calibration error and the bins of the reliability diagram."""
    ece, nll = number(run.evaluation, "ece"), number(run.evaluation, "nll")
    bins = [
        (confidence, accuracy, int(images))
        for row in page.objects(run.evaluation, "reliability")
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


def _gallery(run: RunFiles, entries: Sequence[Mapping[str, object]], about: str | None = None) -> page.Context | None:
    cards = []
    for entry in entries:
        predicted, true = run.class_name(entry.get("predicted", "?")), run.class_name(entry.get("true", "?"))
        prediction = {"predicted": predicted, "confidence": percent(number(entry, "confidence"))}
        prediction |= {"true": true} if true != predicted else {}
        cards.append(page.card(run, entry, "image of", "class-activation map of", **prediction))
    return page.gallery(cards, SHOWN_IMAGES, about=about)


def _mistakes(run: RunFiles) -> page.Context | None:
    """The mistakes, most confident first."""

    def confidence(entry: Mapping[str, object]) -> float:
        value = number(entry, "confidence")
        return value if math.isfinite(value) else -1.0

    return _gallery(run, sorted(page.objects(run.evaluation, "mistakes"), key=confidence, reverse=True))


def _maps(run: RunFiles) -> page.Context | None:
    about = (
        "Warm colours mark where the evidence for the predicted class lies (class-activation maps of the last stage)."
    )
    drawn = [entry for entry in page.objects(run.evaluation, "examples") if entry.get("overlay")]
    return _gallery(run, drawn, about)


def _confusion(run: RunFiles) -> page.Context | None:
    return page.confusion(run, "Images", "No image was taken for another class.")


REPORT = page.Report(
    lines=_lines,
    tiles=_tiles,
    curves=[("Top-1 accuracy", [("training", "train_top1"), ("validation", "val_top1")])],
    sections=[
        page.Section("confusion", "Confusion matrix", "confusion.html", _confusion),
        page.Section("classes", "Classes", "classes.html", _classes),
        page.Section("calibration", "Calibration", "calibration.html", _calibration),
        page.Section("mistakes", "Most confident mistakes", "gallery.html", _mistakes),
        page.Section("maps", "Class-activation maps", "gallery.html", _maps),
    ],
)
