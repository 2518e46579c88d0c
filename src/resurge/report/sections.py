"""The sections that every task's report has, and the figures that end its headline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from resurge.quantities import duration, memory, number_of, per_second, percent, quantity
from resurge.report.charts import STYLES, Series, line_chart
from resurge.run_files import RunFiles, items, number, section
from resurge.tasks.report import Context, Section, Tile


def headline(run: RunFiles) -> list[Tile]:
    """Size, cost and training time, which follow the scores."""
    tiles = []
    parameters = number(run.model, "parameters")
    if math.isfinite(parameters):
        tiles.append(Tile("Parameters", quantity(parameters)))
    macs = number(section(run.cost, "total"), "macs")
    if math.isfinite(macs):
        of = (run.cost or {}).get("of")
        tiles.append(Tile("Multiply-adds", quantity(macs), [f"of the {of}, per image" if of else "per image"]))
    seconds = run.column("seconds")
    if seconds:
        tiles.append(Tile("Training time", duration(seconds[-1][1]), [number_of(len(seconds), "epoch")]))
    return tiles


def training(curves: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> Section:
    """Loss and its terms, the curves of the task, learning rate and throughput over the epochs.

    Args:
        curves: charts of shares in 0..1: a title, and the name and the column of metrics.csv of each line.
    """

    def share(y: float) -> str:
        return percent(y, 0 if abs(100 * y - round(100 * y)) < 1e-6 else 1)

    def context(run: RunFiles) -> Context | None:
        validated = run.column("val_loss")
        loss = [Series("training", "s2", run.column("train_loss")), Series("validation", "s1", validated)]
        charts = [
            line_chart("Loss" if validated else "Training loss", loss),
            line_chart("Loss terms", _loss_terms(run), from_zero=True),
        ]
        for title, lines in curves:
            drawn = [Series(name, f"s{len(lines) - i}", run.column(column)) for i, (name, column) in enumerate(lines)]
            charts.append(line_chart(title, drawn, show=share))
        for title, column, show in (
            ("Learning rate", "lr", "{:.3g}".format),
            ("Images per second", "images_per_s", per_second),
        ):
            line = Series(title.lower(), "s1", run.column(column))
            charts.append(line_chart(title, [line], show=show, from_zero=True))
        drawn_charts = [chart for chart in charts if chart is not None]
        return {"charts": drawn_charts} if drawn_charts else None

    return Section("curves", "Training", "curves.html", context)


def _loss_terms(run: RunFiles) -> list[Series]:
    """A line per term of the loss; of more terms than colours, those that are largest in the last epoch."""
    columns = [name for name in run.columns if name.startswith("train_loss_")]
    lines = [(name.removeprefix("train_loss_").replace("_", " "), run.column(name)) for name in columns]
    if len(lines) < 2:
        return []
    kept = sorted((line for line in lines if line[1]), key=lambda line: -line[1][-1][1])[:STYLES]
    return [Series(name, f"s{i}", points) for i, (name, points) in enumerate(kept, 1)]


def _network(run: RunFiles) -> Context | None:
    """The diagrams of the network and of its blocks, as far as they were drawn."""
    blocks = sorted(path.name for path in run.folder.glob("explain/block*.svg"))
    files = [run.read(f"explain/{name}") for name in ("network.svg", *blocks)]
    pictures = [(content, "Diagram of the network") for content in files if content]
    return {"pictures": pictures} if pictures else None


def _cost(run: RunFiles) -> Context | None:
    """Shapes, parameters, multiply-adds, activation memory and receptive field of each stage."""
    rows = [row for row in items(run.cost, "rows", "explain/cost.json") if isinstance(row, Mapping)]
    if not rows:
        return None
    cost = run.cost or {}
    other, of = number(cost, "other_parameters"), cost.get("of")
    total = section(cost, "total")
    if math.isfinite(other):
        rows.append({"name": f"beside the {of}", "parameters": other})
        total = {**total, "parameters": number(total, "parameters") + other}
    if total:
        rows.append({**total, "name": "total"})
    size = cost.get("input")
    about = (
        f"For one input of {_times(size)}. " if isinstance(size, list) else "",
        f"All but the parameters of the {of} alone. " if of else "",
        "Parameters count weights and biases; multiply-adds those of convolutions and linear layers; activations are "
        "what training keeps of one fp32 image.",
    )
    columns = {
        "Parameters": ("parameters", quantity),
        "Multiply-adds": ("macs", quantity),
        "Activations": ("activation_bytes", memory),
        "Receptive field": ("receptive_field", "{:g}".format),
    }
    cells = [
        (
            str(row.get("name", "")),
            _times(row.get("shape")),
            *(show(value) if math.isfinite(value := number(row, key)) else "" for key, show in columns.values()),
        )
        for row in rows
    ]
    return {"about": "".join(about), "head": ("Stage", "Output", *columns), "rows": cells, "text_columns": 2}


def _times(shape: object) -> str:
    return " × ".join(str(n) for n in shape) if isinstance(shape, list) else ""


def _recipe(run: RunFiles) -> Context | None:
    """The recipe, word for word: with the data it repeats the run."""
    return {"recipe": run.recipe.strip()} if run.recipe and run.recipe.strip() else None


def _provenance(run: RunFiles) -> Context | None:
    """The data, the preprocessing and the versions of the packages."""
    groups = [
        (key.capitalize(), [(name, _fact(value)) for name, value in facts.items() if value is not None])
        for key in ("data", "preprocessing", "versions")
        if (facts := section(run.model, key))
    ]
    return {"groups": groups} if groups else None


def _fact(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(_fact(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_fact(item)}" for key, item in value.items())
    return str(value)


COMMON = (
    Section("network", "Network", "network.html", _network),
    Section("cost", "Cost", "table.html", _cost),
    Section("recipe", "Recipe", "recipe.html", _recipe),
    Section("data", "Data and versions", "provenance.html", _provenance),
)
