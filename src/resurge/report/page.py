"""The report: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from resurge.errors import UserError, suggest
from resurge.files import MARK, atomic_write_text
from resurge.quantities import number_of, percent
from resurge.report.charts import precision_recall_chart, reliability_chart
from resurge.report.sections import COMMON, headline, training
from resurge.run_files import RunFiles, read_run, section
from resurge.tasks.report import plugin_tiles
from resurge.tasks.table import DEFAULT, TASKS
from resurge.tasks.task import Task
from resurge.untrusted import shown

SIGNATURES = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"<svg": "svg+xml", b"<?xml": "svg+xml"}
"""The kind of a picture by the first bytes of its file."""


def write_report(run_dir: str | Path) -> Path:
    """Write `report.html` into a run directory, from its files alone, and return the path.

    Sections whose files are missing are left out. The page loads nothing from elsewhere and holds no script.

    Raises:
        UserError: `run_dir` is not a finished run directory, one of its files is damaged, or the page cannot be
            written.
    """
    run = read_run(run_dir)
    path = Path(run_dir) / "report.html"
    atomic_write_text(path, _render(run))
    return path


def _render(run: RunFiles) -> str:
    """The HTML of the page."""
    report = _task_of(run).report
    templates = _templates()
    bodies = [
        (each.anchor, each.title, Markup(templates.get_template(each.template).render(context)))
        for each in (training(report.curves), *report.sections, *COMMON)
        if (context := each.context(run)) is not None
    ]
    classes = number_of(len(run.classes), "class", "classes") if run.classes else None
    facts = (section(run.model, "data").get("name"), classes)
    return templates.get_template("page.html").render(
        mark=MARK,
        css=Markup(Path(__file__).with_name("style.css").read_text(encoding="utf-8")),
        name=run.folder.resolve().name or "run",
        spec=run.model.get("spec"),
        facts=[fact for fact in facts if fact],
        tiles=[*report.tiles(run), *plugin_tiles(run), *headline(run)],
        sections=bodies,
        version=section(run.model, "versions").get("resurge"),
    )


def _task_of(run: RunFiles) -> Task:
    """The task of a run. Runs that name none are older than the other tasks, and of the default one."""
    name = run.model.get("task")
    if name is None:
        scored = (run.evaluation or {}).get("task") not in (None, DEFAULT)
        if scored or "head" in run.model or section(run.model, "preprocessing").get("kind") == "scene":
            raise UserError(
                f"{run.folder / 'model.json'} does not say its task, and the run is no classifier's: it has a head, "
                'or a preprocessing or scores of scenes. Write "task": "detect" (or instances, or segment) into it.'
            )
        name = DEFAULT
    if name not in TASKS:
        raise UserError(f"{run.folder} is of the task {name!r}, which is unknown here.{suggest(str(name), TASKS)}")
    return TASKS[str(name)]


@cache
def _templates() -> Environment:
    """The templates. Everything that is put into them is escaped: class names, file names and recipe lines come from
    users' folders."""
    environment = Environment(
        loader=PackageLoader("resurge.report"), autoescape=True, undefined=StrictUndefined, finalize=_visible,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"percent": percent, "short": "{:g}".format, "images": _images}
    environment.tests["finite"] = math.isfinite
    environment.globals |= {each.__name__: each for each in (precision_recall_chart, reliability_chart)}
    return environment


def _visible(value: object) -> object:
    """Control characters, and bytes of file names that are no text, become escapes; None is left out."""
    if value is None:
        return ""
    if isinstance(value, Markup):
        return value
    return "".join(part if part in "\n\t" else shown(part) for part in re.split(r"([\n\t])", str(value)))


def _images(pictures: Sequence[tuple[bytes, str]]) -> list[tuple[str, str]]:
    """Pictures and their texts, with the pictures as data URIs; what is no PNG, JPEG or SVG is left out."""
    return [(uri, text) for content, text in pictures if (uri := data_uri(content)) is not None]


def data_uri(content: bytes) -> str | None:
    """`content` as a data URI when it is a PNG, a JPEG or an SVG, else None.

    The SVG is meant for an `<img>`, where browsers run no script and load nothing from outside.
    """
    start = content[:256].lstrip()
    kind = next((kind for signature, kind in SIGNATURES.items() if start.startswith(signature)), None)
    return kind and f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
