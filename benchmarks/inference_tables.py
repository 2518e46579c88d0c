"""The tables of docs/performance.md from what benchmarks/inference.py measured, as Markdown.

python benchmarks/inference_tables.py                      # benchmarks/results/inference.json
python benchmarks/inference_tables.py --batch 1 --json mine.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "inference.json"
RUNTIMES = ("eager", "compile", "onnx", "openvino")
PRECISIONS = ("fp32", "bf16", "int8")
Row = dict[str, Any]


def tables(rows: Sequence[Row], batch: int) -> str:
    """Our fastest runtime against the peer's fastest, then ratio and efficiency in each runtime, at one batch size."""
    here = [row for row in rows if row.get("batch") == batch and row["runtime"] != "decisions"]
    across = [("best", precision) for precision in PRECISIONS] + [("plain", "bf16")]
    within = [(runtime, precision) for precision in PRECISIONS for runtime in RUNTIMES]
    parts = [
        (
            "our fastest runtime against the peer's fastest (last column: ours in bf16 against eager fp32)",
            across,
            _best,
        ),
        ("ratio in the same runtime", within, lambda row: _figure(row["ratio"])),
        ("efficiency", within, lambda row: _figure(row["efficiency"])),
    ]
    return "\n\n".join(f"Batch {batch}, {title}:\n\n{_table(here, columns, say)}" for title, columns, say in parts)


def _table(rows: Sequence[Row], columns: Sequence[tuple[str, str]], say: Callable[[Row], str]) -> str:
    cells = {(row["model"], row["runtime"], row["precision"]): say(row) for row in rows}
    present = [column for column in columns if any(key[1:] == column for key in cells)]
    lines = [
        "| network | " + " | ".join(" ".join(column) for column in present) + " |",
        "|---" * (len(present) + 1) + "|",
    ]
    for model in dict.fromkeys(row["model"] for row in rows):
        lines.append(f"| `{model}` | " + " | ".join(cells.get((model, *column), "") for column in present) + " |")
    return "\n".join(lines)


def _best(row: Row) -> str:
    low, high = row["quartiles"]
    return f"{row['ratio']:.2f}x ({low:.2f} to {high:.2f})"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, default=RESULT, help="default: %(default)s")
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 1])
    args = parser.parse_args()
    rows = json.loads(args.json.read_text(encoding="utf-8"))["rows"]
    print("\n\n".join(tables(rows, batch) for batch in args.batch))


if __name__ == "__main__":
    main()
