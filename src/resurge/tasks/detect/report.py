"""The scores of a detector as text, and its part of the report. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from resurge.files import Json
from resurge.quantities import number_of, table
from resurge.run_files import RunFiles, number, section
from resurge.tasks import report as page

KINDS = ("mask", "box")
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
"""COCO's twelve figures: key, measure, IoU, size of the objects, detections per image."""
SIZES = (("small", "up to 32 × 32"), ("medium", "up to 96 × 96"), ("large", "above"))


def _lines(scores: Json, classes: Sequence[str]) -> list[str]:
    kinds = [kind for kind in ("box", "mask") if kind in scores]
    figures = [
        (measure.lower(), overlap, size, most, *(page.share(scores[kind][key]) for kind in kinds))
        for key, measure, overlap, size, most in FIGURES
    ]
    rows = []
    for index, name in enumerate(classes):
        own = [scores[kind]["per_class"][index] for kind in kinds]
        cells = [page.share(row[key]) for row in own for key in ("ap", "ap50")]
        rows.append((name, f"{own[0]['n']}", *cells))
    heads = [f"{kind} {figure}" for kind in kinds for figure in ("AP", "AP50")]
    return [
        number_of(scores["objects"], "object"),
        "",
        table(figures, ("", "IoU", "objects", "detections", *kinds), "<<<>" + ">" * len(kinds)),
        "",
        table(rows, ("class", "objects", *heads), "<>" + ">" * len(heads)),
    ]


def _kinds(run: RunFiles) -> list[tuple[str, Mapping[str, object]]]:
    """The scores of masks, where there are any, and of boxes, each with its name."""
    return [(name.capitalize(), own) for name in KINDS if (own := section(run.evaluation, name))]


def _tiles(run: RunFiles) -> list[page.Tile]:
    """Average precision of masks, where there are any, and of boxes."""
    scores = section(run.model, "scores")
    found = []
    for kind in KINDS:
        own = section(run.evaluation, kind)
        for key in ("ap", "ap50", "ap75"):
            value = number(own, key) if key in own else number(scores, f"{kind}_{key}")
            found.append((f"{kind.capitalize()} {key.upper()}", value))
    return page.score_tiles(run, found)


def _precision_recall(run: RunFiles) -> page.Context | None:
    """Precision over recall at IoU 0.5, a line per class, for masks and boxes."""
    charts = []
    for title, own in _kinds(run):
        lines = []
        for entry in page.objects(own, "curves"):
            values = entry.get("precision")
            if isinstance(values, list) and len(values) > 1:
                lines.append((run.class_name(entry.get("class", "?")), [_share(value) for value in values]))
        if lines:
            charts.append((f"{title}, IoU 0.5", lines))
    return {"charts": charts} if charts else None


def _share(value: object) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else 0.0


def _classes(run: RunFiles) -> page.Context | None:
    """AP and AP50 of each class."""
    kinds = _kinds(run)
    measures = {f"{title} {key.upper()}": (i, key) for i, (title, _) in enumerate(kinds) for key in ("ap", "ap50")}
    merged = [
        {**rows[0], "weakest": rows[0].get("ap"), **{name: rows[i].get(key) for name, (i, key) in measures.items()}}
        for rows in zip(*(page.objects(own, "per_class") for _, own in kinds), strict=False)
    ]
    return page.class_table(run, merged, "weakest", ("Objects", "n"), {name: name for name in measures})


def _sizes(run: RunFiles) -> page.Context | None:
    """Average precision and recall of small, medium and large objects."""
    kinds = _kinds(run)
    if not any(math.isfinite(number(own, f"ap_{size}")) for _, own in kinds for size, _ in SIZES):
        return None
    rows = [
        (size, pixels, *(number(own, f"{key}_{size}") for _, own in kinds for key in ("ap", "ar")))
        for size, pixels in SIZES
    ]
    head = ("Objects", "Pixels", *(f"{title} {key}" for title, _ in kinds for key in ("AP", "recall")))
    return {"head": head, "rows": rows, "text_columns": 2}


def _figures(run: RunFiles) -> page.Context | None:
    """COCO's twelve figures."""
    kinds = _kinds(run)
    rows = [
        (measure, iou, size, most, *(number(own, key) for _, own in kinds)) for key, measure, iou, size, most in FIGURES
    ]
    head = ("", "IoU", "Objects", "Detections per image", *(title for title, _ in kinds))
    return {"head": head, "rows": rows, "text_columns": 4} if kinds else None


def report(masks: bool) -> page.Report:
    """The report of a detector, or of an instance segmenter."""
    boxes = ("Box AP", [("AP", "val_box_ap"), ("AP50", "val_box_ap50")])
    outlines = ("Mask AP", [("AP", "val_mask_ap"), ("AP50", "val_mask_ap50")])
    whose = "the image's masks" if masks else "the image"
    return page.Report(
        lines=_lines,
        tiles=_tiles,
        curves=[outlines, boxes] if masks else [boxes],
        sections=[
            page.Section("precision", "Precision and recall", "precision_recall.html", _precision_recall),
            page.Section("classes", "Classes", "classes.html", _classes),
            page.Section("sizes", "Sizes", "table.html", _sizes),
            page.Section("figures", "All figures", "table.html", _figures),
            *page.scene_galleries("F1", f"F1 is that of {whose}, at IoU 0.5 and a score of 0.5."),
        ],
    )
