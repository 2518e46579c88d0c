"""The scores of a segmenter as text, and its part of the report. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from resurge.run_files import RunFiles, number, section
from resurge.tasks.report import Cell, Context, Report, Section, Tile, class_table, confusion, count, objects
from resurge.tasks.scenes.report import scene_galleries, score_tiles
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


# ------------------------------------------------------------------------------------------------------- the page


def _tiles(run: RunFiles) -> list[Tile]:
    """Mean IoU, and the shares of pixels that are right."""
    scores = section(run.model, "scores")
    names = (("miou", "Mean IoU"), ("pixel_accuracy", "Pixel accuracy"), ("mean_accuracy", "Mean accuracy"))
    evaluated = run.evaluation or {}
    return score_tiles(run, [(name, number(evaluated if key in evaluated else scores, key)) for key, name in names])


def _classes(run: RunFiles) -> Context | None:
    """IoU and accuracy of each class."""

    def cells(row: Mapping[str, object]) -> list[Cell]:
        measures = [number(row, key) for key in ("iou", "accuracy")]
        return [run.class_name(row.get("class", "?")), count(row, "pixels"), *measures]

    return class_table(objects(run.evaluation, "per_class"), "iou", ("Class", "Pixels", "IoU", "Accuracy"), cells)


def _confusion(run: RunFiles) -> Context | None:
    """The confusion matrix in percent of the pixels of the true class."""
    about = "Percent of the pixels of each class."
    return confusion(run, "Pixels", "No pixel was taken for another class.", shares=True, about=about)


REPORT = Report(
    tiles=_tiles,
    curves=[
        ("Mean IoU", [("mean IoU", "val_miou")]),
        ("Pixel accuracy", [("pixel accuracy", "val_pixel_accuracy")]),
    ],
    sections=[
        Section("classes", "Classes", "classes.html", _classes),
        Section("confusion", "Confusion matrix", "confusion.html", _confusion),
        *scene_galleries("mean IoU", "The mean IoU is over the classes that the image has or is told to have."),
    ],
)
