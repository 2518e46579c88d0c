"""The page: its sections in order, in one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from resurge.errors import UserError, suggest
from resurge.files import atomic_write_text
from resurge.report import classified, scenes, sections
from resurge.report.markup import Markup, tag
from resurge.report.run_files import RunFiles, read_run, section
from resurge.report.style import CSS

Section = tuple[str, str, Callable[[RunFiles], Markup | None]]


@dataclass(frozen=True)
class Layout:
    """What the page of a task shows: the tiles of its headline, the largest first, and its sections in order, each
    with its anchor and title."""

    tiles: Callable[[RunFiles], list[Markup]]
    sections: tuple[Section, ...]


_COMMON: tuple[Section, ...] = (
    ("network", "Network", sections.network),
    ("cost", "Cost", sections.cost),
    ("recipe", "Recipe", sections.recipe),
    ("data", "Data and versions", sections.provenance),
)
_GALLERIES: tuple[Section, ...] = (
    ("wrong", "Surest mistakes", scenes.wrong),
    ("worst", "Worst images", scenes.worst),
    ("best", "Best images", scenes.best),
)


def _training(*figures: tuple[str, sections.Lines]) -> Section:
    return "curves", "Training", partial(sections.curves, figures=figures)


_BOX = ("Box AP", (("AP", "val_box_ap"), ("AP50", "val_box_ap50")))
_MASK = ("Mask AP", (("AP", "val_mask_ap"), ("AP50", "val_mask_ap50")))
_OBJECTS: tuple[Section, ...] = (
    ("precision", "Precision and recall", scenes.precision_recall),
    ("classes", "Classes", scenes.object_classes),
    ("sizes", "Sizes", scenes.by_size),
    ("figures", "All figures", scenes.twelve),
    *_GALLERIES,
    *_COMMON,
)

LAYOUTS: dict[str, Layout] = {
    "classify": Layout(
        classified.tiles,
        (
            _training(("Top-1 accuracy", (("training", "train_top1"), ("validation", "val_top1")))),
            ("confusion", "Confusion matrix", classified.confusion),
            ("classes", "Classes", classified.per_class),
            ("calibration", "Calibration", classified.calibration),
            ("mistakes", "Most confident mistakes", classified.mistakes),
            ("maps", "Class-activation maps", classified.activation_maps),
            *_COMMON,
        ),
    ),
    "detect": Layout(scenes.object_tiles, (_training(_BOX), *_OBJECTS)),
    "instances": Layout(scenes.object_tiles, (_training(_MASK, _BOX), *_OBJECTS)),
    "segment": Layout(
        scenes.map_tiles,
        (
            _training(
                ("Mean IoU", (("mean IoU", "val_miou"),)),
                ("Pixel accuracy", (("pixel accuracy", "val_pixel_accuracy"),)),
            ),
            ("classes", "Classes", scenes.map_classes),
            ("confusion", "Confusion matrix", scenes.map_confusion),
            *_GALLERIES,
            *_COMMON,
        ),
    ),
}


def write_report(run_dir: str | Path) -> Path:
    """Write `report.html` into a run directory, from its files alone, and return the path.

    Sections whose files are missing are left out. The page loads nothing from elsewhere and holds no script.

    Raises:
        UserError: `run_dir` is not a finished run directory, one of its files is damaged, or the page cannot be
            written.
    """
    run = read_run(run_dir)
    path = Path(run_dir) / "report.html"
    atomic_write_text(path, render(run))
    return path


def render(run: RunFiles) -> str:
    """The HTML of the page.

    Raises:
        UserError: the task of the run is unknown or missing, or a file of it holds something else than it should.
    """
    layout = LAYOUTS.get(run.task)
    if layout is None:
        raise UserError(f"{run.folder} is of the task {run.task!r}, which is unknown here.{suggest(run.task, LAYOUTS)}")
    parts = [(name, title, body) for name, title, write in layout.sections if (body := write(run)) is not None]
    name = run.folder.resolve().name or "run"
    data = section(run.model, "data").get("name")
    spec = run.model.get("spec")
    classes = f"{len(run.classes)} classes" if run.classes else None
    facts = " · ".join(str(fact) for fact in (data, classes) if fact)
    header = tag(
        "header",
        tag("h1", name),
        tag("div", tag("code", spec)) if spec else None,
        tag("div", facts, class_="sub") if facts else None,
        sections.headline(run, layout.tiles),
        tag("nav", [tag("a", title, href=f"#{anchor}") for anchor, title, _ in parts], aria_label="Sections"),
    )
    written = [tag("section", tag("h2", title), content, id=anchor) for anchor, title, content in parts]
    version = section(run.model, "versions").get("resurge")
    footer = tag(
        "footer", "Written by resurge", f" {version}" if version else None, " from the files of this run directory."
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        # Nothing is fetched and nothing runs, even if a file of the run had smuggled something in.
        tag(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; img-src data:; style-src 'unsafe-inline'",
        ),
        tag("title", f"{name} – resurge report"),
        Markup(f"<style>{CSS}</style>"),
    )
    return "<!DOCTYPE html>\n" + tag("html", head, tag("body", header, tag("main", written), footer), lang="en") + "\n"
