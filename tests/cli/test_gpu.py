"""The main jobs on a GPU, started as a user starts them; skipped where there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUNS = (("digits", "bf16"), ("digits_segment", "bf16"), ("digits_detect", "fp16"), ("digits_instances", "fp32"))


def _resurge(*words: object) -> str:
    """What the command prints; fails when it does not end by itself, loader processes included."""
    command = [sys.executable, "-m", "resurge", *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.gpu
@pytest.mark.parametrize("recipe, precision", RUNS)
def test_a_training_ends_and_its_run_is_scored_the_same_again(recipe: str, precision: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    _resurge("train", "--recipe", recipe, "--data", "digits", "--out", run, "--device", "cuda", "--epochs", 1,
             "--precision", precision, "--workers", 4)  # fmt: skip
    scores = json.loads((run / "model.json").read_text())["scores"]
    again = json.loads(_resurge("eval", run, "--device", "cuda", "--precision", precision, "--json"))
    for name in ("top1", "miou"):
        if name in scores:
            assert again[name] == pytest.approx(scores[name], abs=0.02)
