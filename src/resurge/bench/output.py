"""The rows: as lines of a table, and in a file that grows row by row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from resurge.files import Json, atomic_write_text

Row = Json
"""One measurement, as it stands in the JSON file; docs/performance.md says what its fields mean."""

_COLUMNS = (
    ("runtime", 10, "<"), ("precision", 9, "<"), ("batch", 5, ">"), ("ratio", 7, ">"), ("quartiles", 12, ">"),
    ("images/s", 8, ">"), ("peer's", 8, ">"), ("its setting", 13, "<"), ("efficiency", 10, ">"), ("MB", 6, ">"),
    ("peer's", 6, ">"), ("load s", 6, ">"), ("peer's", 6, ">"), ("p50 ms", 7, ">"), ("p90", 7, ">"), ("p99", 7, ">"),
)  # fmt: skip


class Table:
    """Lines of one width: `head`, then a `line` per row."""

    def __init__(self, models: Sequence[str]) -> None:
        self.width = max(len(name) for name in ("model", *models))

    def head(self) -> str:
        """The names of the columns."""
        return self._cells("model", [name for name, _, _ in _COLUMNS])

    def line(self, row: Row) -> str:
        """A row; what it does not have is left blank."""
        low_high, latency = row.get("quartiles"), row.get("latency_ms") or {}
        values = [
            row["runtime"],
            row["precision"],
            f"{row['batch']}",
            _fixed(row.get("ratio"), 2, "x"),
            "" if low_high is None else f"{low_high[0]:.2f} - {low_high[1]:.2f}",
            _fixed(row["images_per_s"], 1),
            _fixed(row.get("peer_images_per_s"), 1),
            row.get("peer_setting") or "",
            _fixed(row.get("efficiency"), 2),
            _fixed(row.get("memory_mb"), 0),
            _fixed(row.get("peer_memory_mb"), 0),
            _fixed(row.get("load_s"), 2),
            _fixed(row.get("peer_load_s"), 2),
            *(_fixed(latency.get(name), 1) for name in ("p50", "p90", "p99")),
        ]
        return self._cells(row["model"], values)

    def _cells(self, model: str, values: Sequence[str]) -> str:
        cells = [f"{value:{side}{width}}" for value, (_, width, side) in zip(values, _COLUMNS, strict=True)]
        return "  ".join([f"{model:<{self.width}}", *cells]).rstrip()


def _fixed(value: float | None, digits: int, unit: str = "") -> str:
    return "" if value is None else f"{value:.{digits}f}{unit}"


@dataclass
class Rows:
    """The rows of a benchmark, written to `path` (None: nowhere) as each is added: what is interrupted keeps them.

    said: what else stands in the file, such as the settings.
    """

    path: Path | None
    machine: Mapping[str, object]
    rows: list[Row] = field(default_factory=list)
    said: Mapping[str, object] = field(default_factory=dict)

    def add(self, row: Row, line: str) -> None:
        """Keep the row, print its line."""
        self.rows.append(row)
        print(line, flush=True)
        self.write()

    def write(self) -> None:
        """Write the file as it is now."""
        if self.path is not None:
            content = {"machine": self.machine, **self.said, "rows": self.rows}
            atomic_write_text(self.path, json.dumps(content, indent=2) + "\n")
