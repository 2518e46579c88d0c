"""The page: its sections in order, in one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from resurge.files import atomic_write_text
from resurge.report import sections
from resurge.report.markup import Markup, tag
from resurge.report.run_files import RunFiles, read_run, section
from resurge.report.style import CSS

SECTIONS: tuple[tuple[str, str, Callable[[RunFiles], Markup | None]], ...] = (
    ("curves", "Training", sections.curves),
    ("confusion", "Confusion matrix", sections.confusion),
    ("classes", "Classes", sections.per_class),
    ("calibration", "Calibration", sections.calibration),
    ("mistakes", "Most confident mistakes", sections.mistakes),
    ("maps", "Class-activation maps", sections.activation_maps),
    ("network", "Network", sections.network),
    ("cost", "Cost", sections.cost),
    ("recipe", "Recipe", sections.recipe),
    ("data", "Data and versions", sections.provenance),
)


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
    """The HTML of the page."""
    parts = [(name, title, body) for name, title, write in SECTIONS if (body := write(run)) is not None]
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
        sections.headline(run),
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
