"""Runs an exported network on its own, in a process that has only just begun: `python -m resurge.deploy.selftest`.

It imports no torch unless the format is torch's, so that what passes here runs where there is no torch.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from resurge.errors import UserError

SECONDS = 900  # for the whole test; loading a large network takes a minute on a busy machine
_TRIES, _ENOUGH = 20, 1.5  # rounds of a measurement at most, and seconds after which no further one begins


def run_apart(
    folder: Path,
    questions: dict[str, np.ndarray],
    expected: dict[str, np.ndarray],
    sizes: dict[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Load the export in a fresh process and let it answer.

    Args:
        questions: images float32 (N, C, H, W) by name; of different sizes and numbers.
        expected: what `telling` of the outputs is to be for each.
        sizes: of the images of a question without their padding (N, 2); None: they have none.

    Returns:
        {"difference": the largest, of each question; "seconds_to_load"; "speed": images/s by batch size; "notes"}.

    Raises:
        UserError: it fails, or imports torch where it must not.
    """
    package = str(Path(__file__).parents[2])
    given = folder / ".questions.npz"
    try:
        arrays: dict[str, Any] = {f"q_{name}": values for name, values in questions.items()}
        arrays |= {f"e_{name}": values for name, values in expected.items()}
        arrays |= {f"s_{name}": values for name, values in (sizes or {}).items()}
        np.savez(given, **arrays)
        code = f"import sys; sys.path.insert(0, {package!r}); from resurge.deploy.selftest import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder), str(given)], capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"the exported network did not answer within {SECONDS} s when run on its own.") from None
    finally:
        given.unlink(missing_ok=True)
    try:
        said = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
        raise UserError(f"the exported network does not run on its own: {last}") from None
    if "error" in said:
        raise UserError(f"the exported network does not run on its own: {said['error']}")
    found: dict[str, Any] = said
    return found


def telling(outputs: dict[str, np.ndarray]) -> np.ndarray:
    """The output to compare by: the scores of a detector, otherwise the first."""
    return outputs["scores"] if "scores" in outputs else next(iter(outputs.values()))


def main() -> None:
    """Answer what `run_apart` asked, as one line of JSON."""
    try:
        said = _answer(Path(sys.argv[1]), Path(sys.argv[2]))
    except UserError as error:
        said = {"error": str(error)}
    print(json.dumps(said))


def _answer(folder: Path, given: Path) -> dict[str, Any]:
    from resurge.deploy.engines import open_engine
    from resurge.deploy.folder import read_export

    start = time.perf_counter()
    engine = open_engine(read_export(folder), "cpu")
    loading = time.perf_counter() - start
    difference: dict[str, float] = {}
    speed: dict[str, float] = {}
    with np.load(given) as arrays:
        for key in arrays.files:
            if key.startswith("q_"):
                images, expected = arrays[key], arrays["e_" + key[2:]]
                sizes = arrays["s_" + key[2:]] if "s_" + key[2:] in arrays.files else None
                first = telling(engine.run(images, sizes))
                if first.shape != expected.shape:
                    return {"error": f"it answers {first.shape} to {images.shape}; expected {expected.shape}"}
                difference[key[2:]] = float(np.abs(first.astype(np.float64) - expected).max())
                if key.startswith("q_speed"):
                    speed[str(len(images))] = len(images) / _seconds(engine, images, sizes)
    if engine.format != "torch" and "torch" in sys.modules:
        return {"error": f"a {engine.format} export imported torch"}
    return {"difference": difference, "seconds_to_load": loading, "speed": speed, "notes": engine.notes}


def _seconds(engine: Any, images: np.ndarray, sizes: np.ndarray | None) -> float:
    """The quickest of several rounds, after one in which a runtime may compile for a shape that has come back."""
    engine.run(images, sizes)
    taken: list[float] = []
    while len(taken) < _TRIES and sum(taken) < _ENOUGH:
        start = time.perf_counter()
        engine.run(images, sizes)
        taken.append(time.perf_counter() - start)
    return min(taken)
