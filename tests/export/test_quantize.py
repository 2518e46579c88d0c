"""int8: calibrated on the user's pictures, layers put back where it hurts, refused where too much is lost."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_exports import pictures, write_classifier, write_files

from resurge.errors import UserError
from resurge.export.exporting import export
from resurge.export.fidelity import LabelComparison
from resurge.export.settings import ExportSettings
from resurge.infer.predictor import Predictor

for name in ("onnx", "onnxscript", "onnxruntime", "openvino", "nncf"):
    pytest.importorskip(name)
pytestmark = pytest.mark.filterwarnings("ignore")  # the exporters and runtimes warn of themselves

SMALL = "resnet20_cifar depths=(1,1) planes=(8,16) stem=conv3x3(8)"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("run") / "tiny")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("data") / "images", 24)


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_int8(format: str, run: Path, images: Path, tmp_path: Path) -> None:
    certificate = export(run, tmp_path / "out", ExportSettings(format, "int8", calibrate=str(images), max_drop=20))
    assert all(handler.level < logging.ERROR for handler in logging.getLogger().handlers)  # NNCF would see to that
    made = json.loads((tmp_path / "out" / "model.json").read_text())["export"]["int8"]
    assert made["calibrated_on"] == 24
    assert made["layers"] > len(made["kept"])
    assert 0.8 <= certificate["agreement"] <= 1
    assert certificate["relative"] > 1e-4  # it is another network than the fp32 one
    predictor = Predictor(tmp_path / "out")
    assert predictor.precision == "int8"
    for mine, theirs in zip(predictor.predict(pictures(6)), Predictor(run, "cpu").predict(pictures(6)), strict=True):
        assert np.abs(np.sort(mine.scores) - np.sort(theirs.scores)).max() < 0.35


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="alternative signal stacks as Linux has them")
def test_ctrl_c_after_quantising_reaches_its_handler(images: Path, tmp_path: Path) -> None:
    """OpenVINO and NNCF left a signal stack behind that was no longer there: the process ended with a fault."""
    program = """
import os, signal, sys, time
from resurge.export.exporting import export
from resurge.export.settings import ExportSettings
export(sys.argv[1], sys.argv[2], ExportSettings("openvino", "int8", calibrate=sys.argv[3], max_drop=100))
stack = bytearray(1 << 20)  # what was given back is used again
signal.signal(signal.SIGINT, lambda *_: sys.exit(7))
os.kill(os.getpid(), signal.SIGINT)
time.sleep(60)
"""
    run = write_classifier(tmp_path / "run", SMALL)
    done = subprocess.run(
        [sys.executable, "-c", program, str(run), str(tmp_path / "out"), str(images)], capture_output=True, timeout=200
    )
    assert done.returncode == 7, done.stderr.decode()


def test_layers_that_hurt_are_kept(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first quantisation that is no good: the accuracy control takes over and meets the bound."""
    real, drops = LabelComparison.drop.fget, []

    def pessimistic(found: LabelComparison) -> float:
        drops.append(real(found) if drops else 100.0)
        return drops[-1]

    monkeypatch.setattr(LabelComparison, "drop", property(pessimistic))
    said: list[str] = []
    run = write_classifier(tmp_path / "run", SMALL)
    certificate = export(
        run, tmp_path / "out", ExportSettings("openvino", "int8", calibrate=str(images), max_drop=5), log=said.append
    )
    assert any("layers to keep" in line for line in said)
    assert certificate["agreement"] >= 0.95


def test_int8_needs_pictures(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--calibrate"):
        export(run, tmp_path / "out", ExportSettings("onnx", "int8"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError):
        export(run, tmp_path / "out", ExportSettings("onnx", "int8", calibrate=str(tmp_path / "empty")))
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
