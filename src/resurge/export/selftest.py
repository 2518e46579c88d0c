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


Questions = dict[str, tuple[np.ndarray, np.ndarray]]
"""By name images float32 (N, C, H, W) and their sizes without padding, int64 (N, 2)."""


def run_apart(
    folder: Path, questions: Questions, check: Callable[[np.ndarray, np.ndarray, dict[str, np.ndarray]], None]
) -> Json:
    """Load the export in a fresh process and let it answer.

    Args:
        check: is given each question's images and sizes, and all that the process puts out for it.

    Returns:
        {"outputs": their names; "seconds_to_load"; "speed": images/s by batch size; "notes"}.

    Raises:
        UserError: it fails, or imports torch where it must not; and what `check` raises.
    """
    package = str(Path(__file__).parents[2])
    with tempfile.TemporaryDirectory(dir=folder, prefix=".selftest.") as made:
        place = Path(made)
        for name, (images, sizes) in questions.items():
            np.savez(place / f"{name}.npz", images=images, sizes=sizes)
        code = f"import sys; sys.path.insert(0, {package!r}); from resurge.export.selftest import main; main()"
        command = [sys.executable, "-c", code, str(folder), made, *questions]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise UserError(f"the exported network did not answer within {SECONDS} s when run on its own.") from None
        try:
            said: Json = json.loads(done.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            last = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
            said = {"error": last}
        if "error" in said:
            raise UserError(f"the exported network does not run on its own: {said['error']}")
        for name, (images, sizes) in questions.items():
            check(images, sizes, {output: np.load(place / f"{name}.{output}.npy") for output in said["outputs"]})
    return said


def main() -> None:
    """Answer what `run_apart` asked, as one line of JSON."""
    folder, place, *names = sys.argv[1:]
    try:
        said = _answer(Path(folder), Path(place), names)
    except UserError as error:
        said = {"error": str(error)}
    print(json.dumps(said))


def _answer(folder: Path, place: Path, questions: Sequence[str]) -> Json:
    from resurge.infer.engines import open_engine
    from resurge.infer.folder import read_export

    start = time.perf_counter()
    engine = open_engine(read_export(folder), "cpu")
    loading = time.perf_counter() - start
    names: list[str] = []
    speed: dict[str, float] = {}
    for name in questions:
        with np.load(place / f"{name}.npz") as arrays:
            images, sizes = arrays["images"], arrays["sizes"]
        outputs = engine.run(images, sizes)
        names = list(outputs)
        for output, values in outputs.items():
            np.save(place / f"{name}.{output}.npy", values)
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
