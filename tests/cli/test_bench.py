"""`resurge bench` from the command line: what it writes, and what it refuses before anything is timed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_exports import write_classifier

from resurge.cli import main

ALONE = ["--against", "none", "--runtimes", "eager", "--yardstick", "none", "--rounds", "2", "--threads", "1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("bench") / "run")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from resurge.optimize import timing

    monkeypatch.setattr(timing, "SLOT", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_table_json_and_plot(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, picture = tmp_path / "speed.json", tmp_path / "speed.svg"
    words = ["bench", str(run), *ALONE, "--batch", "1,2", "--json", str(file), "--plot", str(picture), "--debug"]
    assert main(words) == 0
    printed = capsys.readouterr()
    head, *lines = printed.out.splitlines()
    assert head.split()[:3] == ["model", "runtime", "precision"]
    assert [line.split()[:4] for line in lines] == [[str(run), "eager", "fp32", batch] for batch in ("1", "2")]
    found = json.loads(file.read_text())
    assert found["settings"]["rounds"] == 2
    assert found["machine"]["torch"]
    assert [(row["batch"], row["size"]) for row in found["rows"]] == [(1, 32), (2, 32)]
    assert found["rows"][0]["latency_ms"]["runs"] >= 100
    assert "<svg" in picture.read_text()


@pytest.mark.parametrize(
    "words, meant",
    [
        (["resmest50"], "Did you mean 'resnest50'?"),
        (["resnet50", "--runtimes", "eager,opnvino"], "Did you mean 'openvino'?"),
        (["resnet50", "--precision", "fp32,bf61"], "expected one of fp32, bf16, int8, not 'bf61'"),
        (["resnet50", "--aganist", "timm"], "Did you mean '--against'?"),
        (["resnet50", "--against", "tim"], "Did you mean 'timm'?"),
        (["resnet50", "--batch", "1,,8"], "expected values with commas between them"),
        (["resnet50", "--batch", "0"], "expected at least 1"),
        (["resnet50", "--yardstick", "resnte50d"], "Did you mean 'resnet50d'?"),
        (["resnet50", "--plot", "speed.pdf"], ".svg or .png"),
        (["resnet50", "--json", "."], "is a folder"),
        (["resnet50", "--runtimes", "eager", "--precision", "int8"], "nothing is left to measure"),
        ([], "MODEL"),
    ],
)
def test_refused_at_once(words: list[str], meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 2
    printed = capsys.readouterr()
    assert meant in printed.err
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""


def test_a_detector_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    meta = {"format": 1, "task": "detect", "spec": "resnet18", "classes": ["a"], "in_channels": 3}
    (tmp_path / "run" / "model.json").write_text(json.dumps({**meta, "preprocessing": {"kind": "scene"}}))
    assert main(["bench", str(tmp_path / "run"), *ALONE]) == 2
    assert "resurge: error:" in capsys.readouterr().err
