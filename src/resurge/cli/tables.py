"""Plain-text tables and JSON on standard output."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any


def table(rows: Sequence[Sequence[str]], head: Sequence[str], align: str) -> str:
    """Columns two spaces apart; `align` has one `<` or `>` a column."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, align, widths, strict=True)).rstrip()
        for line in lines
    )


def amount(value: float | None, digits: int = 3) -> str:
    """12 345 678 -> `12.3M`: three significant digits with K, M, G or T. Nothing for None."""
    if value is None:
        return ""
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= factor * 0.9995:
            return f"{_significant(value / factor, digits)}{letter}"
    return f"{value:g}"


def _significant(value: float, digits: int) -> str:
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 1
    return f"{value:.{max(0, digits - whole)}f}"


def memory(size: float | None) -> str:
    """Bytes as `12.3 MiB`. Nothing for None."""
    if size is None:
        return ""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{_significant(size, 3)} {unit}"
        size /= 1024
    return f"{_significant(size, 3)} GiB"


def percent(share: float | None) -> str:
    """0.98765 -> `98.77 %`. Nothing for None."""
    return "" if share is None else f"{100 * share:.2f} %"


def fixed(value: float | None, digits: int) -> str:
    """A number with so many decimals. Nothing for None."""
    return "" if value is None else f"{value:.{digits}f}"


def print_json(value: Any) -> None:
    """Indented, in the order given. Not-a-number and infinity, which JSON has not, become null."""
    print(json.dumps(_finite(value), indent=2, ensure_ascii=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
