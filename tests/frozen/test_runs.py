"""What a training of each task leaves, and what `eval` and `predict` say with it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from frozen import tiny_runs
from frozen.goldens import Goldens, differences, same_skeleton

from resurge import load_run

Record = Callable[[str], dict[str, Any]]
TASKS = tuple(tiny_runs.TRAININGS)


def near(found: Any, wanted: Any, name: str, relative: float, absolute: float) -> Iterator[str]:
    both = isinstance(found, float) and isinstance(wanted, float)
    if not (math.isclose(found, wanted, rel_tol=relative, abs_tol=absolute) if both else found == wanted):
        yield f"{name} is {found}, recorded is {wanted}"


def metrics_elsewhere(found: Any, recorded: Any) -> Iterator[str]:
    """Other machines: steps equal, losses within 15 %, scores within 0.1.

    At these learning rates a difference in the last bit grows over the steps.
    """
    yield from same_skeleton(found, recorded)
    yield from near(len(found), len(recorded), "the number of rows", 0, 0)
    for number, (row, wanted) in enumerate(zip(found, recorded, strict=False)):
        for key in wanted.keys() & row.keys():
            exact = key in ("epoch", "step", "lr")
            relative, absolute = (1e-4, 0.0) if exact else (0.15, 0.01) if "loss" in key else (0.0, 0.1)
            yield from near(row[key], wanted[key], f"row {number}, {key}", relative, absolute)


def tensors_elsewhere(found: Any, recorded: Any) -> Iterator[str]:
    """Other machines: names, types and shapes equal; means and deviations roughly."""
    mine, theirs = found["tensors"], recorded["tensors"]
    yield from differences({name: value[:2] for name, value in mine.items()}, {n: v[:2] for n, v in theirs.items()})
    for name in theirs.keys() & mine.keys():
        if not name.endswith("num_batches_tracked"):  # another epoch may be the best one
            yield from near(mine[name][2], theirs[name][2], f"the mean of {name}", 0.3, 0.05 + 0.5 * theirs[name][3])
            yield from near(mine[name][3], theirs[name][3], f"the deviation of {name}", 0.7, 0.05)


def model_elsewhere(found: Any, recorded: Any) -> Iterator[str]:
    """Other machines: all equal but the scores, which are within 0.1; losses within 15 %."""
    yield from differences({**found, "scores": None}, {**recorded, "scores": None})
    yield from same_skeleton(found["scores"], recorded["scores"])
    for key, wanted in recorded["scores"].items():
        if key != "epoch":
            yield from near(found["scores"].get(key), wanted, key, 0.15, 0.1)


def report_elsewhere(found: Any, recorded: Any) -> Iterator[str]:
    """Other machines: the pieces of text that have no digit."""
    mine, theirs = ({line for line in text if not any(map(str.isdigit, line))} for text in (found, recorded))
    yield from (f"{line!r} is missing" for line in sorted(theirs - mine))
    yield from (f"{line!r} is new" for line in sorted(mine - theirs))


@pytest.mark.parametrize("task", TASKS)
class TestRuns:
    def test_metrics(self, task: str, recorded: Record, goldens: Goldens) -> None:
        goldens.close(f"{task}/metrics", recorded(task)["metrics"], metrics_elsewhere)

    def test_final_tensors(self, task: str, recorded: Record, goldens: Goldens) -> None:
        goldens.close(f"{task}/tensors", recorded(task)["tensors"], tensors_elsewhere)

    @pytest.mark.parametrize("name", ["recipe", "split", "files"])
    def test_files(self, task: str, name: str, recorded: Record, goldens: Goldens) -> None:
        goldens.same(f"{task}/{name}", recorded(task)[name])

    def test_model_json(self, task: str, recorded: Record, goldens: Goldens) -> None:
        goldens.close(f"{task}/model", recorded(task)["model"], model_elsewhere)

    @pytest.mark.parametrize("name", ["evaluation", "eval", "predict", "pictures"])
    def test_answers(self, task: str, name: str, recorded: Record, goldens: Goldens) -> None:
        """evaluation.json, `eval --json`, `predict` in all its forms, and all pictures by a digest of their pixels."""
        goldens.close(f"{task}/{name}", recorded(task)[name], same_skeleton)

    @pytest.mark.parametrize("name", ["report", "eval_text"])
    def test_texts(self, task: str, name: str, recorded: Record, goldens: Goldens) -> None:
        goldens.close(f"{task}/{name}", recorded(task)[name].splitlines(), report_elsewhere)

    def test_answers_are_not_all_alike(self, task: str, recorded: Record) -> None:
        """Otherwise the records of them would prove nothing."""
        images = recorded(task)["predict"]["json"]["images"]
        key = {"classify": "predictions", "segment": "classes"}.get(task, "objects")
        assert len({json.dumps(image[key]) for image in images}) == len(images)
        assert len({thing["class"] for image in images for thing in image[key]}) > 1

    def test_load_run(self, task: str, once: Callable[..., Path], recorded: Record, goldens: Goldens) -> None:
        recorded(task)
        run = load_run(once(task, lambda folder: None) / "run")
        with torch.inference_mode():
            found = run.model(torch.zeros(1, run.meta["in_channels"], 64, 64))
        told = {
            "task": run.task,
            "spec": str(run.spec),
            "classes": list(run.classes),
            "training": run.model.training,
            "epochs": run.recipe and run.recipe.optimization.epochs,
            "meta": sorted(run.meta),
            "output": list(found.shape) if isinstance(found, torch.Tensor) else [sorted(one) for one in found],
        }
        goldens.same(f"{task}/load_run", told)
