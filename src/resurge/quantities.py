"""Numbers as people read them, with a narrow space before the unit, and tables in plain text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from resurge.untrusted import shown


def percent(fraction: float, digits: int = 1) -> str:
    """0.1234 as "12.3 %"; "–" when it is not a number."""
    return f"{100 * fraction:.{digits}f}\u202f%" if math.isfinite(fraction) else "–"


def quantity(value: float) -> str:
    """Three significant digits with k, M, G or T: 25557032 as "25.6 M"."""
    if not math.isfinite(value):
        return "–"
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            scaled = value / size
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}\u202f{unit}"
    return f"{value:.4g}"


def memory(size: float) -> str:
    """Bytes as "12.3 MiB"."""
    power = min(3, max(0, math.frexp(abs(size))[1] - 1) // 10)
    return f"{size / 1024**power:.{1 if power else 0}f}\u202f{('B', 'KiB', 'MiB', 'GiB')[power]}"


def duration(seconds: float) -> str:
    """Seconds as "45 s", "2 min 05 s" or "3 h 20 min"."""
    if not math.isfinite(seconds):
        return "–"
    total = round(seconds)
    if total < 60:
        return f"{total}\u202fs"
    if total < 3600:
        return f"{total // 60}\u202fmin {total % 60:02d}\u202fs"
    return f"{total // 3600}\u202fh {total % 3600 // 60:02d}\u202fmin"


def table(rows: Sequence[Sequence[str]], head: Sequence[str], align: str) -> str:
    """Columns two spaces apart, with cells that may be anybody's text; `align` has one `<` or `>` per column."""
    lines = [[shown(cell) for cell in line] for line in (head, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, align, widths, strict=True)).rstrip()
        for line in lines
    )


def number_of(count: float, one: str, many: str = "") -> str:
    """ "1 image is", "3,000 images are"; the plural of `one` is with an s unless `many` says another."""
    return f"{count:,.0f} {one if count == 1 else many or one + 's'}"


def per_second(rate: float) -> str:
    """A rate with two significant digits or more: "0.031", "4.2", "1,234"."""
    return f"{rate:,.0f}" if rate >= 9.95 or not rate else f"{rate:.2g}"


def plain_percent(share: float | None) -> str:
    """0.98765 -> `98.77 %`. Nothing for None."""
    return "" if share is None else f"{100 * share:.2f} %"


def fixed(value: float | None, digits: int) -> str:
    """A number with so many decimals. Nothing for None."""
    return "" if value is None else f"{value:.{digits}f}"
