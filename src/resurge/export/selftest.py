"""Runs an exported network on its own, in a process that has only just begun: `python -m resurge.export.selftest`.

It imports no torch unless the format is torch's, so that what passes here runs where there is no torch.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from resurge.errors import UserError
from resurge.files import Json

if TYPE_CHECKING:
    from resurge.infer.engines import Engine

SECONDS = 900  # for the whole test; loading a large network takes a minute on a busy machine
_TRIES, _ENOUGH = 20, 1.5  # rounds of a measurement at most, and seconds after which no further one begins


Cases = dict[str, tuple[np.ndarray, np.ndarray]]
"""By name images float32 (N, C, H, W) and their sizes without padding, int64 (N, 2)."""


def self_test(
    folder: Path, cases: Cases, check: Callable[[np.ndarray, np.ndarray, dict[str, np.ndarray]], None]
) -> Json:
    """Load the export in a fresh process and run it.

    Args:
        check: called with each case's images and sizes, and all outputs of the process for it.

    Returns:
        {"outputs": their names; "seconds_to_load"; "speed": images/s by batch size; "notes"}.

    Raises:
        UserError: it fails, or imports torch where it must not; and what `check` raises.
    """
    package = str(Path(__file__).parents[2])
    with tempfile.TemporaryDirectory(dir=folder, prefix=".selftest.") as made:
        scratch = Path(made)
        for name, (images, sizes) in cases.items():
            np.savez(scratch / f"{name}.npz", images=images, sizes=sizes)
        code = f"import sys; sys.path.insert(0, {package!r}); from resurge.export.selftest import main; main()"
        command = [sys.executable, "-c", code, str(folder), made, *cases]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise UserError(f"the exported network gave no result within {SECONDS} s when run on its own.") from None
        try:
            result: Json = json.loads(done.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            last = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
            result = {"error": last}
        if "error" in result:
            raise UserError(f"the exported network does not run on its own: {result['error']}")
        for name, (images, sizes) in cases.items():
            check(images, sizes, {output: np.load(scratch / f"{name}.{output}.npy") for output in result["outputs"]})
    return result


def main() -> None:
    """Run the cases of `self_test`; prints one line of JSON."""
    folder, scratch, *names = sys.argv[1:]
    try:
        result = _run(Path(folder), Path(scratch), names)
    except UserError as error:
        result = {"error": str(error)}
    print(json.dumps(result))


def _run(folder: Path, scratch: Path, cases: Sequence[str]) -> Json:
    from resurge.infer.engines import open_engine
    from resurge.infer.folder import read_export

    start = time.perf_counter()
    engine = open_engine(read_export(folder), "cpu")
    loading = time.perf_counter() - start
    names: list[str] = []
    speed: dict[str, float] = {}
    for name in cases:
        with np.load(scratch / f"{name}.npz") as arrays:
            images, sizes = arrays["images"], arrays["sizes"]
        outputs = engine.run(images, sizes)
        names = list(outputs)
        for output, values in outputs.items():
            np.save(scratch / f"{name}.{output}.npy", values)
        del outputs  # of a segmenter they are large, and the next are made before these would go
        if name.startswith("speed"):
            speed[str(len(images))] = len(images) / _seconds(engine, images, sizes)
    if engine.format != "torch" and "torch" in sys.modules:
        return {"error": f"a {engine.format} export imported torch"}
    return {"outputs": names, "seconds_to_load": loading, "speed": speed, "notes": engine.notes}


def _seconds(engine: Engine, images: np.ndarray, sizes: np.ndarray) -> float:
    """The quickest of several rounds, after one in which a runtime may compile for a shape that has come back."""
    engine.run(images, sizes)
    taken: list[float] = []
    while len(taken) < _TRIES and sum(taken) < _ENOUGH:
        start = time.perf_counter()
        engine.run(images, sizes)
        taken.append(time.perf_counter() - start)
    return min(taken)
