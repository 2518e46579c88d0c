"""Scores of classifiers."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resurge.cli.scoring.contract import Progress, Subject, changed
from resurge.cli.tables import fixed, percent, table
from resurge.data.preprocessing import Preprocessing
from resurge.tasks.classify.evaluate import evaluate
from resurge.weights.catalog import Source, entries

# A confusion matrix with more classes than this is wider than a terminal; --json has it all the same.
WIDEST_MATRIX = 20


class Classification:
    """Accuracy, calibration, precision and recall of each class."""

    takes = frozenset({"crop_pct"})
    batch_size = 128

    def published(self, options: argparse.Namespace) -> Preprocessing:
        source = published_source(options.model, options.weights)
        return Preprocessing(size=224) if source is None else preprocessing_of(source)

    def adjusted(self, preprocessing: Preprocessing, options: argparse.Namespace) -> Preprocessing:
        names = ("size", "crop_pct", "interpolation", "mean", "std")
        found: Preprocessing = changed(preprocessing, options, dict(zip(names, names, strict=True)))
        return found

    def score(self, subject: Subject, options: argparse.Namespace, progress: Progress | None) -> dict[str, Any]:
        return evaluate(
            subject.model,
            subject.split,
            subject.preprocessing,
            subject.classes,
            batch_size=options.batch_size or self.batch_size,
            device=options.device,
            precision=options.precision,
            workers=options.workers,
            progress=progress,
        )

    def text(self, scores: Mapping[str, Any], classes: Sequence[str]) -> list[str]:
        parts = [f"top-1              {percent(scores['top1'])}"]
        if scores["top5"] is not None:
            parts.append(f"top-5              {percent(scores['top5'])}")
        parts += [
            f"calibration error  {percent(scores['ece'])}",
            f"log-likelihood     {fixed(-scores['nll'], 4)}",
            "",
            table(
                [
                    (row["class"], f"{row['n']}", percent(row["precision"]), percent(row["recall"]), percent(row["f1"]))
                    for row in scores["per_class"]
                ],
                ("class", "images", "precision", "recall", "F1"),
                "<>>>>",
            ),
        ]
        if len(classes) <= WIDEST_MATRIX:
            matrix = [(name, *map(str, row)) for name, row in zip(classes, scores["confusion"], strict=True)]
            head = ("true \\ said", *(name[:8] for name in classes))
            parts += ["", table(matrix, head, "<" + ">" * len(classes))]
        return parts


def published_source(model: str, weights: str) -> Source | None:
    """The catalogue's entry of these weights, by the file's name; otherwise that of the model's preferred ones."""
    from resurge.arch.zoo import canonical_name, get_spec

    name = canonical_name(get_spec(model))
    sources = entries()[name].sources if name in entries() else ()
    file = Path(weights).name
    return next((s for s in sources if file in (s.file, s.location)), sources[0] if sources else None)


def preprocessing_of(source: Source) -> Preprocessing:
    """What the network of these published weights expects to see."""
    return Preprocessing(
        size=source.size,
        crop_pct=source.crop_pct,
        mean=source.mean,
        std=source.std,
        channels=len(source.mean),
        interpolation=source.interpolation,
    )
