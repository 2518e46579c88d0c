"""What a task adds to the report of a run: the scores of its headline, and its sections.

A section reads the files of the run and gives the values of a template in `resurge/report/templates`. In a table a
`float` is a share in 0..1, which is shown as a bar; all other cells are text. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from resurge.quantities import percent
from resurge.run_files import RunFiles, items, number

MANY_CLASSES = 30
"""With more classes there is no confusion matrix, and a table of classes shows the weakest only."""
SHOWN_CLASSES = 15
SHOWN_PAIRS = 10

Context = Mapping[str, object]
Cell = str | float


@dataclass(frozen=True)
class Tile:
    """One score of the headline, with lines of explanation below it; the main one is larger."""

    label: str
    value: str
    notes: Sequence[str] = ()
    main: bool = False


@dataclass(frozen=True)
class Section:
    """One section of the page.

    Attributes:
        anchor: its id in the page.
        title: its heading.
        template: the file in `report/templates` that writes it.
        context: from the files of a run to the values of the template; None where the files it needs are missing.
    """

    anchor: str
    title: str
    template: str
    context: Callable[[RunFiles], Context | None]


@dataclass(frozen=True)
class Report:
    """What differs between the reports of tasks.

    Attributes:
        tiles: the scores of the headline, the main one first.
        curves: charts of shares over the epochs: a title, and the name and the column of metrics.csv of each line.
        sections: those between the training curves and the sections that every report has.
    """

    tiles: Callable[[RunFiles], Sequence[Tile]] = lambda run: ()
    curves: Sequence[tuple[str, Sequence[tuple[str, str]]]] = ()
    sections: Sequence[Section] = ()


def objects(source: Mapping[str, object] | None, key: str) -> list[Mapping[str, object]]:
    """The objects of a list of evaluation.json; entries of another kind are left out."""
    return [entry for entry in items(source, key, "evaluation.json") if isinstance(entry, Mapping)]


def count(row: Mapping[str, object], key: str, form: str = ",.0f") -> str:
    """The number at `key` as text, "–" where there is none."""
    value = number(row, key)
    return format(value, form) if math.isfinite(value) else "–"


def class_table(
    rows: Sequence[Mapping[str, object]], key: str, head: Sequence[str],
    cells: Callable[[Mapping[str, object]], Sequence[Cell]],
) -> Context | None:  # fmt: skip
    """A row per class, for the template `classes.html`; of many classes those with the lowest `key` come first and the
    others are folded away."""
    if not rows:
        return None
    many = len(rows) > MANY_CLASSES
    if many:
        rows = sorted(rows, key=lambda row: number(row, key) if math.isfinite(number(row, key)) else -1.0)
    shown = SHOWN_CLASSES if many else len(rows)
    written = [cells(row) for row in rows]
    return {"head": head, "rows": written[:shown], "folded": written[shown:]}


def confusion(
    run: RunFiles, unit: str, perfect: str, *, shares: bool = False, about: str | None = None
) -> Context | None:
    """The confusion matrix of up to MANY_CLASSES classes and the pairs most often confused, for `confusion.html`.

    Args:
        unit: what is counted ("Images").
        perfect: what the page says when no two classes were confused.
        shares: cells hold percent of the row in place of counts.
    """
    matrix = _matrix(run)
    if not matrix:
        return None
    names = [run.class_name(i) for i in range(len(matrix))]
    totals = [sum(row) or 1.0 for row in matrix]
    pairs = sorted(
        ((n, i, j) for i, row in enumerate(matrix) for j, n in enumerate(row) if i != j and n > 0),
        key=lambda pair: (-pair[0], pair[1], pair[2]),
    )
    return {
        "about": about,
        "names": names,
        "matrix": matrix if len(matrix) <= MANY_CLASSES else None,
        "totals": totals,
        "shares": shares,
        "perfect": perfect,
        "head": ("Is", "Taken for", unit, "Of its class"),
        "pairs": [
            (names[i], names[j], f"{n:,.0f}" if shares else f"{n:g}", percent(n / totals[i]))
            for n, i, j in pairs[:SHOWN_PAIRS]
        ],
    }


def _matrix(run: RunFiles) -> list[list[float]]:
    rows = items(run.evaluation, "confusion", "evaluation.json")
    matrix = [
        [float(n) for n in row]
        for row in rows
        if isinstance(row, list) and all(isinstance(n, int | float) and 0 <= n < 1e15 for n in row)
    ]
    square = len(matrix) == len(rows) and all(len(row) == len(rows) for row in matrix)
    return matrix if square else []


@dataclass(frozen=True, kw_only=True)
class Card:
    """One image of a gallery, with what the network made of it.

    Attributes:
        pictures: contents of image files, each with its text for those who do not see it.
        name: of the image's file.
        predicted, confidence, true: of a classifier: its class, and the true one where that is another.
        mistake, score: of the other tasks: the surest mistake in words, and the score of the image.
    """

    pictures: Sequence[tuple[bytes, str]]
    name: str | None
    predicted: str | None = None
    confidence: str | None = None
    true: str | None = None
    mistake: str | None = None
    score: str | None = None


def pictures(run: RunFiles, entry: Mapping[str, object], thumbnail: str, overlay: str) -> list[tuple[bytes, str]]:
    """The thumbnail and the overlay of an image, with the beginnings of their texts."""
    files = ((entry.get("thumbnail"), thumbnail), (entry.get("overlay"), overlay))
    return [(content, f"{text} {entry.get('id', '')}") for file, text in files if (content := run.read(file))]


def words(entry: Mapping[str, object], *keys: str) -> str | None:
    """The first of these values that is not empty, as text."""
    return next((str(value) for key in keys if (value := entry.get(key)) not in (None, "")), None)


def gallery(cards: Sequence[Card], shown: int, **context: object) -> Context | None:
    """The first `shown` cards, for `gallery.html`."""
    return {"cards": cards[:shown], "rest": max(0, len(cards) - shown), **context} if cards else None
