"""The scores of a detector as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from resurge.report.scenes import FIGURES
from resurge.text_tables import percent, table


def score_lines(scores: Mapping[str, Any], classes: Sequence[str]) -> list[str]:
    """The scores of `ObjectScores.compute` as parts that stand below each other."""
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
