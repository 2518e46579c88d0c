"""The sections of the reports of detectors, instance segmenters and semantic segmenters."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from resurge.report.charts import precision_recall_chart
from resurge.report.markup import Markup, data_uri, join, percent, tag
from resurge.report.run_files import RunFiles, items, number, section
from resurge.report.tables import MANY_CLASSES, bar, class_table, confusion_tables, table, tile

SHOWN_IMAGES = 12
KINDS = (("mask", "Mask"), ("box", "Box"))

# COCO's twelve figures: key, measure, IoU, objects, detections an image
FIGURES = (
    ("ap", "Average precision", "0.50:0.95", "all", "100"),
    ("ap50", "Average precision", "0.50", "all", "100"),
    ("ap75", "Average precision", "0.75", "all", "100"),
    ("ap_small", "Average precision", "0.50:0.95", "small", "100"),
    ("ap_medium", "Average precision", "0.50:0.95", "medium", "100"),
    ("ap_large", "Average precision", "0.50:0.95", "large", "100"),
    ("ar_1", "Average recall", "0.50:0.95", "all", "1"),
    ("ar_10", "Average recall", "0.50:0.95", "all", "10"),
    ("ar_100", "Average recall", "0.50:0.95", "all", "100"),
    ("ar_small", "Average recall", "0.50:0.95", "small", "100"),
    ("ar_medium", "Average recall", "0.50:0.95", "medium", "100"),
    ("ar_large", "Average recall", "0.50:0.95", "large", "100"),
)
SIZES = (("small", "up to 32 × 32"), ("medium", "up to 96 × 96"), ("large", "above"))


# ------------------------------------------------------------------------------------------------------ headline


def object_tiles(run: RunFiles) -> list[Markup]:
    """Average precision of masks, where there are any, and of boxes."""
    scores = section(run.model, "scores")
    found: list[Markup] = []
    for kind, title in KINDS:
        own = section(run.evaluation, kind)
        for key, name in (("ap", "AP"), ("ap50", "AP50"), ("ap75", "AP75")):
            value = number(own, key) if key in own else number(scores, f"{kind}_{key}")
            if math.isfinite(value):
                note = _images(run) if not found else None
                found.append(tile(f"{title} {name}", percent(value, 2 if not found else 1), note, main=not found))
    return found


def map_tiles(run: RunFiles) -> list[Markup]:
    """Mean IoU, and the share of pixels that are right."""
    scores = section(run.model, "scores")
    found: list[Markup] = []
    for key, name in (("miou", "Mean IoU"), ("pixel_accuracy", "Pixel accuracy"), ("mean_accuracy", "Mean accuracy")):
        value = number(run.evaluation if run.evaluation and key in run.evaluation else scores, key)
        if math.isfinite(value):
            note = _images(run) if not found else None
            found.append(tile(name, percent(value, 2 if not found else 1), note, main=not found))
    return found


def _images(run: RunFiles) -> str | None:
    """ "of 120 test images, 431 objects" """
    count, objects = number(run.evaluation, "count"), number(run.evaluation, "objects")
    if not math.isfinite(count):
        return None
    split = (run.evaluation or {}).get("split")
    text = " ".join(str(word) for word in ("of", f"{count:,.0f}", split, "images") if word)
    return f"{text}, {objects:,.0f} objects" if math.isfinite(objects) else text


# ------------------------------------------------------------------------------------------------------- objects


def precision_recall(run: RunFiles) -> Markup | None:
    """Precision over recall at IoU 0.5, a line a class, for masks and boxes."""
    charts = []
    for kind, title in KINDS:
        lines = []
        for entry in items(section(run.evaluation, kind), "curves", "evaluation.json"):
            values = entry.get("precision") if isinstance(entry, Mapping) else None
            if isinstance(values, list) and len(values) > 1:
                points = [_share(value) for value in values]
                lines.append((run.class_name(entry.get("class", "?")), points))
        charts.append(precision_recall_chart(f"{title}, IoU 0.5", lines))
    drawn = [chart for chart in charts if chart is not None]
    if not drawn:
        return None
    note = (
        "Of all that is found down to a score, the share that is right, by the share of the objects that is found. The "
        "area under a line is the class's AP50."
    )
    return join(tag("p", note, class_="note"), tag("div", drawn, class_="grid charts"))


def _share(value: object) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else 0.0


def twelve(run: RunFiles) -> Markup | None:
    """COCO's twelve figures."""
    kinds = [(title, section(run.evaluation, kind)) for kind, title in KINDS if section(run.evaluation, kind)]
    if not kinds:
        return None
    rows = [
        (measure, iou, objects, most, *(bar(number(own, key)) for _, own in kinds))
        for key, measure, iou, objects, most in FIGURES
    ]
    head = ("", "IoU", "Objects", "Detections an image", *(title for title, _ in kinds))
    return table(head, rows, text_columns=4)


def by_size(run: RunFiles) -> Markup | None:
    """Average precision and recall of small, medium and large objects."""
    kinds = [(title, section(run.evaluation, kind)) for kind, title in KINDS if section(run.evaluation, kind)]
    rows = [
        (size, pixels, *(bar(number(own, f"{key}_{size}")) for _, own in kinds for key in ("ap", "ar")))
        for size, pixels in SIZES
    ]
    if not any(math.isfinite(number(own, f"ap_{size}")) for _, own in kinds for size, _ in SIZES):
        return None
    head = ("Objects", "Pixels", *(f"{title} {key}" for title, _ in kinds for key in ("AP", "recall")))
    return table(head, rows, text_columns=2)


