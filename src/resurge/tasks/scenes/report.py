"""What the reports of detectors and segmenters have in common: scores and galleries. Imports no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

from resurge.quantities import percent
from resurge.run_files import RunFiles, number, section
from resurge.tasks.report import MANY_CLASSES, Card, Context, Section, Tile, gallery, objects, pictures, words

SHOWN_IMAGES = 12
_COLOUR = re.compile(r"#[0-9a-f]{6}")  # nothing else may get into a style


def evaluated_images(run: RunFiles) -> str | None:
    """ "of 120 test images, 431 objects" """
    images, found = number(run.evaluation, "count"), number(run.evaluation, "objects")
    if not math.isfinite(images):
        return None
    split = (run.evaluation or {}).get("split")
    text = " ".join(str(word) for word in ("of", f"{images:,.0f}", split, "images") if word)
    return f"{text}, {found:,.0f} objects" if math.isfinite(found) else text


def score_tiles(run: RunFiles, scores: Sequence[tuple[str, float]]) -> list[Tile]:
    """A tile per score that is known; the first is the main one."""
    known = [(name, value) for name, value in scores if math.isfinite(value)]
    note = evaluated_images(run)
    return [
        Tile(name, percent(value, 1 if i else 2), (note,) if note and not i else (), main=not i)
        for i, (name, value) in enumerate(known)
    ]


def scene_galleries(measure: str, about: str) -> tuple[Section, ...]:
    """The images with the surest mistakes, and those with the worst and the best scores.

    Args:
        measure: the score of one image.
        about: one sentence that says what it is.
    """

    def context(kind: str) -> Callable[[RunFiles], Context | None]:
        return lambda run: _scene_gallery(run, kind, measure, about)

    titles = (("wrong", "Surest mistakes"), ("worst", "Worst images"), ("best", "Best images"))
    return tuple(Section(kind, title, "gallery.html", context(kind)) for kind, title in titles)


def _scene_gallery(run: RunFiles, kind: str, measure: str, about: str) -> Context | None:
    def card(entry: Mapping[str, object]) -> Card:
        score = number(entry, "score")
        return Card(
            pictures=pictures(run, entry, "truth for", "prediction for"),
            name=words(entry, "path", "id"),
            mistake=words(entry, "wrong"),
            score=percent(score) if math.isfinite(score) else None,
        )

    colours = section(run.evaluation, "colours")
    legend = [(name, tone) for name, tone in colours.items() if isinstance(tone, str) and _COLOUR.fullmatch(tone)]
    return gallery(
        [card(entry) for entry in objects(section(run.evaluation, "examples"), kind)],
        SHOWN_IMAGES,
        about=f"Left what is there, right what was found. {about}",
        legend=legend,
        fold_legend=len(legend) > MANY_CLASSES,
        measure=measure,
        scenes=True,
    )
