"""`resurge bench MODEL ... --runtimes eager,onnx,openvino --precision fp32,int8`: how fast it runs, beside timm."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from resurge.bench.settings import AGAINST, PRECISIONS, RUNTIMES, YARDSTICK, Settings
from resurge.cli.options import Parser, device, one_of, whole_number
from resurge.errors import UserError

NONE = "none"
PACKAGES = ("resurge", "torch", "timm", "onnx", "onnxruntime", "openvino", "nncf")
Value = TypeVar("Value")


def add_options(parser: Parser) -> None:
    usual = Settings()
    about = "a name, the text of a spec, a folder of `resurge train` or of `resurge export`"
    parser.add_argument("models", nargs="+", metavar="MODEL", help=about)
    about = f"the other package: {', '.join(AGAINST)} (default: {usual.against})"
    parser.add_argument(
        "--against", type=one_of(AGAINST, "package to compare with"), default=usual.against, metavar="NAME", help=about
    )
    about = f"{', '.join(RUNTIMES)}, with commas between (default: {','.join(usual.runtimes)}; compile takes minutes)"
    parser.add_argument(
        "--runtimes", type=listed(one_of(RUNTIMES, "runtime")), default=usual.runtimes, metavar="A,B", help=about
    )
    about = f"{', '.join(PRECISIONS)}, with commas between (default: {','.join(usual.precisions)})"
    parser.add_argument(
        "--precision", type=listed(one_of(PRECISIONS, "precision")), default=usual.precisions, metavar="A,B", help=about
    )
    about = f"images at a time (default: {','.join(map(str, usual.batches))})"
    parser.add_argument("--batch", type=listed(whole_number(1)), default=usual.batches, metavar="N,M", help=about)
    about = "side of the images, pixels (default: what each network is made for)"
    parser.add_argument("--size", type=whole_number(1), metavar="N", help=about)
    about = f"in each, ours and every setting of the peer run in turn (default: {usual.rounds})"
    parser.add_argument("--rounds", type=whole_number(1), default=usual.rounds, metavar="N", help=about)
    about = "threads of the arithmetic, for both (default: as many as torch takes)"
    parser.add_argument("--threads", type=whole_number(1), metavar="N", help=about)
    about = "cpu, or cuda for eager and compile (default: cpu)"
    parser.add_argument("--device", type=device, default=usual.device, metavar="NAME", help=about)
    about = "pictures that int8 is calibrated on, on both sides (default: a run's own data; patterns for a network by "
    parser.add_argument("--calibrate", metavar="DIR", help=about + "name)")
    about = f"the network that efficiency is counted against, or {NONE} (default: {YARDSTICK})"
    parser.add_argument("--yardstick", default=YARDSTICK, metavar="MODEL", help=about)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows, and what they were measured on")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the rows to FILE.svg or FILE.png")
    parser.epilog = (
        "ratio: time of the peer's best setting / our time, above 1 ours is faster: median over the rounds, and its "
        "quartiles.\nefficiency: images/s times multiply-adds, against the yardstick in the same runtime and "
        "precision.\nMB, load s: what loading and a first answer add to the process, and how long they take.\n"
        "p50, p90, p99: milliseconds of single runs at batch 1. docs/performance.md says more."
    )


def listed(kind: Callable[[str], Value]) -> Callable[[str], tuple[Value, ...]]:
    """An argparse `type`: values with commas between them, each once."""

    def check(word: str) -> tuple[Value, ...]:
        parts = [part.strip() for part in word.split(",")]
        if not all(parts):
            raise argparse.ArgumentTypeError(f"expected values with commas between them, got {word!r}")
        return tuple(dict.fromkeys(kind(part) for part in parts))

    return check


def run(options: argparse.Namespace) -> int:
    settings = Settings(
        runtimes=options.runtimes,
        precisions=options.precision,
        batches=options.batch,
        size=options.size,
        against=options.against,
        rounds=options.rounds,
        threads=options.threads,
        device=options.device,
        pictures=options.calibrate,
        yardstick=None if options.yardstick == NONE else options.yardstick,
    )
    models = list(dict.fromkeys(options.models))
    _check_files(options)
    from resurge.bench.measuring import Bench
    from resurge.bench.output import Rows, Table
    from resurge.bench.plot import plot
    from resurge.bench.subjects import check_word
    from resurge.machine import described

    for model in (*models, *([settings.yardstick] if settings.yardstick else [])):
        check_word(model)  # all of them, before minutes are spent on the first
    table = Table(models)
    with Bench(settings, lambda line: _say(f"{line} …")) as bench:
        for line in settings.left_out():
            _say(line)
        rows = Rows(options.json, described(*PACKAGES), said={"settings": dataclasses.asdict(settings)})
        print(table.head(), flush=True)
        for model in models:
            for row in bench.rows(model):
                rows.add(row, table.line(row))
                _note(row["notes"])
    if options.plot is not None:
        plot(rows.rows, options.plot)
    return 0


def _check_files(options: argparse.Namespace) -> None:
    """Raises UserError for what could not be written after all has been measured."""
    if options.plot is not None:
        from resurge.bench.plot import check_plot

        check_plot(options.plot)
    for path in (options.json, options.plot):
        if path is not None and path.is_dir():
            raise UserError(f"{path} is a folder; expected the name of a file.")


def _note(notes: Sequence[str]) -> None:
    for note in notes:
        _say(f"note: {note}")


def _say(line: str) -> None:
    print(f"resurge: {line}", file=sys.stderr, flush=True)
