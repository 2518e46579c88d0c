"""Exports of segmenters are compared picture by picture, and judged by mIoU where label maps are known."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scene_runs import write_run
from tiny_exports import write_files
from tiny_scenes import write_pairs
from torch import nn

from resurge.cli import main
from resurge.data.preprocessing import ScenePreprocessing
from resurge.data.sources import open_data
from resurge.errors import UserError
from resurge.export import exporting
from resurge.export.exporting import export
from resurge.export.fidelity import LabelComparison, MapComparison, largest_difference
from resurge.export.settings import ExportSettings
from resurge.infer.engines.torch import Live
from resurge.infer.predictor import Predictor
from resurge.runs import load_run, save_run_model
from resurge.tasks.evaluation import evaluate
from resurge.tasks.table import get_task

pytestmark = pytest.mark.filterwarnings("ignore")  # the exporters and runtimes warn of themselves

CLASSES = ("green", "background", "red")  # in another order than the data have them


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 pictures to train on and 6 to validate on, the last of each broken; 64 pixels wide, and seen with 48."""
    root = write_pairs(tmp_path_factory.mktemp("data") / "pairs", train=8, val=6)
    for broken in ("train/8.png", "val/14.png"):
        (root / "images" / broken).write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("segmenter") / "tiny", "segment", classes=CLASSES)
    made = load_run(folder)
    with torch.inference_mode():
        images = [Image.open(data / "images" / "val" / f"{number}.png") for number in (9, 10)]
        means = [made.model(made.preprocessing(image)[None]).mean((0, 2, 3)) for image in images]
        made.model.get_parameter("head.predict.bias").sub_(torch.stack(means).mean(0))  # no class wins always
    save_run_model(
        folder, made.model, task="segment", classes=made.classes, preprocessing=made.preprocessing, norm="batch",
        scores={}, data={"source": str(data)},
    )  # fmt: skip
    return folder


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports hold another network than the run."""
    rewritten_for = exporting.rewritten_for

    def made(model: nn.Module, *form: object) -> nn.Module:
        new = rewritten_for(model, *form)
        with torch.no_grad():
            new.get_parameter("head.predict.weight").copy_(new.get_parameter("head.predict.weight").flip(0))
        return new

    monkeypatch.setattr(exporting, "rewritten_for", made)


@pytest.mark.parametrize("decide", [False, True])
def test_the_miou_is_that_of_the_evaluation(decide: bool, run: Path, data: Path, tmp_path: Path) -> None:
    certificate = export(run, tmp_path / "out", ExportSettings("torch", decide=decide, max_drop=100))
    made = load_run(run)
    split = open_data(data, annotation="maps").val
    split = split.select([row for row, name in enumerate(split.ids) if "14" not in name])
    ours = nn.Sequential(made.model, Reordered([1, 2, 0]))  # to the order of the data
    told = evaluate(get_task("segment"), ours, split, made.preprocessing, ("background", "red", "green"))
    found = certificate["accuracy"]
    assert found["of"] == "mIoU"
    assert 0.05 < told["miou"] < 0.95
    assert found["before"] == pytest.approx(told["miou"], abs=2e-3)  # interpolated by numpy, and by torch
    assert found["labelled"] == 5 * 64 * 62 == np.sum(told["confusion"])  # a frame of two pixels is ignored
    assert certificate["drop_points"] == pytest.approx(100 * (found["before"] - found["after"]))
    assert abs(certificate["drop_points"]) < (10 if decide else 1e-6)  # classes are enlarged without their neighbours
    assert certificate["images"] == 5
    assert certificate["agreement"] > 0.999
    assert certificate["difference"] < 1e-3  # with `decide` of the probability


class Reordered(nn.Module):
    def __init__(self, order: list[int]) -> None:
        super().__init__()
        self.order = order

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits[:, self.order]


@pytest.mark.usefixtures("wrong")
def test_max_drop_is_about_miou(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "data"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    files = sorted((data / "images").glob("*/1[0-3].png"))
    for path, told in zip(files, Predictor(run, "cpu").predict([Image.open(path) for path in files]), strict=True):
        (folder / "images" / path.name).write_bytes(path.read_bytes())
        Image.fromarray(told.classes).save(folder / "masks" / path.name)
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    words = ["export", str(run), "--format", "torch", "--calibrate", str(folder), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "mIoU falls from 100.00 %" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*words, "--force"]) == 0
    printed = capsys.readouterr().out
    assert "mIoU              100.00 % before" in printed
    assert "same decisions" in printed


@pytest.mark.usefixtures("wrong")
def test_without_labels_agreement_decides(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="of the decisions stay as they were"):
        export(run, tmp_path / "out", ExportSettings("torch", calibrate=str(write_files(tmp_path / "images", 3))))


class Alive:
    """How many arrays that went by are in memory at most."""

    def __init__(self) -> None:
        self.now: set[int] = set()
        self.most = 0

    def watch(self, array: np.ndarray) -> None:
        owner = array if array.base is None else array.base
        self.now.add(id(owner))
        self.most = max(self.most, len(self.now))
        weakref.finalize(owner, self.now.discard, id(owner))

    def watched(self, real: Callable[..., Any], of: Callable[[Any], np.ndarray]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            made = real(*given, **named)
            self.watch(of(made))
            return made

        return call


@pytest.mark.parametrize("format, precision", [("torch", "fp32"), ("onnx", "int8")])
def test_pictures_are_in_memory_one_at_a_time(
    format: str, precision: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if precision == "int8":
        for name in ("onnx", "onnxscript", "onnxruntime", "nncf"):
            pytest.importorskip(name)
    images, logits = Alive(), Alive()
    monkeypatch.setattr(ScenePreprocessing, "array", images.watched(ScenePreprocessing.array, lambda made: made))
    monkeypatch.setattr(Live, "run", logits.watched(Live.run, lambda made: made["logits"]))
    certificate = export(run, tmp_path / "out", ExportSettings(format, precision, max_drop=100))
    assert certificate["images"] == 5
    assert 1 <= images.most <= 2  # the last goes when the next is there
    assert 1 <= logits.most <= 2
    if precision == "int8":
        assert certificate["int8"]["calibrated_on"] == 7
        assert certificate["accuracy"]["of"] == "mIoU"
        assert certificate["accuracy"]["before"] != certificate["accuracy"]["after"]
        assert 1e-6 < certificate["relative"] < 2  # of a random network


def test_layers_of_a_segmenter_that_hurt_are_kept(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime", "nncf"):
        pytest.importorskip(name)
    real, asked = MapComparison.drop.fget, []

    def pessimistic(found: MapComparison) -> float:
        asked.append(real(found))
        return 100.0 if len(asked) == 1 else asked[-1]

    monkeypatch.setattr(MapComparison, "drop", property(pessimistic))
    said: list[str] = []
    certificate = export(run, tmp_path / "out", ExportSettings("onnx", "int8", max_drop=20), log=said.append)
    assert any("layers to keep" in line for line in said)
    assert certificate["drop_points"] <= 20


def test_differences_are_those_of_whole_arrays() -> None:
    noise = np.random.default_rng(0)
    for shape in ((5, 7), (2, 3, 4, 5)):
        ours, theirs = (noise.standard_normal(shape).astype(np.float32) for _ in range(2))
        assert largest_difference(ours, theirs) == np.abs(ours.astype(np.float64) - theirs).max()
    shares = torch.from_numpy(noise.standard_normal((2, 3, 4, 5)).astype(np.float32))
    found = LabelComparison()
    found.decide(
        {"logits": shares.numpy()},
        {"classes": shares.argmax(1).numpy(), "confidence": shares.softmax(1).amax(1).numpy() + np.float32(0.25)},
    )
    assert found.difference == pytest.approx(0.25, abs=1e-6)
    assert found.agreement == 1
    assert json.dumps(found.to_json())
