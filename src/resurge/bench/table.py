"""The rows as text, each as it comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

_COLUMNS = (
    ("precision", 9, "<"),
    ("batch", 5, ">"),
    ("ratio", 7, ">"),
    ("quartiles", 12, ">"),
    ("images/s", 8, ">"),
    ("peer's", 8, ">"),
    ("its setting", 13, "<"),
    ("efficiency", 10, ">"),
    ("MB", 6, ">"),
    ("peer's", 6, ">"),
    ("load s", 6, ">"),
    ("peer's", 6, ">"),
    ("p50 ms", 7, ">"),
    ("p90", 7, ">"),
    ("p99", 7, ">"),
)
RUNTIME = 10


class Table:
    """Lines of one width: `head`, then a `line` a row."""

    def __init__(self, models: Sequence[str]) -> None:
        self.width = max(len(name) for name in ("model", *models))

    def head(self) -> str:
        """The names of the columns."""
        cells = [f"{'model':<{self.width}}", f"{'runtime':<{RUNTIME}}"]
        return "  ".join([*cells, *(f"{name:{side}{width}}" for name, width, side in _COLUMNS)]).rstrip()

    def line(self, row: Row) -> str:
        """A row; what it has not is left open."""
        quartiles, latency = row.get("quartiles"), row.get("latency_ms") or {}
        values = (
            row["precision"],
            f"{row['batch']}",
            _fixed(row.get("ratio"), 2, "x"),
            "" if quartiles is None else f"{quartiles[0]:.2f} - {quartiles[1]:.2f}",
            _fixed(row["images_per_s"], 1),
            _fixed(row.get("peer_images_per_s"), 1),
            row.get("peer_setting") or "",
            _fixed(row.get("efficiency"), 2),
            _fixed(row.get("memory_mb"), 0),
            _fixed(row.get("peer_memory_mb"), 0),
            _fixed(row.get("load_s"), 2),
            _fixed(row.get("peer_load_s"), 2),
            *(_fixed(latency.get(name), 1) for name in ("p50", "p90", "p99")),
        )
        cells = [f"{row['model']:<{self.width}}", f"{row['runtime']:<{RUNTIME}}"]
        cells += [f"{value:{side}{width}}" for value, (_, width, side) in zip(values, _COLUMNS, strict=True)]
        return "  ".join(cells).rstrip()


def _fixed(value: Any, digits: int, unit: str = "") -> str:
    return "" if value is None else f"{value:.{digits}f}{unit}"