def object_classes(run: RunFiles) -> Markup | None:
    """AP and AP50 of each class."""
    kinds = [
        (title, rows)
        for kind, title in KINDS
        if (rows := items(section(run.evaluation, kind), "per_class", "evaluation.json"))
    ]
    if not kinds:
        return None
    merged: list[dict[str, Any]] = []
    for number_, row in enumerate(kinds[0][1]):
        if not isinstance(row, Mapping):
            continue
        own = {"class": row.get("class", "?"), "n": row.get("n"), "weakest": row.get("ap")}
        for title, rows in kinds:
            other = rows[number_] if number_ < len(rows) and isinstance(rows[number_], Mapping) else {}
            own |= {f"{title} {name}": other.get(key) for key, name in (("ap", "AP"), ("ap50", "AP50"))}
        merged.append(own)
    heads = [f"{title} {name}" for title, _ in kinds for name in ("AP", "AP50")]

    def cells(row: Mapping[str, Any]) -> list[object]:
        return [run.class_name(row["class"]), _count(row, "n"), *(bar(number(row, head)) for head in heads)]

    return class_table(merged, "weakest", ("Class", "Objects", *heads), cells)


# ---------------------------------------------------------------------------------------------------- label maps


def map_classes(run: RunFiles) -> Markup | None:
    """IoU and accuracy of each class."""
    rows = [row for row in items(run.evaluation, "per_class", "evaluation.json") if isinstance(row, Mapping)]
    if not rows:
        return None

    def cells(row: Mapping[str, Any]) -> list[object]:
        measures = [bar(number(row, key)) for key in ("iou", "accuracy")]
        return [run.class_name(row.get("class", "?")), _count(row, "pixels"), *measures]

    return class_table(rows, "iou", ("Class", "Pixels", "IoU", "Accuracy"), cells)


def map_confusion(run: RunFiles) -> Markup | None:
    """The confusion matrix in percent of the true class's pixels, and the pairs most often confused."""
    content = confusion_tables(run, "Pixels", "No pixel was taken for another class.", shares=True)
    return None if content is None else join(tag("p", "Percent of the pixels of each class.", class_="note"), content)


def _count(row: Mapping[str, Any], key: str) -> str:
    value = number(row, key)
    return f"{value:,.0f}" if math.isfinite(value) else "–"


# -------------------------------------------------------------------------------------------------------- images


def best(run: RunFiles) -> Markup | None:
    """The images with the best score of their own."""
    return _gallery(run, "best")


def worst(run: RunFiles) -> Markup | None:
    """The images with the worst score of their own."""
    return _gallery(run, "worst")


def wrong(run: RunFiles) -> Markup | None:
    """The images with the mistakes the network was surest of."""
    return _gallery(run, "wrong")


# what the score of one image is: its name, and what it is exactly
_MEASURES: Mapping[str, tuple[str, str]] = {
    "detect": ("F1", "F1 is that of the image, at IoU 0.5 and a score of 0.5."),
    "instances": ("F1", "F1 is that of the image's masks, at IoU 0.5 and a score of 0.5."),
    "segment": ("mean IoU", "The mean IoU is over the classes that the image has or is told to have."),
}


def _gallery(run: RunFiles, kind: str) -> Markup | None:
    found = section(run.evaluation, "examples")
    entries = [entry for entry in items(found, kind, "evaluation.json") if isinstance(entry, Mapping)]
    measure, about = _MEASURES[run.task]
    cards = [_card(run, entry, measure) for entry in entries[:SHOWN_IMAGES]]
    if not cards:
        return None
    rest = len(entries) - len(cards)
    note = tag("p", f"Left what is there, right what was found. {about}", class_="note")
    more = tag("p", f"{rest} more stand in evaluation.json.", class_="note") if rest > 0 else None
    return join(note, _legend(run), tag("div", cards, class_="gallery scenes"), more)


def _legend(run: RunFiles) -> Markup | None:
    """The colours of a label map's classes, folded away where they are many."""
    colours = section(run.evaluation, "colours")
    named = [(name, tone) for name, tone in colours.items() if isinstance(tone, str) and _COLOUR.fullmatch(tone)]
    keys = [tag("span", name, class_="swatch", style=f"--tone:{tone}") for name, tone in named]
    if not keys:
        return None
    legend = tag("div", keys, class_="legend left")
    return legend if len(keys) <= MANY_CLASSES else tag("details", tag("summary", "Colours"), legend)


_COLOUR = re.compile(r"#[0-9a-f]{6}")  # nothing else may get into a style


def _card(run: RunFiles, entry: Mapping[str, Any], measure: str) -> Markup:
    name = entry.get("path") or entry.get("id")
    pictures = []
    for key, what in (("thumbnail", "truth"), ("overlay", "prediction")):
        content = run.read(entry.get(key))
        uri = data_uri(content) if content else None
        if uri:
            pictures.append(tag("img", src=uri, alt=f"{what} for {entry.get('id', '')}", loading="lazy"))
    score, mistake = number(entry, "score"), entry.get("wrong")
    said = tag("div", tag("span", measure), tag("span", percent(score), class_="num"), class_="said")
    return tag(
        "figure",
        tag("div", pictures, class_="pair" if len(pictures) == 2 else "pair one") if pictures else None,
        tag(
            "figcaption",
            tag("div", tag("b", mistake), class_="truth") if mistake not in (None, "") else None,
            said if math.isfinite(score) else None,
            tag("code", name) if name not in (None, "") else None,
        ),
    )
