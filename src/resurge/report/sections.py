"""The sections that every task's report has: each a function from the run's files to HTML, or to None when its files
are missing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from resurge.report.charts import STYLES, Series, line_chart
from resurge.report.markup import Markup, data_uri, duration, join, memory, percent, quantity, tag
from resurge.report.run_files import RunFiles, items, number, section
from resurge.report.tables import table, tile


def headline(run: RunFiles, scores: Callable[[RunFiles], list[Markup]]) -> Markup:
    """The scores, the first one large, and the figures one asks for next."""
    tiles = scores(run)
    parameters = number(run.model, "parameters")
    if math.isfinite(parameters):
        tiles.append(tile("Parameters", quantity(parameters)))
    macs = number(section(run.cost, "total"), "macs")
    if math.isfinite(macs):
        of = (run.cost or {}).get("of")
        tiles.append(tile("Multiply-adds", quantity(macs), f"of the {of}, an image" if of else "an image"))
    seconds = run.column("seconds")
    if seconds:
        tiles.append(tile("Training time", duration(seconds[-1][1]), f"{len(seconds)} epochs"))
    return tag("div", tiles, class_="tiles")


Lines = Sequence[tuple[str, str]]


def curves(run: RunFiles, figures: Sequence[tuple[str, Lines]]) -> Markup | None:
    """Loss and its terms, the figures, learning rate and throughput over the epochs.

    `figures` are charts of shares in 0..1: a title, and a name and a column of metrics.csv for each line.
    """

    def share(y: float) -> str:
        return percent(y, 0 if abs(100 * y - round(100 * y)) < 1e-6 else 1)

    terms = [name for name in run.columns if name.startswith("train_loss_")]
    validated = run.column("val_loss")
    charts = [
        line_chart(
            "Loss" if validated else "Training loss",
            [Series("training", "s2", run.column("train_loss")), Series("validation", "s1", validated)],
        ),
        line_chart("Loss terms", _terms(run, terms), from_zero=True) if len(terms) > 1 else None,
        *(
            line_chart(
                title,
                [Series(name, f"s{len(lines) - i}", run.column(column)) for i, (name, column) in enumerate(lines)],
                show=share,
            )
            for title, lines in figures
        ),
        line_chart("Learning rate", [Series("learning rate", "s1", run.column("lr"))], from_zero=True),
        line_chart(
            "Images a second",
            [Series("images a second", "s1", run.column("images_per_s"))],
            from_zero=True,
            show=lambda y: f"{y:,.0f}",
        ),
    ]
    drawn = [chart for chart in charts if chart is not None]
    return tag("div", drawn, class_="grid charts") if drawn else None


def _terms(run: RunFiles, columns: Sequence[str]) -> list[Series]:
    """A line a term; where there are more than colours, those that are larger in the last epoch."""
    lines = [(name.removeprefix("train_loss_").replace("_", " "), run.column(name)) for name in columns]
    kept = sorted((line for line in lines if line[1]), key=lambda line: -line[1][-1][1])[:STYLES]
    return [Series(name, f"s{i}", points) for i, (name, points) in enumerate(kept, 1)]


def network(run: RunFiles) -> Markup | None:
    """The diagrams of the network and of its blocks, as far as they were drawn."""
    pictures = []
    names = ["explain/network.svg"]
    blocks = run.folder / "explain"
    names += sorted(f"explain/{path.name}" for path in blocks.glob("block*.svg")) if blocks.is_dir() else []
    for name in names:
        content = run.read(name)
        uri = data_uri(content) if content else None
        if uri:
            pictures.append(tag("div", tag("img", src=uri, alt="Diagram of the network"), class_="diagram"))
    return tag("div", pictures, class_="diagrams") if pictures else None


def cost(run: RunFiles) -> Markup | None:
    """Shapes, parameters, multiply-adds, activation memory and receptive field of each stage."""
    rows = [row for row in items(run.cost, "rows", "explain/cost.json") if isinstance(row, Mapping)]
    if not rows:
        return None
    other, of = number(run.cost, "other_parameters"), (run.cost or {}).get("of")
    total = section(run.cost, "total")
    if math.isfinite(other):
        rows.append({"name": f"beside the {of}", "parameters": other})
        total = {**total, "parameters": number(total, "parameters") + other}
    shown = [*rows, {**total, "name": "total"}] if total else rows
    cells = []
    for row in shown:
        shape = row.get("shape")
        field = number(row, "receptive_field")
        cells.append(
            (
                str(row.get("name", "")),
                " × ".join(str(n) for n in shape) if isinstance(shape, list) else "",
                *(write(number(row, key)) if math.isfinite(number(row, key)) else "" for key, write in _COST_COLUMNS),
                f"{field:g}" if math.isfinite(field) else "",
            )
        )
    size = run.cost.get("input") if run.cost else None
    given = " × ".join(str(n) for n in size) if isinstance(size, list) else None
    note = (
        "Parameters count weights and biases; multiply-adds those of convolutions and linear layers; activations are "
        "what training keeps of one fp32 image."
    )
    return join(
        tag(
            "p",
            f"For one input of {given}. " if given else None,
            f"All but the parameters of the {of} alone. " if of else None,
            note,
            class_="note",
        ),
        table(
            ("Stage", "Output", "Parameters", "Multiply-adds", "Activations", "Receptive field"), cells, text_columns=2
        ),
    )


_COST_COLUMNS = (("parameters", quantity), ("macs", quantity), ("activation_bytes", memory))


def recipe(run: RunFiles) -> Markup | None:
    """The recipe, word for word: with the data it repeats the run."""
    return tag("pre", run.recipe.strip()) if run.recipe and run.recipe.strip() else None


def provenance(run: RunFiles) -> Markup | None:
    """The data, the preprocessing and the versions of the packages."""
    parts: list[Markup] = []
    for key, title in (("data", "Data"), ("preprocessing", "Preprocessing"), ("versions", "Versions")):
        facts = section(run.model, key)
        if facts:
            pairs = [(tag("dt", name), tag("dd", _fact(value))) for name, value in facts.items() if value is not None]
            parts.append(tag("div", tag("h3", title), tag("dl", pairs)))
    return tag("div", parts, class_="grid facts") if parts else None


def _fact(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(_fact(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_fact(item)}" for key, item in value.items())
    return str(value)
