"""Scores as text, and what a task adds to the report of a run: the scores of its headline, and its sections.

A section reads the files of the run and gives the values of a template in `resurge/report/templates`. In a table a
`float` is a share in 0..1, which is shown as a bar; all other cells are text. Imports no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from resurge.files import Json
from resurge.quantities import fixed, number_of, percent, plain_percent, table
from resurge.run_files import RunFiles, items, number, section

MANY_CLASSES = 30
"""With more classes there is no confusion matrix, and a table of classes shows the weakest only."""
SHOWN_CLASSES = 15
SHOWN_SCENES = 12
SHOWN_PAIRS = 10
SHOWN_ABSENT = 10
WIDEST_COLUMN = 8

_COLOUR = re.compile(r"#[0-9a-f]{6}")  # nothing else may get into a style

Context = Mapping[str, object]
Cell = str | float


@dataclass(frozen=True)
class Tile:
    """One score of the headline; the main one is larger."""

    label: str
    value: str
    notes: Sequence[str] = ()  # lines of explanation below it
    main: bool = False


@dataclass(frozen=True)
class Section:
    """One section of the page."""

    anchor: str  # its id in the page
    title: str
    template: str  # the file in `report/templates` that writes it
    context: Callable[[RunFiles], Context | None]  # the template's values; None where the files it needs are missing


@dataclass(frozen=True)
class Report:
    """What differs between the reports of tasks."""

    lines: Callable[[Json, Sequence[str]], list[str]] = lambda scores, classes: []
    """What `Scores.compute` gives, and the names of the classes -> the scores as text, in parts below each other."""
    tiles: Callable[[RunFiles], Sequence[Tile]] = lambda run: ()
    """The scores of the headline, the main one first."""
    curves: Sequence[tuple[str, Sequence[tuple[str, str]]]] = ()
    """Charts of shares over the epochs: a title, and the name and the column of metrics.csv of each line."""
    sections: Sequence[Section] = ()
    """Those between the training curves and the sections that every report has."""


# ------------------------------------------------------------------------------------------------- scores as text


NAMES = {
    "top1": "top-1",
    "top5": "top-5",
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "box_ap": "box AP",
    "box_ap50": "box AP50",
    "mask_ap": "mask AP",
    "mask_ap50": "mask AP50",
}
"""What the figures of a training are called where they are shown."""


def percent_text(values: dict[str, float | None], before: str = "") -> str:
    """ "top-1 97.22 %, top-5 99.10 %" of shares in 0..1; what is undefined is left out."""
    return ", ".join(
        f"{before}{NAMES.get(name, name)} {100 * value:.2f} %"
        for name, value in values.items()
        if value is not None and value == value
    )


def share(value: float | None) -> str:
    """0.98765 as "98.77 %"; "–" where it is not defined."""
    return plain_percent(value) or "–"


def confusion_lines(scores: Json, classes: Sequence[str], widest: int, *, shares: bool = False) -> list[str]:
    """The confusion matrix, in percent of the true class with `shares`; with more than `widest` classes it would be
    wider than a terminal, and is left out."""
    if len(classes) > widest:
        return []
    heads, names = list(classes), list(classes)
    if max(map(len, classes)) > WIDEST_COLUMN:  # names that are cut may be equal: numbers stand for them
        heads = [f"{number}" for number in range(1, len(classes) + 1)]
        names = [f"{number}  {name}" for number, name in zip(heads, classes, strict=True)]
    rows = [
        (name, *(f"{100 * count / max(1, sum(row)):.1f}" if shares else f"{count}" for count in row))
        for name, row in zip(names, scores["confusion"], strict=True)
    ]
    head = ("true \\ pred, %" if shares else "true \\ pred", *heads)
    return ["", table(rows, head, "<" + ">" * len(classes))]


# ------------------------------------------------------------------------------------------------------- the page


def objects(source: Mapping[str, object] | None, key: str) -> list[Mapping[str, object]]:
    """The objects of a list of evaluation.json; entries of another kind are left out."""
    return [entry for entry in items(source, key, "evaluation.json") if isinstance(entry, Mapping)]


def score_tiles(
    run: RunFiles, scores: Sequence[tuple[str, float]], images: float | None = None, digits: int = 1
) -> list[Tile]:
    """A tile per score that is known; the first is the main one, which says on how many images it was measured."""
    known = [(name, value) for name, value in scores if math.isfinite(value)]
    images, found = number(run.evaluation, "count") if images is None else images, number(run.evaluation, "objects")
    evaluated = run.evaluation or {}
    split = f"{evaluated['split']} " if evaluated.get("split") else ""
    note = f"of {number_of(images, f'{split}image')}"
    note += f", {number_of(found, 'object')}" if math.isfinite(found) else ""
    precision = evaluated.get("precision") or section(run.model, "scores").get("precision")
    note += f", computed in {precision}" if precision else ""
    return [
        Tile(name, percent(value, digits if i else 2), (note,) if math.isfinite(images) and not i else (), main=not i)
        for i, (name, value) in enumerate(known)
    ]


def plugin_tiles(run: RunFiles) -> list[Tile]:
    """A tile per metric of a plugin; what its numbers mean is not known here."""
    scores = section(run.evaluation or {}, "plugin_metrics")
    return [Tile(name, fixed(number(scores, name), 4)) for name in scores if math.isfinite(number(scores, name))]


def absent_lines(scores: Mapping[str, object]) -> list[str]:
    """A line about the classes that do not occur in the data of an evaluation, if there are any."""
    names = [str(name) for name in items(scores, "absent", "evaluation.json")]
    shown = f"{', '.join(names[:SHOWN_ABSENT])}{', …' if len(names) > SHOWN_ABSENT else ''}"
    every = number_of(len(names), "class does", "classes do")
    return [f"{every} not occur in these images, left out of all means: {shown}"] if names else []


def plugin_lines(scores: Json) -> list[str]:
    """The same as lines of text."""
    return [f"{name:<17}  {fixed(value, 4)}" for name, value in scores.get("plugin_metrics", {}).items()]


def class_table(
    run: RunFiles, rows: Sequence[Mapping[str, object]], weakest: str, counted: tuple[str, str],
    measures: Mapping[str, str],
) -> Context | None:  # fmt: skip
    """A row per class, for the template `classes.html`; of many classes those with the lowest score at `weakest` come
    first and the others are folded away. `counted` is the heading and the key of the number of images or the like,
    `measures` those of the scores."""
    if not rows:
        return None
    many = len(rows) > MANY_CLASSES
    if many:
        # those that do not occur have no score, and come last
        rows = sorted(rows, key=lambda row: known if math.isfinite(known := number(row, weakest)) else math.inf)
    shown = SHOWN_CLASSES if many else len(rows)
    written = []
    for row in rows:
        count = number(row, counted[1])
        cells: list[Cell] = [run.class_name(row.get("class", "?")), f"{count:,.0f}" if math.isfinite(count) else "–"]
        written.append([*cells, *(number(row, key) for key in measures.values())])
    absent = " ".join(absent_lines(run.evaluation or {}))
    head = ("Class", counted[0], *measures)
    return {"head": head, "rows": written[:shown], "folded": written[shown:], "absent": absent}


def confusion(
    run: RunFiles, unit: str, perfect: str, *, shares: bool = False, about: str | None = None
) -> Context | None:
    """The confusion matrix of up to MANY_CLASSES classes and the pairs most often confused, for `confusion.html`.

    `unit` is what is counted ("Images"), `perfect` the sentence shown when no two classes were confused; with `shares`
    cells hold percent of the row.
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


