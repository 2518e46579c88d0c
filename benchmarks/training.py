"""The speed of a training: as it is, and as it would be when the C library gave freed memory back to the system.

    python benchmarks/training.py                       # the demo's recipe, five rounds
    python benchmarks/training.py --rounds 9 --json benchmarks/results/training.json
    python benchmarks/training.py --against 9cc9119     # another commit of this repository instead

A round trains both sides for a few epochs, each in a process of its own, the order alternating. The figure is the
median over rounds of the ratio of their images per second (above 1: as it is, it is faster), with the quartiles beside
it. The first epoch of a side does not count.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from side_by_side import RATIO_HEAD, Rows, machine, ratio_cells

from resurge.optimize.timing import Race

ROOT = Path(__file__).resolve().parents[1]


def images_per_second(source: Path, environment: dict[str, str], options: list[str], scratch: Path) -> float:
    """The median over the epochs but the first of a training by the package in `source`."""
    out = Path(tempfile.mkdtemp(dir=scratch)) / "run"
    command = [sys.executable, "-m", "resurge", "train", *options, "--out", str(out)]
    paths = {"PYTHONPATH": str(source)}
    done = subprocess.run(command, env=os.environ | environment | paths, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    with (out / "metrics.csv").open(newline="") as file:
        return median(float(row["images_per_s"]) for row in list(csv.DictReader(file))[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="digits")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", metavar="COMMIT", help="compare with this commit instead")
    parser.add_argument("--json", type=Path, help="also write the row to this file")
    args = parser.parse_args()
    options = ["--recipe", args.recipe, "--data", args.data, "--epochs", str(args.epochs)]
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        # keep_freed_memory does nothing where the environment says how the C library is to behave.
        sides = {"ours": (ROOT / "src", {}), "theirs": (ROOT / "src", {"MALLOC_CHECK_": "0"})}
        if args.against:
            archive = subprocess.run(
                ["git", "-C", ROOT, "archive", args.against, "src"], check=True, capture_output=True
            )
            subprocess.run(["tar", "-x", "-C", scratch], input=archive.stdout, check=True)
            sides["theirs"] = (scratch / "src", {})
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(args.rounds):
            for name in sorted(sides, reverse=number % 2 == 1):
                rates[name].append(images_per_second(*sides[name], options, scratch))
    timed = Race({name: tuple((1 / rate,) for rate in found) for name, found in rates.items()})
    row = {
        "recipe": args.recipe,
        "against": args.against or "memory given back",
        **timed.ratio("theirs", "ours").to_json(),
        "images_per_s": round(median(rates["ours"]), 1),
        "their_images_per_s": round(median(rates["theirs"]), 1),
    }
    print(f"{'recipe':<16}{RATIO_HEAD}")
    rates_cell = f"{row['images_per_s']} images/s against {row['their_images_per_s']}"
    Rows(args.json, machine("torch", "torchvision")).add(row, f"{args.recipe:<16}{ratio_cells(row)}  {rates_cell}")


if __name__ == "__main__":
    main()
