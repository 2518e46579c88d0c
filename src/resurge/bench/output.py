"""The rows: as lines of a table, in a file that grows row by row, and as charts by matplotlib."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from resurge.errors import UserError
from resurge.files import MARK, Json, atomic_write_bytes, atomic_write_text, require_free
from resurge.quantities import fixed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS = '{\n  "machine": {'
"""How a file of rows begins."""
Row = Json
"""One measurement, as it stands in the JSON file; docs/performance.md explains its fields."""

_COLUMNS = (
    ("runtime", 10, "<"), ("precision", 9, "<"), ("batch", 5, ">"), ("ratio", 7, ">"), ("quartiles", 12, ">"),
    ("images/s", 8, ">"), ("peer's", 8, ">"), ("its setting", 13, "<"), ("efficiency", 10, ">"), ("MB", 6, ">"),
    ("peer's", 6, ">"), ("load s", 6, ">"), ("peer's", 6, ">"), ("p50 ms", 7, ">"), ("p90", 7, ">"), ("p99", 7, ">"),
)  # fmt: skip
_NUMBERS = (
    ("images_per_s", 1), ("peer_images_per_s", 1), ("efficiency", 2), ("memory_mb", 0), ("peer_memory_mb", 0),
    ("load_s", 2), ("peer_load_s", 2),
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
        quartiles, latency = row.get("quartiles") or (), row.get("latency_ms") or {}
        ratio = fixed(row.get("ratio"), 2)
        ours, theirs, *rest = (
            f"{row[name]:.2g}" if digits == 1 and 0 < (row.get(name) or 0) < 1 else fixed(row.get(name), digits)
            for name, digits in _NUMBERS
        )
        spread = " - ".join(fixed(value, 2) for value in quartiles)
        values = [row["runtime"], row["precision"], f"{row['batch']}", ratio and f"{ratio}x", spread, ours, theirs]
        values += [row.get("peer_setting") or "", *rest]
        values += [fixed(latency.get(name), 1) for name in ("p50", "p90", "p99")]
        return self._cells(row["model"], values)

    def _cells(self, model: str, values: Sequence[str]) -> str:
        cells = [f"{value:{side}{width}}" for value, (_, width, side) in zip(values, _COLUMNS, strict=True)]
        return "  ".join([f"{model:<{self.width}}", *cells]).rstrip()


@dataclass
class Rows:
    """The rows of a benchmark, written to `path` (None: nowhere) as each is added: what is interrupted keeps them.

    about: what else stands in the file, such as the settings.
    """

    path: Path | None
    machine: Mapping[str, object]
    rows: list[Row] = field(default_factory=list)
    about: Mapping[str, object] = field(default_factory=dict)

    def add(self, row: Row, line: str) -> None:
        """Keep the row, print its line."""
        self.rows.append(row)
        print(line, flush=True)
        self.write()

    def write(self) -> None:
        """Write the file as it is now."""
        if self.path is not None:
            content = {"machine": self.machine, **self.about, "rows": self.rows}
            # the scripts in benchmarks/ go on with a file that they have read, however it is laid out
            atomic_write_text(self.path, json.dumps(content, indent=2) + "\n", '"machine": ')


def check_plot(path: str | Path) -> None:
    """Raises UserError for a file that `plot` would not write, and where matplotlib is not installed."""
    require_free(path)
    if Path(path).suffix.lower() not in (".svg", ".png"):
        raise UserError(f"a plot is written as .svg or .png, got {Path(path).name!r}. Give a name with one of these.")
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("matplotlib is needed to draw and is not installed: pip install 'resurge[bench]'")


def plot(rows: Sequence[Row], path: str | Path) -> Path:
    """Draw the rows into an .svg or .png; of several batch sizes the largest.

    Ours are filled, the best setting of the baseline is hollow, joined by a line. On the left the dashed curve is the
    speed that the yardstick's multiply-adds stand for: a network above it is faster than its multiply-adds say.

    Raises:
        UserError: there is nothing to draw, another suffix, matplotlib is not installed, or the file cannot be written.
    """
    check_plot(path)
    if not rows:
        raise UserError("there is no row to draw.")
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    batch = max(row["batch"] for row in rows)
    rows = [row for row in rows if row["batch"] == batch]
    marks = {name: str(index) for index, name in enumerate(dict.fromkeys(row["model"] for row in rows), 1)}
    known = [row for row in rows if row.get("top1") is not None]
    figure = Figure(figsize=(12 if known else 6.5, 5), layout="constrained")
    speed, *accuracy = figure.subplots(1, 2 if known else 1, squeeze=False)[0]
    _points(speed, rows, marks, lambda row, value: (row["gmacs"], value))
    speed.set(xlabel="billions of multiply-adds per image", ylabel=f"images/s at batch {batch}")
    low, high = speed.get_xlim()
    for row in {_series(row): row for row in rows if row.get("efficiency")}.values():
        gmacs = np.linspace(max(low, 1e-9), high, 50)
        worth = row["images_per_s"] * row["gmacs"] / row["efficiency"] / gmacs
        speed.plot(gmacs, worth, linestyle="--", linewidth=0.8, scalex=False, scaley=False)
    speed.set_ylim(bottom=0)
    for axes in accuracy:
        _points(axes, known, marks, lambda row, value: (value, row["top1"]))
        axes.set(xlabel=f"images/s at batch {batch}", ylabel="published top-1, %")
        axes.set_xlim(left=0)
    legend = [f"{mark} {name}" for name, mark in marks.items()]
    if any(row.get("peer_images_per_s") for row in rows):
        legend.append("filled: ours, hollow: the best setting of the peer")
    figure.supxlabel("   ".join(legend), fontsize="small")
    speed.legend()
    content, format = BytesIO(), Path(path).suffix.lower()[1:]
    with rc_context({"svg.fonttype": "none"}):  # text stays text
        figure.savefig(content, format=format, metadata={"Creator" if format == "svg" else "Software": MARK})
    atomic_write_bytes(path, content.getvalue())
    return Path(path)


def _series(row: Row) -> str:
    return f"{row['runtime']} {row['precision']}"


def _points(
    axes: Axes, rows: Sequence[Row], marks: dict[str, str],
    point: Callable[[Row, float], tuple[float, float]],
) -> None:  # fmt: skip
    for number, name in enumerate(dict.fromkeys(map(_series, rows))):
        colour = f"C{number}"
        for row in (row for row in rows if _series(row) == name):
            own, theirs = point(row, row["images_per_s"]), row.get("peer_images_per_s")
            if theirs:
                other = point(row, theirs)
                axes.plot(*zip(own, other, strict=True), color=colour, linewidth=0.8, zorder=1)
                axes.scatter(*other, facecolors="white", edgecolors=colour, zorder=2)
            axes.scatter(*own, color=colour, label=name, zorder=2)
            axes.annotate(marks[row["model"]], own, xytext=(5, 5), textcoords="offset points", fontsize="small")
            name = "_nolegend_"
    axes.grid(alpha=0.3)
