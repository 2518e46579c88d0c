"""benchmarks/inference.py: what it measures, what it takes as measured, what it says of the aims."""

from __future__ import annotations

import argparse
import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest

from resurge.bench.output import Table
from resurge.bench.settings import Settings

PATH = Path(__file__).parents[2] / "benchmarks" / "inference.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("inference_script", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(model, runtime, precision, batch, **more):
    plain = {"model": model, "runtime": runtime, "precision": precision, "batch": batch, "size": 224, "threads": 2}
    figures = {
        "device": "cpu",
        "rounds": 11,
        "images_per_s": 10.0,
        "peer_images_per_s": 5.0,
        "ratio": 2.0,
        "quartiles": [2.0, 2.0],
    }
    return {**plain, **figures, "efficiency": 1.0, "notes": [], **more}


class Fake:
    """A bench that writes down what it is asked."""

    def __init__(self, settings):
        self.settings, self.threads, self.asked = settings, 2, []
        self.device = argparse.Namespace(type="cpu")

    def row(self, subject, cell):
        self.asked.append(f"{subject} {cell}")
        return row(subject, cell.runtime, cell.precision, cell.batch, rounds=self.settings.rounds)

    def forget(self, subject):
        self.asked.append(f"forget {subject}")


def test_parts(script):
    assert script.wanted_part("resnest50:int8:8") == ("resnest50", "int8", 8)
    assert script.wanted_part("all:bf16") == ("all", "bf16", None)
    for word in ("resnest5", "resnest50:int9", "resnest50:int8:x", "resnest50:int8:8:9"):
        with pytest.raises(argparse.ArgumentTypeError):
            script.wanted_part(word)
    args = argparse.Namespace(
        batch=[1, 8], precision=["fp32", "int8"], only=[("resnest50", "int8", 8), ("resnet50d", "fp32", None)]
    )
    assert list(script.groups(args)) == [("resnet50d", [("fp32", 1), ("fp32", 8)]), ("resnest50", [("int8", 8)])]


def test_what_is_there_is_not_measured_again(script, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(script, "open_subject", lambda name, size: name)
    for kind in ("best", "plain"):
        monkeypatch.setattr(
            script,
            f"{kind}_row",
            lambda bench, subject, rows, kind=kind: {**rows[0], "runtime": kind, "our_runtime": "x"},
        )
    settings = Settings(runtimes=("eager", "openvino"), precisions=("fp32", "bf16"), batches=(8,), size=224)
    path, on = tmp_path / "rows.json", {"torch": "1"}

    def measured(on, code="a"):
        bench = Fake(settings)
        session = script.Session(bench, script.open_rows(path, False, on), Table(["resnest50"]), code)
        session.measure("resnest50", [("fp32", 8), ("bf16", 8)])
        return bench.asked

    everything = [f"resnest50 {runtime} {precision} batch 8" for precision in ("fp32", "bf16")
                  for runtime in ("eager", "openvino")]  # fmt: skip
    assert measured(on) == [*everything, "forget resnest50"]
    kinds = [each["runtime"] for each in json.loads(path.read_text())["rows"]]
    assert kinds == ["eager", "openvino", "best", "eager", "openvino", "best", "plain"]
    assert measured(on) == []

    content = json.loads(path.read_text())
    content["rows"] = [each for each in content["rows"] if each["runtime"] != "openvino"]
    path.write_text(json.dumps(content))
    assert measured(on) == [everything[1], everything[3], "forget resnest50"]
    assert len(measured(on, "b")) == 5
    assert {each["code"] for each in json.loads(path.read_text())["rows"]} == {"b"}
    assert len(measured({"torch": "2"}, "b")) == 5
    assert "another torch: measured again" in capsys.readouterr().err
    settings = replace(settings, rounds=3)
    assert len(measured({"torch": "2"}, "b")) == 5  # other rounds were asked for than stand there
    assert len(json.loads(path.read_text())["rows"]) == 7  # in their place
    path.write_text("[]")
    with pytest.raises(SystemExit, match="not what this script wrote"):
        script.open_rows(path, False, on)


def test_the_aims(script, capsys):
    best = {"our_runtime": "openvino", "peer_runtime": "onnx", "peer_setting": "fixed shape"}
    rows = [
        row("resnest50", "openvino", "int8", 8, efficiency=0.84),
        row("resnest50", "best", "int8", 8, ratio=1.7, efficiency=0.84, **best),
        row("resnest50", "plain", "bf16", 8, ratio=3.9, efficiency=None, **best),
        row("resnet50", "plain", "bf16", 8, efficiency=None, **best),
        row("resnet50d", "openvino", "int8", 8),  # the yardstick itself: no figure
        {"model": "resnest50", "runtime": "decisions", "precision": "bf16", "pictures": 500, "same": 498,
         "agreement": 0.996},
    ]  # fmt: skip
    found = {what.partition(",")[0]: (measured, aim) for _, what, measured, aim in script.judged(rows)}
    assert found == {
        "efficiency": (0.84, 0.85),
        "ratio": (1.7, 1.6),
        "ratio to eager fp32": (3.9, 4.0),
        "same decisions": (0.996, 0.995),
    }
    script.print_aims(rows)
    printed = capsys.readouterr().out
    assert printed.count("not reached") == 2
    assert "2 of 4 aims are met" in printed
    assert "states of the code" not in printed
    script.print_aims([{**each, "code": "ab"[number % 2]} for number, each in enumerate(rows)])
    assert "2 states of the code: 3 of a, 3 of b" in capsys.readouterr().out
