"""`resurge bench MODEL ... --runtimes eager,onnx,openvino --precision fp32,int8`: how fast it runs, beside timm."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from resurge.bench.settings import AGAINST, PRECISIONS, RUNTIMES, YARDSTICK, Settings
from resurge.cli.options import COUNT, DEVICE, Parser, add, as_is, given, log, one_of, whole_number
from resurge.files import require_apart, require_free

NONE = "none"
PACKAGES = ("resurge", "torch", "timm", "onnx", "onnxruntime", "openvino", "nncf")
Value = TypeVar("Value")


def add_options(parser: Parser) -> None:
    usual = Settings()
    about = "a name, the text of a spec, a folder of `resurge train` or of `resurge export`"
    add(parser, "models", "MODEL", about, nargs="+")
    against = (one_of(AGAINST), "NAME")
    add(parser, "--against", against, f"the other package: {', '.join(AGAINST)}", usual.against)
    about = f"{', '.join(RUNTIMES)}, with commas between (default: {as_is(usual.runtimes)}; compile takes minutes)"
    add(parser, "--runtimes", (listed(one_of(RUNTIMES)), "A,B"), about)
    precision, about = listed(one_of(PRECISIONS)), f"{', '.join(PRECISIONS)}, with commas between"
    add(parser, "--precision", (precision, "A,B"), about, usual.precisions, dest="precisions")
    batch = (listed(whole_number(1)), "N,M")
    add(parser, "--batch", batch, "images at a time", usual.batches, dest="batches")
    add(parser, "--size", COUNT, "side of the images, pixels (default: what each network is made for)")
    add(parser, "--rounds", COUNT, "in each, ours and every setting of the peer run in turn", usual.rounds)
    add(parser, "--threads", COUNT, "threads of the arithmetic, for both (default: as many as torch takes)")
    add(parser, "--device", DEVICE, "cpu, or cuda for eager and compile", usual.device)
    about = "pictures that int8 is calibrated on, on both sides (default: a run's own data; patterns for a network by "
    add(parser, "--calibrate", "DIR", about + "name)", dest="pictures")
    add(parser, "--yardstick", "MODEL", f"the network that efficiency is counted against, or {NONE}", YARDSTICK)
    add(parser, "--json", (Path, "FILE"), "write the rows, and what they were measured on")
    add(parser, "--plot", (Path, "FILE"), "draw the rows to FILE.svg or FILE.png")
    parser.epilog = (
        "ratio: time of the peer's best setting / our time, above 1 ours is faster: median over the rounds, and its "
        "quartiles.\nefficiency: images/s times multiply-adds, against the yardstick in the same runtime and "
        "precision.\nMB, load s: what loading and a first result add to the process, and how long they take.\n"
        "p50, p90, p99: milliseconds of single runs at batch 1. docs/performance.md says more."
    )


def listed(kind: Callable[[str], Value]) -> Callable[[str], tuple[Value, ...]]:
    """Reads values with commas between them, each once."""

    def check(word: str) -> tuple[Value, ...]:
        parts = [part.strip() for part in word.split(",")]
        if not all(parts):
            raise argparse.ArgumentTypeError(f"expected values with commas between them, got {word!r}")
        return tuple(dict.fromkeys(kind(part) for part in parts))

    return check


def run(options: argparse.Namespace) -> int:
    settings = Settings(
        **given(options, [field.name for field in dataclasses.fields(Settings) if field.name in options])
    )
    if options.yardstick == NONE:
        settings = dataclasses.replace(settings, yardstick=None)
    models = list(dict.fromkeys(options.models))
    from resurge.bench.output import ROWS, check_plot

    # found now, and not after all has been measured
    if options.json is not None:
        require_apart(options.json, (options.pictures,), "--json")
        require_free(options.json, ROWS)
    if options.plot is not None:
        require_apart(options.plot, (options.pictures,), "--plot")
        check_plot(options.plot)
    from resurge.bench.measuring import Bench
    from resurge.bench.output import Rows, Table, plot
    from resurge.bench.subjects import check_word
    from resurge.machine import described

    for model in (*models, *([settings.yardstick] if settings.yardstick else [])):
        check_word(model)  # all of them, before minutes are spent on the first
    table = Table(models)
    with Bench(settings, lambda line: log(f"{line} …")) as bench:
        for line in settings.left_out():
            log(line)
        rows = Rows(options.json, described(*PACKAGES), about={"settings": dataclasses.asdict(settings)})
        print(table.head(), flush=True)
        for model in models:
            for row in bench.rows(model):
                rows.add(row, table.line(row))
                for note in row["notes"]:
                    log(f"note: {note}")
    if options.plot is not None:
        plot(rows.rows, options.plot)
    return 0
