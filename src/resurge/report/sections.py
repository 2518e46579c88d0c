"""The sections of the report: each a function from the run's files to HTML, or to None when its files are missing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from resurge.report.charts import Series, line_chart, reliability_chart
from resurge.report.markup import Markup, data_uri, duration, join, memory, percent, quantity, tag
from resurge.report.run_files import RunFiles, items, number, section

MANY_CLASSES = 30
SHOWN_CLASSES = 15
SHOWN_PAIRS = 10
SHOWN_IMAGES = 24


def table(head: Sequence[str], rows: Sequence[Sequence[object]], *, text_columns: int = 1) -> Markup:
    """A table whose first `text_columns` columns are text and the others numbers, in a box that scrolls sideways."""

    def style(column: int) -> str | None:
        return None if column < text_columns else "num"

    heading = tag("tr", [tag("th", name, class_=style(i), scope="col") for i, name in enumerate(head)])
    body = [tag("tr", [tag("td", join(_child(cell)), class_=style(i)) for i, cell in enumerate(row)]) for row in rows]
    return tag("div", tag("table", tag("thead", heading), tag("tbody", body)), class_="scroll")


def _child(cell: object) -> str | None:
    return cell if isinstance(cell, str) or cell is None else str(cell)


def headline(run: RunFiles) -> Markup:
    """The score, large, and the figures one asks for next."""
    evaluation = run.evaluation or {}
    scores = section(run.model, "scores")
    top1 = number(evaluation, "top1") if "top1" in evaluation else number(scores, "top1")
    images = _images(run)
    tiles: list[Markup] = []
    if math.isfinite(top1):
        split = str(evaluation.get("split", "")) if evaluation else ""
        under = f"of {images} {split} images".replace("  ", " ") if images else f"{split} top-1".strip()
        interval = _wilson(top1, images) if images else None
        below = f"95\u202f% interval {percent(interval[0])} to {percent(interval[1])}" if interval else None
        tiles.append(_tile("Top-1 accuracy", percent(top1, 2), under, below, main=True))
    for key, label in (("top5", "Top-5 accuracy"), ("ece", "Calibration error")):
        value = number(evaluation if key in evaluation else scores, key)
        if math.isfinite(value) and not (key == "top5" and len(run.classes) <= 5):
            tiles.append(_tile(label, percent(value, 2)))
    parameters = number(run.model, "parameters")
    if math.isfinite(parameters):
        tiles.append(_tile("Parameters", quantity(parameters)))
    macs = number(section(run.cost, "total"), "macs")
    if math.isfinite(macs):
        tiles.append(_tile("Multiply-adds", quantity(macs), "an image"))
    seconds = run.column("seconds")
    if seconds:
        tiles.append(_tile("Training time", duration(seconds[-1][1]), f"{len(seconds)} epochs"))
    return tag("div", tiles, class_="tiles")


def _tile(label: str, value: str, *notes: str | None, main: bool = False) -> Markup:
    lines = [tag("small", note) for note in notes if note]
    return tag("div", tag("span", label), tag("strong", value), lines, class_="tile main" if main else "tile")


def _images(run: RunFiles) -> int:
    """How many images were evaluated: the sum of the classes' counts."""
    counts = [
        number(row, "n") for row in items(run.evaluation, "per_class", "evaluation.json") if isinstance(row, Mapping)
    ]
    return int(sum(n for n in counts if math.isfinite(n)))


