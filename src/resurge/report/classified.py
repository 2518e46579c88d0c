"""The sections of a classifier's report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from resurge.report.charts import reliability_chart
from resurge.report.markup import Markup, data_uri, join, percent, tag
from resurge.report.run_files import RunFiles, items, number, section
from resurge.report.tables import bar, class_table, confusion_tables, tile

SHOWN_IMAGES = 24


def tiles(run: RunFiles) -> list[Markup]:
    """Top-1 accuracy, large, with its interval; then top-5 and the calibration error."""
    evaluation = run.evaluation or {}
    scores = section(run.model, "scores")
    top1 = number(evaluation, "top1") if "top1" in evaluation else number(scores, "top1")
    images = _images(run)
    found: list[Markup] = []
    if math.isfinite(top1):
        split = str(evaluation.get("split", "")) if evaluation else ""
        under = f"of {images} {split} images".replace("  ", " ") if images else f"{split} top-1".strip()
        interval = _wilson(top1, images) if images else None
        below = f"95\u202f% interval {percent(interval[0])} to {percent(interval[1])}" if interval else None
        found.append(tile("Top-1 accuracy", percent(top1, 2), under, below, main=True))
    for key, label in (("top5", "Top-5 accuracy"), ("ece", "Calibration error")):
        value = number(evaluation if key in evaluation else scores, key)
        if math.isfinite(value) and not (key == "top5" and len(run.classes) <= 5):
            found.append(tile(label, percent(value, 2)))
    return found


def _images(run: RunFiles) -> int:
    """How many images were evaluated: the sum of the classes' counts."""
    counts = [
        number(row, "n") for row in items(run.evaluation, "per_class", "evaluation.json") if isinstance(row, Mapping)
    ]
    return int(sum(n for n in counts if math.isfinite(n)))


def _wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a proportion (1927): unlike share ± z·sigma it stays in 0..1 near 100 %."""
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(max(share * (1 - share), 0.0) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def confusion(run: RunFiles) -> Markup | None:
    """The confusion matrix of up to MANY_CLASSES classes, and the pairs most often confused."""
    return confusion_tables(run, "Images", "No image was taken for another class.")


def per_class(run: RunFiles) -> Markup | None:
    """Precision, recall and F1 of each class; of many classes the weakest first and the others folded away."""
    rows = [row for row in items(run.evaluation, "per_class", "evaluation.json") if isinstance(row, Mapping)]
    if not rows:
        return None

    def cells(row: Mapping[str, Any]) -> list[object]:
        count = number(row, "n")
        measures = [bar(number(row, key)) for key in ("precision", "recall", "f1")]
        return [run.class_name(row.get("class", "?")), f"{count:g}" if math.isfinite(count) else "–", *measures]

    return class_table(rows, "f1", ("Class", "Images", "Precision", "Recall", "F1"), cells)


def calibration(run: RunFiles) -> Markup | None:
    """The expected calibration error and the reliability diagram."""
    ece, nll = number(run.evaluation, "ece"), number(run.evaluation, "nll")
    bins = [
        (number(b, "confidence"), number(b, "accuracy"), int(number(b, "n")))
        for b in items(run.evaluation, "reliability", "evaluation.json")
        if isinstance(b, Mapping) and math.isfinite(number(b, "n"))
    ]
    chart = reliability_chart(bins)
    if not math.isfinite(ece) and chart is None:
        return None
    lines = []
    if math.isfinite(ece):
        lines.append(
            tag(
                "p",
                f"The expected calibration error is {percent(ece, 2)}: the mean distance between how sure the network "
                "is and how often it is right, over bins of confidence, weighted by their images.",
            )
        )
    if math.isfinite(nll):
        lines.append(tag("p", f"Negative log-likelihood: {nll:.4f} nats an image."))
    if chart is not None:
        lines.append(
            tag(
                "p",
                "Points below the dashed diagonal: surer than right. Above: more often right than sure.",
                class_="note",
            )
        )
    return tag("div", chart, tag("div", lines), class_="grid beside")


def mistakes(run: RunFiles) -> Markup | None:
    """The mistakes made with the most confidence, most confident first."""
    return _gallery(run, "mistakes", by_confidence=True)


def activation_maps(run: RunFiles) -> Markup | None:
    """Examples with their class-activation maps: where the evidence for the predicted class lies."""
    gallery = _gallery(run, "examples", by_confidence=False)
    if gallery is None:
        return None
    note = (
        "Warm colours mark where the evidence for the predicted class lies (class-activation maps of the last stage)."
    )
    return join(tag("p", note, class_="note"), gallery)


def _gallery(run: RunFiles, key: str, *, by_confidence: bool) -> Markup | None:
    entries = [entry for entry in items(run.evaluation, key, "evaluation.json") if isinstance(entry, Mapping)]
    if by_confidence:
        entries.sort(
            key=lambda entry: -(number(entry, "confidence") if math.isfinite(number(entry, "confidence")) else -1.0)
        )
    cards = [_card(run, entry) for entry in entries[:SHOWN_IMAGES]]
    if not cards:
        return None
    rest = len(entries) - len(cards)
    more = tag("p", f"{rest} more stand in evaluation.json.", class_="note") if rest > 0 else None
    return join(tag("div", cards, class_="gallery"), more)


def _card(run: RunFiles, entry: Mapping[str, Any]) -> Markup:
    predicted, true = run.class_name(entry.get("predicted", "?")), run.class_name(entry.get("true", "?"))
    pictures = []
    for key, what in (("thumbnail", "image"), ("overlay", "class-activation map")):
        content = run.read(entry.get(key))
        uri = data_uri(content) if content else None
        if uri:
            pictures.append(tag("img", src=uri, alt=f"{what} of {entry.get('id', '')}", loading="lazy"))
    lines = [tag("b", predicted), tag("span", percent(number(entry, "confidence")), class_="num")]
    truth = tag("div", "is ", tag("b", true), class_="truth") if predicted != true else None
    name = entry.get("path") or entry.get("id")
    return tag(
        "figure",
        tag("div", pictures, class_="pair" if len(pictures) == 2 else "pair one") if pictures else None,
        tag(
            "figcaption", tag("div", lines, class_="said"), truth, tag("code", name) if name not in (None, "") else None
        ),
    )
