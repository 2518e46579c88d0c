"""The scores of a segmenter as text, and its part of the report. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from resurge.files import Json
from resurge.quantities import table
from resurge.run_files import RunFiles, number, section
from resurge.tasks import report as page


def _lines(scores: Json, classes: Sequence[str]) -> list[str]:
    share = page.share
    rows = [
        (row["class"], f"{row['pixels']:,}", share(row["iou"]), share(row["accuracy"])) for row in scores["per_class"]
    ]
    return [
        f"mIoU            {page.share(scores['miou'])}",
        f"pixel accuracy  {page.share(scores['pixel_accuracy'])}",
        f"mean accuracy   {page.share(scores['mean_accuracy'])}",
        "",
        table(rows, ("class", "pixels", "IoU", "accuracy"), "<>>>"),
        *page.confusion_lines(scores, classes, widest=12, shares=True),
    ]


def _tiles(run: RunFiles) -> list[page.Tile]:
    """Mean IoU, and the shares of pixels that are right."""
    names = {"miou": "Mean IoU", "pixel_accuracy": "Pixel accuracy", "mean_accuracy": "Mean accuracy"}
    scores, evaluated = section(run.model, "scores"), run.evaluation or {}
    known = [(name, number(evaluated if key in evaluated else scores, key)) for key, name in names.items()]
    return page.score_tiles(run, known)


def _classes(run: RunFiles) -> page.Context | None:
    measures = {"IoU": "iou", "Accuracy": "accuracy"}
    return page.class_table(run, page.objects(run.evaluation, "per_class"), "iou", ("Pixels", "pixels"), measures)


def _confusion(run: RunFiles) -> page.Context | None:
    """The page.confusion matrix in percent of the pixels of the true class."""
    about = "Percent of the pixels of each class."
    return page.confusion(run, "Pixels", "No pixel was taken for another class.", shares=True, about=about)


REPORT = page.Report(
    lines=_lines,
    tiles=_tiles,
    curves=[
        ("Mean IoU", [("mean IoU", "val_miou")]),
        ("Pixel accuracy", [("pixel accuracy", "val_pixel_accuracy")]),
    ],
    sections=[
        page.Section("classes", "Classes", "classes.html", _classes),
        page.Section("confusion", "Confusion matrix", "confusion.html", _confusion),
        *page.scene_galleries("mean IoU", "The mean IoU is over the classes in the label map or the prediction."),
    ],
)
