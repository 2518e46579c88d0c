"""Which of the equivalent forms of a network is fastest in a runtime: what `resurge.export.settings` is decided by.

    python benchmarks/forms.py                                          # resnest50 in OpenVINO, in each precision
    python benchmarks/forms.py resnest50 --precision int8 --batch 8 --rounds 21 --json forms.json
    python benchmarks/forms.py skresnext50_32x4d --forms groups_of_16,separate_splits+groups_of_16

The forms run in turn, as `resurge bench` does; the ratio is the time of the form in which every pass
that costs nothing is applied, over that of the form with more passes. Above 1 they are worth it. A pass that changes
nothing about a network is left out.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

from resurge.bench.candidates import Workload, in_engine
from resurge.bench.files import Files
from resurge.bench.output import Rows
from resurge.bench.settings import Configuration, possible
from resurge.bench.subjects import Subject, open_subject
from resurge.export.settings import EXPORTED
from resurge.machine import described as machine
from resurge.optimize.rewrite import ALWAYS, rewrite
from resurge.optimize.timing import PAUSE, SLOT, race

PLAIN = "as it is"


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    rows = Rows(options.json, machine("torch", "openvino", "onnxruntime", "nncf"))
    print(f"{'network':<20}{'runtime':<10}{'precision':<10}{'batch':>5}  {'form':<32}{'ratio':>7}  quartiles")
    for name in options.networks:
        subject = open_subject(name, options.size)
        with tempfile.TemporaryDirectory() as place:
            files = Files(Path(place), options.pictures)
            for precision in options.precision.split(","):
                cell = Configuration(options.runtime, precision, options.batch)
                if not possible(cell.runtime, cell.precision):
                    continue
                for row in measured(subject, cell, files, options):
                    low, high = row["quartiles"]
                    rows.add(
                        row,
                        f"{name:<20}{cell.runtime:<10}{precision:<10}{cell.batch:>5}  {row['form']:<32}"
                        f"{row['ratio']:>6.2f}x  {low:.2f} to {high:.2f}",
                    )


def measured(subject: Subject, cell: Configuration, files: Files, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each form that differs from the plain one."""
    job = Workload(cell, subject.images(cell.batch, options.pictures), options.threads, torch.device("cpu"))
    runs = {}
    seen = set()
    for form in (PLAIN, *options.forms.split(",")):
        more = () if form == PLAIN else tuple(form.split("+"))
        layers = str(rewrite(subject.run.model, (*ALWAYS, *more)))
        if layers in seen:
            continue
        seen.add(layers)
        runs[form] = in_engine(files.ours(subject, cell.runtime, cell.precision, more), job).run
    raced = race(runs, options.rounds, slot=SLOT, pause=PAUSE)
    said = {"network": subject.name, "runtime": cell.runtime, "precision": cell.precision, "batch": cell.batch,
            "size": options.size, "threads": options.threads, "rounds": options.rounds}  # fmt: skip
    return [
        {**said, "form": form, **raced.ratio(PLAIN, form).to_json(),
         "images_per_s": round(cell.batch / raced.seconds(form), 2)}
        for form in runs if form != PLAIN
    ]  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("networks", nargs="*", default=["resnest50"], help="names or spec texts")
    parser.add_argument("--runtime", default="openvino", choices=("openvino", "onnx"))
    parser.add_argument("--precision", default="fp32,bf16,int8", help="with commas between")
    parser.add_argument("--forms", default="separate_splits,absorb_mix", help=f"of {', '.join(EXPORTED)}; A+B: both")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224, help="pixels on a side")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pictures", help="a folder of photos; generated patterns otherwise")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
