"""Images of more than 8 bits, or of other bands than grey or RGB: one result from training to the server."""

from __future__ import annotations

import base64
import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from band_files import npy, png, tiff, write_classes
from serving import serving

from resurge.cli import main
from resurge.data.images import open_image
from resurge.runs import load_run
from resurge.serve.limits import Limits
from resurge.serve.loading import loader

MODEL = "resnet20_cifar depths=(1,1,1) planes=(8,8,8) stem=conv3x3(8)"
KINDS = {"xray": 1, "infrared": 4, "spectrum": 5}


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """(kind, data, run)"""
    place = tmp_path_factory.mktemp(request.param)
    data = write_classes(place / "data", request.param, {"train": 24, "val": 10})
    words = ["train", "--data", str(data), "--model", MODEL, "--out", str(place / "run"), "--size", "32"]
    words += ["--epochs", "6", "--batch-size", "8", "--lr", "0.1", "--lr-per", "0", "--warmup", "1", "--crop-scale"]
    words += ["0.6,1", "--color-jitter", "0.02", "--workers", "0", "--threads", "1", "--device", "cpu"]
    assert main([*words, "--debug"]) == 0
    return request.param, data, place / "run"


def predicted(folder: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[str, float]]:
    capsys.readouterr()
    assert main(["predict", str(folder), str(images), "--csv", "--device", "cpu"]) == 0
    rows = csv.DictReader(capsys.readouterr().out.splitlines())
    return {row["path"]: (row["class_1"], float(row["score_1"])) for row in rows}


def test_it_learns_and_evaluates_alike(trained: tuple[str, Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    kind, data, run = trained
    meta = json.loads((run / "model.json").read_text())
    assert meta["in_channels"] == meta["preprocessing"]["channels"] == KINDS[kind]
    assert ("value_range" in meta["preprocessing"]) == (kind != "infrared")
    assert meta["scores"]["top1"] >= 0.95
    if kind == "xray":
        seen, ramp = load_run(run).preprocessing, np.arange(4096, dtype=np.uint16).reshape(64, 64, 1)
        assert seen.value_range == (0, 4095)
        assert len(np.unique(seen.normalise(seen.convert(open_image(png(ramp)))))) > 1000
    for more in ((), ("--data", str(data))):
        capsys.readouterr()
        assert main(["eval", str(run), "--json", "--device", "cpu", *more]) == 0
        assert json.loads(capsys.readouterr().out)["top1"] == meta["scores"]["top1"]


def test_an_export_predicts_as_the_run_does(
    trained: tuple[str, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, data, run = trained
    format, package = {"xray": ("onnx", "onnxruntime"), "infrared": ("torch", "torch")}.get(kind, ("openvino",) * 2)
    pytest.importorskip(package)
    export = tmp_path / "export"
    assert main(["export", str(run), "--out", str(export), "--format", format]) == 0
    before, after = (predicted(folder, data / "val", capsys) for folder in (run, export))
    assert before.keys() == after.keys()
    assert len(before) == 20
    for path, (name, score) in before.items():
        assert after[path] == (name, pytest.approx(score, abs=1e-4))


def test_a_server_answers_uploads_of_all_forms(
    trained: tuple[str, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, data, run = trained
    known = predicted(run, data / "val", capsys)
    files = [Path(path) for path in known][::4]
    texts = [base64.b64encode(file.read_bytes()).decode() for file in files]
    with serving(load=loader(str(run)), limits=Limits(max_pixels=1_000_000)) as server:
        alone = [server.post(file.read_bytes(), kind="application/octet-stream").json()["images"][0] for file in files]
        whole = server.post(json.dumps({"images": texts}).encode(), kind="application/json").json()["images"]
        form = server.http.post("/predict", files=[("images", (file.name, file.read_bytes())) for file in files])
        for answers in (alone, whole, form.json()["images"]):
            for file, answer in zip(files, answers, strict=True):
                name, score = known[str(file)]
                assert answer["predictions"][0]["class"] == name
                assert answer["predictions"][0]["score"] == pytest.approx(score, abs=1e-5)
        assert server.post(files[0].read_bytes(), "/explain").status_code == 200
        other = npy(np.zeros((32, 32, 7), np.uint16))
        refused = server.post(other, kind="application/octet-stream")
        assert refused.status_code == 422
        assert "7 bands of integers" in refused.text
        huge = server.post(npy(np.zeros((300, 300, 30), np.float64))[:4000], kind="application/octet-stream")
        assert (huge.status_code, "too-large" in huge.text) == (413, True)
        assert server.service._decoder.budget.held == 0


def test_an_image_of_another_kind_is_refused_by_name(
    trained: tuple[str, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, data, run = trained
    other = shutil.copytree(data, tmp_path / "other")
    strange = sorted((other / "val" / "dark").iterdir())[3]
    strange.write_bytes(tiff(np.zeros((32, 32, 2), np.uint8), extra=(0,)))
    assert main(["eval", str(run), "--data", str(other), "--device", "cpu"]) == 2
    assert f"dark/{strange.name}: the image has 2 bands of 8 bits" in capsys.readouterr().err
    assert main(["predict", str(run), str(strange), "--device", "cpu"]) == 1
    assert f"{strange.name}: the image has 2 bands of 8 bits" in capsys.readouterr().err


def test_a_recipe_that_changes_colours_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_classes(tmp_path / "data", "infrared", {"train": 4, "val": 2}, side=8)
    words = ["train", "--data", str(data), "--model", MODEL, "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*words, "--auto-augment", "randaugment"]) == 2
    assert "Set auto_augment=none" in capsys.readouterr().err
    assert main([*words, "--mean", "0.5,0.5,0.5", "--std", "1,1,1"]) == 2
    assert "the images have 4 bands" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
