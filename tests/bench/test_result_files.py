"""The scripts that read what benchmarks have written."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def script(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(model, runtime, precision, batch, ratio, efficiency=0.9):
    return {"model": model, "runtime": runtime, "precision": precision, "batch": batch, "ratio": ratio,
            "quartiles": [ratio - 0.1, ratio + 0.1], "efficiency": efficiency}  # fmt: skip


def test_the_tables_have_each_figure_in_its_place():
    rows = [
        row("resnet50d", "best", "fp32", 8, 1.0),
        row("resnest50", "best", "int8", 8, 1.5),
        row("resnest50", "onnx", "fp32", 8, 0.96, None),
        row("resnest50", "onnx", "fp32", 1, 7.0),
        {"model": "resnest50", "runtime": "decisions", "precision": "bf16"},
    ]
    text = script("inference_tables").tables(rows, 8)
    assert "| network | best fp32 | best int8 |" in text
    assert "| `resnet50d` | 1.00x (0.90 to 1.10) |  |" in text
    assert "| `resnest50` |  | 1.50x (1.40 to 1.60) |" in text
    assert "| `resnest50` | 0.96 |" in text
    assert "7.0" not in text


def test_the_committed_figures_make_tables():
    module = script("inference_tables")
    rows = json.loads(module.RESULT.read_text(encoding="utf-8"))["rows"]
    assert module.tables(rows, 8).count("`resnest50`") == 3


def test_exports_keep_rows_of_the_same_machine_only(tmp_path):
    there, path = script("exports")._there, tmp_path / "rows.json"
    assert there(path, {"torch": "1"}) == []
    path.write_text(json.dumps({"machine": {"torch": "1"}, "rows": [{"run": "a"}]}))
    assert there(path, {"torch": "1"}) == [{"run": "a"}]
    assert there(path, {"torch": "2"}) == []
    path.write_text("[]")
    with pytest.raises(SystemExit, match="not what this script wrote"):
        there(path, {})


@pytest.mark.slow
def test_the_gpu_script_runs(tmp_path):
    path = tmp_path / "rows.json"
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--rehearse", "--json", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)})
    assert ended.returncode == 0, ended.stderr
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["kind"], row["failed"]) for row in rows] == [("inference", {}), ("training", {})]
    assert set(rows[0]["ratios"]) == {
        f"ours {how}" for how in ("channels-last", "contiguous", "rewritten", "optimized")
    }


def test_every_line_of_the_gpu_figures_is_a_row():
    rows = [json.loads(line) for line in (BENCHMARKS / "results" / "gpu.json").read_text().splitlines()]
    assert {row["kind"] for row in rows} == {"inference", "training"}
