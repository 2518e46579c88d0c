"""The family against timm, in every runtime and precision: speed, efficiency, and what was aimed at.

    python benchmarks/inference.py                            # the table of docs/performance.md, row by row; goes on
    python benchmarks/inference.py --only resnest50:int8:8    # a part of it: network, precision, batch
    python benchmarks/inference.py --fresh --rounds 15        # everything anew
    python benchmarks/inference.py --photos imagenette/ --run runs/photos    # also: are the decisions the same?

The code is that of `resurge bench`; docs/performance.md says what the columns mean. Beside the rows of each runtime
there is one for each network, precision and batch, `best`: our fastest runtime against timm's fastest at the same
precision; and in bf16 another, `plain`: our fastest runtime against timm in eager fp32 as it comes. Both run in turn.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from across import agreement, best_row, configuration_of, fastest, plain_row

import resurge
from resurge.bench.measuring import Bench
from resurge.bench.output import Row, Rows, Table
from resurge.bench.settings import Settings
from resurge.bench.subjects import Subject, open_subject
from resurge.errors import UserError
from resurge.machine import described as machine

# the yardstick of the efficiencies first
NETWORKS = (
    "resnet50d",
    "resnet50",
    "resnext50_32x4d",
    "seresnext50_32x4d",
    "skresnext50_32x4d",
    "res2net50_26w_4s",
    "resnest50",
)
PRECISIONS = ("fp32", "bf16", "int8")
ATTENTION = {"fp32": 1.15, "bf16": 1.3, "int8": 1.6}
GROUPED = dict.fromkeys(PRECISIONS, 1.1)
PLAIN = dict.fromkeys(PRECISIONS, 1.0)
RATIOS = {
    "resnet50d": PLAIN,
    "resnet50": PLAIN,
    "resnext50_32x4d": GROUPED,
    "seresnext50_32x4d": GROUPED,
    "skresnext50_32x4d": ATTENTION,
    "res2net50_26w_4s": GROUPED,
    "resnest50": ATTENTION,
}
"""Times of timm's fastest / ours to reach, each in its own fastest runtime at the precision."""
EFFICIENCIES = {"fp32": 0.95, "bf16": 0.95, "int8": 0.85}
"""Against resnet50d in the same runtime and precision."""
PLAIN_EAGER = {"resnest50": 4.0}
"""bf16 against timm in eager fp32."""
SAME_DECISIONS = 0.995
RESULT = Path(__file__).parent / "results" / "inference.json"
PACKAGES = ("resurge", "torch", "timm", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf")


def wanted_part(word: str) -> tuple[str, str | None, int | None]:
    """An argparse `type`: NETWORK, NETWORK:PRECISION or NETWORK:PRECISION:BATCH; `all` for every network."""
    name, precision, batch, *more = (*word.split(":"), *[""] * 2)
    if name not in (*NETWORKS, "all") or precision not in ("", *PRECISIONS) or any(more):
        raise argparse.ArgumentTypeError(f"expected NETWORK[:PRECISION[:BATCH]], got {word!r}")
    if batch and not batch.isdigit():
        raise argparse.ArgumentTypeError(f"expected a batch size, got {batch!r}")
    return name, precision or None, int(batch) if batch else None


def groups(args: argparse.Namespace) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Each network with the precisions and batch sizes that are asked for of it."""
    for name in NETWORKS:
        chosen = [
            (precision, batch)
            for batch in args.batch
            for precision in args.precision
            if any(
                only in (name, "all") and part in (precision, None) and count in (batch, None)
                for only, part, count in args.only
            )
        ]
        if chosen:
            yield name, chosen


def code_hash() -> str:
    """Of the code that decides how our networks run, and how they are timed."""
    root = Path(resurge.__file__).parent
    parts = ("arch", "bench", "export", "infer", "optimize")
    files = sorted(path for name in parts for path in (root / name).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def open_rows(path: Path, fresh: bool, on: dict[str, Any]) -> Rows:
    """The rows that are there already, if they were measured with the same versions on the same machine."""
    rows = Rows(path, on)
    if fresh or not path.is_file():
        return rows
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        if before["machine"] == on:
            rows.rows = list(before["rows"])
            print(f"{len(rows.rows)} rows are there; those of this code are not measured again.", file=sys.stderr)
        else:
            changed = [key for key in on if before["machine"].get(key) != on[key]]
            print(f"the rows that are there are of another {', '.join(changed)}: measured again.", file=sys.stderr)
    except (ValueError, KeyError, TypeError) as error:
        raise SystemExit(
            f"{path} is not what this script wrote ({error}). Remove it or name another with --json."
        ) from None
    return rows


class Session:
    """Measures what is not there yet. code: the hash of `code_hash`, which each row keeps."""

    def __init__(self, bench: Bench, rows: Rows, table: Table, code: str) -> None:
        self.bench, self.rows, self.table, self.code = bench, rows, table, code

    def measure(self, name: str, parts: Sequence[tuple[str, int]]) -> None:
        """All rows of a network."""
        subject: Subject | None = None
        for precision, batch in parts:
            cells = [
                cell
                for cell in self.bench.settings.configurations()
                if (cell.precision, cell.batch) == (precision, batch)
            ]
            kinds = [cell.runtime for cell in cells] + ["best"] + (["plain"] if precision == "bf16" else [])
            if all(self.find(name, kind, precision, batch) for kind in kinds):
                continue
            subject = subject or open_subject(name, self.bench.settings.size)
            for cell in cells:
                if self.find(name, cell.runtime, precision, batch) is None:
                    self.keep(self.bench.row(subject, cell))
            found = [row for row in (self.find(name, cell.runtime, precision, batch) for cell in cells) if row]
            makers = {"best": best_row, "plain": plain_row}
            for kind in kinds[len(cells) :]:
                row = None if self.find(name, kind, precision, batch) else makers[kind](self.bench, subject, found)
                if row is not None:
                    self.keep(row)
        if subject is not None:
            self.bench.forget(subject)

    def find(self, name: str, kind: str, precision: str, batch: int) -> Row | None:
        """A row that is there, measured with the same settings and code."""
        settings = self.bench.settings
        for row in self.rows.rows:
            what = tuple(row.get(key) for key in ("model", "runtime", "precision", "batch"))
            how = tuple(row.get(key) for key in ("size", "threads", "device", "rounds", "code"))
            same = (settings.size, self.bench.threads, self.bench.device.type, settings.rounds, self.code)
            if what == (name, kind, precision, batch) and how == same:
                return row
        return None

    def keep(self, row: Row) -> None:
        """Write the row down, in place of one that was measured otherwise, and print it."""
        known = ("model", "runtime", "precision", "batch", "size", "threads", "device")
        same = [row.get(key) for key in known]
        self.rows.rows = [each for each in self.rows.rows if [each.get(key) for key in known] != same]
        self.rows.add({**row, "code": self.code}, self.table.line(row))
        for note in row["notes"]:
            print(f"    {note}", file=sys.stderr)


def judged(rows: Sequence[Row]) -> list[tuple[str, str, float, float]]:
    """(network, what, measured, aim) of every figure that there is an aim for."""
    found = []
    for row in rows:
        name, precision, kind = row["model"], row.get("precision", ""), row["runtime"]
        where = f"{precision} batch {row.get('batch')}"
        efficiency = row.get("efficiency") if name != NETWORKS[0] else None  # the yardstick against itself says nothing
        if kind == "best":
            runtimes = f"{row['our_runtime']} against {row['peer_runtime']} {row['peer_setting']}"
            found.append((name, f"ratio, {where}: {runtimes}", row["ratio"], RATIOS[name][precision]))
            if efficiency is not None:
                what = f"efficiency, {where}: {row['our_runtime']}"
                found.append((name, what, efficiency, EFFICIENCIES[precision]))
        elif kind == "plain" and name in PLAIN_EAGER:
            found.append((name, f"ratio to eager fp32, {where}: {row['our_runtime']}", row["ratio"], PLAIN_EAGER[name]))
        elif kind == "decisions":
            what = f"same decisions, {precision}: {row['same']} of {row['pictures']}"
            found.append((name, what, row["agreement"], SAME_DECISIONS))
        elif efficiency is not None:
            found.append((name, f"efficiency, {where}: {kind}", efficiency, EFFICIENCIES[precision]))
    return list(dict.fromkeys(found))


def print_aims(rows: Sequence[Row]) -> None:
    """Every figure with an aim, and whether it is met."""
    lines = judged(rows)
    width = max((len(what) for _, what, _, _ in lines), default=0)
    print(f"\n{'network':<19}  {'what':<{width}}  measured     aim")
    for name, what, measured, aim in lines:
        print(f"{name:<19}  {what:<{width}}  {measured:>8.3f}  {aim:>6.3f}  {'' if measured >= aim else 'not reached'}")
    print(f"{sum(measured >= aim for _, _, measured, aim in lines)} of {len(lines)} aims are met")
    of_code = Counter(row.get("code") for row in rows)
    if len(of_code) > 1:
        print(
            f"the rows are of {len(of_code)} states of the code: {', '.join(f'{n} of {c}' for c, n in of_code.items())}"
        )


def decisions(bench: Bench, rows: Rows, args: argparse.Namespace) -> None:
    """Are the decisions on photographs those of the network in eager fp32?"""
    word = args.run or "resnest50"
    subject = open_subject(word, None if args.run else args.size)
    measured = [row for row in rows.rows if row["precision"] == "bf16" and row["runtime"] not in ("plain", "decisions")]
    known = [row for row in measured if row["model"] == "resnest50"]
    cells = list(bench.settings.configurations())
    cell = (
        configuration_of(fastest(known))
        if known
        else next((cell for cell in cells if cell.precision == "bf16"), cells[0])
    )
    found = {**agreement(bench, subject, cell, args.photos, args.photos_limit or None), "runtime": "decisions"}
    found |= {"our_runtime": cell.runtime, "model": "resnest50" if not args.run else str(subject.run.spec)}
    found["code"] = code_hash()
    rows.rows = [row for row in rows.rows if row["runtime"] != "decisions"]
    weights = "random weights: near ties are common" if found["random_weights"] else "trained weights"
    rows.add(found, f"\nsame decisions: {found['same']} of {found['pictures']} ({found['model']}, {weights})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", nargs="+", type=wanted_part, default=[("all", None, None)], metavar="NETWORK[:PRECISION[:BATCH]]",
        help=f"of {', '.join(NETWORKS)}, all",
    )  # fmt: skip
    parser.add_argument("--precision", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--runtimes", nargs="+", default=["eager", "onnx", "openvino"], help="also: compile (slow)")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="default: as many as torch takes")
    parser.add_argument("--device", default="cpu", help="cuda: eager and compiled, bf16 and fp32")
    parser.add_argument("--calibrate", help="pictures for int8, on both sides (default: --photos, or patterns)")
    parser.add_argument("--photos", help="a folder of photographs: compare the decisions of bf16 on them")
    parser.add_argument("--photos-limit", type=int, default=500, help="photographs at most; 0 for all (default: 500)")
    parser.add_argument("--run", help="a trained run whose weights decide on the photographs (default: random ones)")
    parser.add_argument("--fresh", action="store_true", help="measure again what is there")
    parser.add_argument("--json", type=Path, default=RESULT)
    args = parser.parse_args()
    if args.device != "cpu":
        if not torch.cuda.is_available():
            print("no CUDA device that torch can use: nothing was measured.")
            return
        args.runtimes = [runtime for runtime in ("eager", "compile") if runtime in args.runtimes] or ["eager"]
        args.precision = [precision for precision in args.precision if precision != "int8"]
    settings = Settings(
        runtimes=tuple(args.runtimes), precisions=tuple(args.precision), batches=tuple(args.batch), size=args.size,
        rounds=args.rounds, threads=args.threads, device=args.device, pictures=args.calibrate or args.photos,
        latencies=50, yardstick=NETWORKS[0],
    )  # fmt: skip
    try:
        table = Table([name for name, _ in groups(args)])
        with Bench(settings) as bench:
            rows = open_rows(args.json, args.fresh, machine(*PACKAGES))
            print(table.head(), flush=True)
            session = Session(bench, rows, table, code_hash())
            for name, parts in groups(args):
                session.measure(name, parts)
            if args.photos:
                decisions(bench, rows, args)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    print_aims(rows.rows)


if __name__ == "__main__":
    main()
