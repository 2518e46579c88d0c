"""Scores of detectors, instance segmenters and semantic segmenters."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from resurge.cli.options import tta_of
from resurge.cli.predicting.scenes import limited
from resurge.cli.scoring.contract import Progress, Subject, changed
from resurge.cli.tables import percent, table
from resurge.data.scene_preprocessing import ScenePreprocessing
from resurge.report.scenes import FIGURES
from resurge.tasks.evaluate_scenes import evaluate_scenes
from resurge.tasks.tta import TTA

# A confusion matrix with more classes than this is wider than a terminal; --json has it all the same.
WIDEST_MATRIX = 12


class _Scenes:
    """What the two have in common."""

    batch_size = 8

    def adjusted(self, preprocessing: ScenePreprocessing, options: argparse.Namespace) -> ScenePreprocessing:
        names = {"interpolation": "interpolation", "mean": "mean", "std": "std"}
        found: ScenePreprocessing = changed(preprocessing, options, names)
        if options.size is not None:
            largest = found.max_size
            if largest is not None and options.max_size is None:
                # with another short side the longest one changes in proportion, as when it was chosen for training
                largest = round(largest * options.size / (found.short_side or options.size))
            found = dataclasses.replace(found, short_side=options.size, max_size=largest and max(largest, options.size))
        adjusted: ScenePreprocessing = limited(found, options.max_size)
        return adjusted

    def _scores(
        self, subject: Subject, options: argparse.Namespace, progress: Progress | None, **how: Any
    ) -> dict[str, Any]:
        return evaluate_scenes(
            subject.model,
            subject.split,
            subject.preprocessing,
            subject.classes,
            task=subject.task,
            batch_size=options.batch_size or self.batch_size,
            device=options.device,
            precision=options.precision,
            workers=options.workers,
            progress=progress,
            **how,
        )


class Objects(_Scenes):
    """COCO's figures of boxes, and of masks where there are any."""

    takes = frozenset({"max_size"})

    def published(self, options: argparse.Namespace) -> ScenePreprocessing:
        return ScenePreprocessing(800, 1333)  # what torchvision's and detectron2's detectors were trained with

    def score(self, subject: Subject, options: argparse.Namespace, progress: Progress | None) -> dict[str, Any]:
        return self._scores(subject, options, progress)

    def text(self, scores: Mapping[str, Any], classes: Sequence[str]) -> list[str]:
        kinds = [kind for kind in ("box", "mask") if kind in scores]
        figures = [
            (measure.lower(), overlap, size, most, *(percent(scores[kind][key]) or "–" for kind in kinds))
            for key, measure, overlap, size, most in FIGURES
        ]
        rows = []
        for number, name in enumerate(classes):
            own = [scores[kind]["per_class"][number] for kind in kinds]
            cells = [percent(row[key]) or "–" for row in own for key in ("ap", "ap50")]
            rows.append((name, f"{own[0]['n']}", *cells))
        heads = [f"{kind} {figure}" for kind in kinds for figure in ("AP", "AP50")]
        return [
            f"{scores['objects']:,} objects",
            "",
            table(figures, ("", "IoU", "objects", "detections", *kinds), "<<<>" + ">" * len(kinds)),
            "",
            table(rows, ("class", "objects", *heads), "<>" + ">" * len(heads)),
        ]


class LabelMaps(_Scenes):
    """Intersection over union and pixel accuracy."""

    takes = frozenset({"max_size", "scales", "flip", "window"})

    def published(self, options: argparse.Namespace) -> ScenePreprocessing:
        return ScenePreprocessing(520, 1333)  # what torchvision's segmenters were trained with

    def score(self, subject: Subject, options: argparse.Namespace, progress: Progress | None) -> dict[str, Any]:
        views = tta_of(options, TTA.of_recipe(subject.run.recipe if subject.run else None))
        scores = self._scores(subject, options, progress, **dataclasses.asdict(views))
        return {"inference": dataclasses.asdict(views), **scores}

    def text(self, scores: Mapping[str, Any], classes: Sequence[str]) -> list[str]:
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