def _wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a proportion (1927): unlike share ± z·sigma it stays in 0..1 near 100 %."""
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(max(share * (1 - share), 0.0) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def curves(run: RunFiles) -> Markup | None:
    """Loss, accuracy, learning rate and throughput over the epochs."""

    def share(y: float) -> str:
        return percent(y, 0 if abs(100 * y - round(100 * y)) < 1e-6 else 1)

    charts = [
        line_chart(
            "Loss",
            [Series("training", "s2", run.column("train_loss")), Series("validation", "s1", run.column("val_loss"))],
        ),
        line_chart(
            "Top-1 accuracy",
            [Series("training", "s2", run.column("train_top1")), Series("validation", "s1", run.column("val_top1"))],
            show=share,
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


def confusion(run: RunFiles) -> Markup | None:
    """The confusion matrix of up to MANY_CLASSES classes, and the pairs most often confused."""
    matrix = _matrix(run)
    if not matrix:
        return None
    names = [run.class_name(i) for i in range(len(matrix))]
    parts: list[Markup | None] = []
    if len(matrix) <= MANY_CLASSES:
        parts.append(_heat_table(matrix, names))
    pairs = sorted(
        ((count, i, j) for i, row in enumerate(matrix) for j, count in enumerate(row) if i != j and count > 0),
        key=lambda pair: (-pair[0], pair[1], pair[2]),
    )
    if pairs:
        rows = [
            (names[i], names[j], f"{count:g}", percent(count / (sum(matrix[i]) or 1)))
            for count, i, j in pairs[:SHOWN_PAIRS]
        ]
        pairs_table = table(("Is", "Taken for", "Images", "Of its class"), rows, text_columns=2)
        parts.append(tag("div", tag("h3", "Most confused"), pairs_table))
    else:
        parts.append(tag("p", "No image was taken for another class.", class_="note"))
    return tag("div", parts, class_="split")


def _matrix(run: RunFiles) -> list[list[float]]:
    rows = items(run.evaluation, "confusion", "evaluation.json")
    matrix = [
        [float(n) for n in row]
        for row in rows
        if isinstance(row, list) and all(isinstance(n, int | float) and 0 <= n < 1e15 for n in row)
    ]
    square = len(matrix) == len(rows) and all(len(row) == len(rows) for row in matrix)
    return matrix if square else []


def _heat_table(matrix: Sequence[Sequence[float]], names: Sequence[str]) -> Markup:
    """Rows are the true classes; the colour is the share of the row, so that small classes show as well."""
    corner = tag("th", tag("span", "is ↓  taken for →"), class_="corner")
    head = tag("tr", corner, [tag("th", tag("span", name), class_="turned", scope="col") for name in names])
    body = []
    for i, row in enumerate(matrix):
        total = sum(row) or 1.0
        cells = []
        for j, count in enumerate(row):
            share = count / total
            style = "cell" + (" right" if i == j else " wrong") + (" strong" if share > 0.55 else "")
            told = f"{names[i]} taken for {names[j]}: {count:g} of {total:g} ({percent(share)})"
            # The square root lifts single confusions above the paper, where a linear scale would hide them.
            level = f"--level:{100 * math.sqrt(share):.0f}%" if count else None
            cells.append(
                tag("td", f"{count:g}" if count else "", class_=style if count else "cell", style=level, title=told)
            )
        body.append(tag("tr", tag("th", names[i], scope="row"), cells))
    grid = tag("table", tag("thead", head), tag("tbody", body), class_="heat" + (" dense" if len(names) > 15 else ""))
    return tag("div", grid, class_="scroll")


def per_class(run: RunFiles) -> Markup | None:
    """Precision, recall and F1 of each class; of many classes the weakest first and the others folded away."""
    rows = [row for row in items(run.evaluation, "per_class", "evaluation.json") if isinstance(row, Mapping)]
    if not rows:
        return None
    many = len(rows) > MANY_CLASSES
    if many:
        rows.sort(key=lambda row: number(row, "f1") if math.isfinite(number(row, "f1")) else -1.0)

    def cells(row: Mapping[str, Any]) -> list[object]:
        count = number(row, "n")
        measures = [_bar(number(row, key)) for key in ("precision", "recall", "f1")]
        return [run.class_name(row.get("class", "?")), f"{count:g}" if math.isfinite(count) else "–", *measures]

    head = ("Class", "Images", "Precision", "Recall", "F1")
    if not many:
        return table(head, [cells(row) for row in rows])
    return join(
        tag("p", f"The {SHOWN_CLASSES} weakest of {len(rows)} classes.", class_="note"),
        table(head, [cells(row) for row in rows[:SHOWN_CLASSES]]),
        tag(
            "details",
            tag("summary", f"The other {len(rows) - SHOWN_CLASSES} classes"),
            table(head, [cells(row) for row in rows[SHOWN_CLASSES:]]),
        ),
    )


def _bar(share: float) -> Markup:
    if not math.isfinite(share):
        return tag("span", "–", class_="bar")
    return tag("span", percent(share), class_="bar", style=f"--level:{100 * min(max(share, 0.0), 1.0):.0f}%")


def calibration(run: RunFiles) -> Markup | None:
    """The expected calibration error and the reliability diagram."""
    ece, nll = number(run.evaluation, "ece"), number(run.evaluation, "nll")
    bins = [
        (number(b, "confidence"), number(b, "accuracy"), int(number(b, "n")))
        for b in items(run.evaluation, "reliability", "evaluation.json")
        if isinstance(b, Mapping) and math.isfinite(number(b, "n"))
    ]
    chart = reliability_chart(bins)
    if not math.isfinite(ece) and chart is None:
        return None
    lines = []
    if math.isfinite(ece):
        lines.append(
            tag(
                "p",
                f"The expected calibration error is {percent(ece, 2)}: the mean distance between how sure the network "
                "is and how often it is right, over bins of confidence, weighted by their images.",
            )
        )
    if math.isfinite(nll):
        lines.append(tag("p", f"Negative log-likelihood: {nll:.4f} nats an image."))
    if chart is not None:
        lines.append(
            tag(
                "p",
                "Points below the dashed diagonal: surer than right. Above: more often right than sure.",
                class_="note",
            )
        )
    return tag("div", chart, tag("div", lines), class_="grid beside")


def mistakes(run: RunFiles) -> Markup | None:
    """The mistakes made with the most confidence, most confident first."""
    return _gallery(run, "mistakes", by_confidence=True)


def activation_maps(run: RunFiles) -> Markup | None:
    """Examples with their class-activation maps: where the evidence for the predicted class lies."""
    gallery = _gallery(run, "examples", by_confidence=False)
    if gallery is None:
        return None
    note = (
        "Warm colours mark where the evidence for the predicted class lies (class-activation maps of the last stage)."
    )
    return join(tag("p", note, class_="note"), gallery)


def _gallery(run: RunFiles, key: str, *, by_confidence: bool) -> Markup | None:
    entries = [entry for entry in items(run.evaluation, key, "evaluation.json") if isinstance(entry, Mapping)]
    if by_confidence:
        entries.sort(
            key=lambda entry: -(number(entry, "confidence") if math.isfinite(number(entry, "confidence")) else -1.0)
        )
    cards = [_card(run, entry) for entry in entries[:SHOWN_IMAGES]]
    if not cards:
        return None
    rest = len(entries) - len(cards)
    more = tag("p", f"{rest} more stand in evaluation.json.", class_="note") if rest > 0 else None
    return join(tag("div", cards, class_="gallery"), more)


def _card(run: RunFiles, entry: Mapping[str, Any]) -> Markup:
    predicted, true = run.class_name(entry.get("predicted", "?")), run.class_name(entry.get("true", "?"))
    pictures = []
    for key, what in (("thumbnail", "image"), ("overlay", "class-activation map")):
        content = run.read(entry.get(key))
        uri = data_uri(content) if content else None
        if uri:
            pictures.append(tag("img", src=uri, alt=f"{what} of {entry.get('id', '')}", loading="lazy"))
    lines = [tag("b", predicted), tag("span", percent(number(entry, "confidence")), class_="num")]
    truth = tag("div", "is ", tag("b", true), class_="truth") if predicted != true else None
    name = entry.get("path") or entry.get("id")
    return tag(
        "figure",
        tag("div", pictures, class_="pair" if len(pictures) == 2 else "pair one") if pictures else None,
        tag(
            "figcaption", tag("div", lines, class_="said"), truth, tag("code", name) if name not in (None, "") else None
        ),
    )


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
    total = section(run.cost, "total")
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
        tag("p", f"For one input of {given}. " if given else None, note, class_="note"),
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
