"""What the sections of the report are put together from: tables, bars, tiles, and the heat table of a confusion."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from resurge.report.markup import Markup, join, percent, tag
from resurge.report.run_files import RunFiles, items, number

MANY_CLASSES = 30
SHOWN_CLASSES = 15
SHOWN_PAIRS = 10


def table(head: Sequence[str], rows: Sequence[Sequence[object]], *, text_columns: int = 1) -> Markup:
    """A table whose first `text_columns` columns are text and the others numbers, in a box that scrolls sideways."""

    def style(column: int) -> str | None:
        return None if column < text_columns else "num"

    heading = tag("tr", [tag("th", name, class_=style(i), scope="col") for i, name in enumerate(head)])
    body = [tag("tr", [tag("td", join(_child(cell)), class_=style(i)) for i, cell in enumerate(row)]) for row in rows]
    return tag("div", tag("table", tag("thead", heading), tag("tbody", body)), class_="scroll")


def _child(cell: object) -> str | None:
    return cell if isinstance(cell, str) or cell is None else str(cell)


def tile(label: str, value: str, *notes: str | None, main: bool = False) -> Markup:
    lines = [tag("small", note) for note in notes if note]
    return tag("div", tag("span", label), tag("strong", value), lines, class_="tile main" if main else "tile")


def bar(share: float) -> Markup:
    """A share as text on a bar of that length."""
    if not math.isfinite(share):
        return tag("span", "–", class_="bar")
    return tag("span", percent(share), class_="bar", style=f"--level:{100 * min(max(share, 0.0), 1.0):.0f}%")


def class_table(
    rows: Sequence[Mapping[str, Any]], key: str, head: Sequence[str], cells: Callable[[Mapping[str, Any]], list[object]]
) -> Markup:
    """A row a class as `cells` writes it; of many classes those with the lowest `key` first, the others folded away."""
    if len(rows) <= MANY_CLASSES:
        return table(head, [cells(row) for row in rows])
    rows = sorted(rows, key=lambda row: number(row, key) if math.isfinite(number(row, key)) else -1.0)
    return join(
        tag("p", f"The {SHOWN_CLASSES} weakest of {len(rows)} classes.", class_="note"),
        table(head, [cells(row) for row in rows[:SHOWN_CLASSES]]),
        tag(
            "details",
            tag("summary", f"The other {len(rows) - SHOWN_CLASSES} classes"),
            table(head, [cells(row) for row in rows[SHOWN_CLASSES:]]),
        ),
    )


def confusion_tables(run: RunFiles, unit: str, none_wrong: str, *, shares: bool = False) -> Markup | None:
    """The confusion matrix of up to MANY_CLASSES classes, and the pairs most often confused.

    `unit` is what is counted ("Images"); with `shares` the cells hold percent of the row instead of counts.
    """
    matrix = _matrix(run)
    if not matrix:
        return None
    names = [run.class_name(i) for i in range(len(matrix))]
    parts: list[Markup | None] = []
    if len(matrix) <= MANY_CLASSES:
        parts.append(_heat_table(matrix, names, shares))
    pairs = sorted(
        ((count, i, j) for i, row in enumerate(matrix) for j, count in enumerate(row) if i != j and count > 0),
        key=lambda pair: (-pair[0], pair[1], pair[2]),
    )
    if pairs:
        rows = [
            (names[i], names[j], f"{count:,.0f}" if shares else f"{count:g}", percent(count / (sum(matrix[i]) or 1)))
            for count, i, j in pairs[:SHOWN_PAIRS]
        ]
        pairs_table = table(("Is", "Taken for", unit, "Of its class"), rows, text_columns=2)
        parts.append(tag("div", tag("h3", "Most confused"), pairs_table))
    else:
        parts.append(tag("p", none_wrong, class_="note"))
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


def _heat_table(matrix: Sequence[Sequence[float]], names: Sequence[str], shares: bool) -> Markup:
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
            text = f"{100 * share:.0f}" if shares else f"{count:g}"
            told = f"{names[i]} taken for {names[j]}: {count:g} of {total:g} ({percent(share)})"
            # The square root lifts single confusions above the paper, where a linear scale would hide them.
            level = f"--level:{100 * math.sqrt(share):.0f}%" if count else None
            cells.append(tag("td", text if count else "", class_=style if count else "cell", style=level, title=told))
        body.append(tag("tr", tag("th", names[i], scope="row"), cells))
    grid = tag("table", tag("thead", head), tag("tbody", body), class_="heat" + (" dense" if len(names) > 15 else ""))
    return tag("div", grid, class_="scroll")
