"""Tables in plain text."""

from __future__ import annotations

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]], head: Sequence[str], align: str) -> str:
    """Columns two spaces apart; `align` has one `<` or `>` a column."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, align, widths, strict=True)).rstrip()
        for line in lines
    )


def percent(share: float | None) -> str:
    """0.98765 -> `98.77 %`. Nothing for None."""
    return "" if share is None else f"{100 * share:.2f} %"


def fixed(value: float | None, digits: int) -> str:
    """A number with so many decimals. Nothing for None."""
    return "" if value is None else f"{value:.{digits}f}"