def card(run: RunFiles, entry: Mapping[str, object], thumbnail: str, overlay: str, **more: str | None) -> Context:
    """One image of a gallery, with what the network made of it.

    The texts of its two pictures, for those who do not see them, begin with `thumbnail` and `overlay`. `more` are of a
    classifier `predicted` and `confidence`, and `true` where that is another class; else `mistake` and `score`.
    """
    files = ((entry.get("thumbnail"), thumbnail), (entry.get("overlay"), overlay))
    pictures = [(content, f"{text} {entry.get('id', '')}") for file, text in files if (content := run.read(file))]
    nothing = dict.fromkeys(("predicted", "confidence", "true", "mistake", "score"))
    return {"pictures": pictures, "name": words(entry, "path", "id"), **nothing, **more}


def words(entry: Mapping[str, object], *keys: str) -> str | None:
    """The first of these values that is not empty, as text."""
    return next((str(value) for key in keys if (value := entry.get(key)) not in (None, "")), None)


def gallery(cards: Sequence[Context], shown: int, **context: object) -> Context | None:
    """The first `shown` cards, for `gallery.html`."""
    return {"cards": cards[:shown], "rest": max(0, len(cards) - shown), **context} if cards else None


def scene_galleries(measure: str, about: str) -> tuple[Section, ...]:
    """The images with the surest mistakes, and those with the worst and the best scores. `measure` is the score of one
    image, `about` one sentence that explains it."""

    def context(kind: str) -> Callable[[RunFiles], Context | None]:
        return lambda run: _scene_gallery(run, kind, measure, about)

    titles = (("wrong", "Surest mistakes"), ("worst", "Worst images"), ("best", "Best images"))
    return tuple(Section(kind, title, "gallery.html", context(kind)) for kind, title in titles)


def _scene_gallery(run: RunFiles, kind: str, measure: str, about: str) -> Context | None:
    cards = []
    for entry in objects(section(run.evaluation, "examples"), kind):
        score = number(entry, "score")
        about_image = {"mistake": words(entry, "wrong"), "score": percent(score) if math.isfinite(score) else None}
        cards.append(card(run, entry, "truth for", "prediction for", **about_image))
    colours = section(run.evaluation, "colours")
    legend = [(name, tone) for name, tone in colours.items() if isinstance(tone, str) and _COLOUR.fullmatch(tone)]
    return gallery(
        cards,
        SHOWN_SCENES,
        about=f"Left: the annotations. Right: the predictions. {about}",
        legend=legend,
        fold_legend=len(legend) > MANY_CLASSES,
        measure=measure,
        scenes=True,
    )
