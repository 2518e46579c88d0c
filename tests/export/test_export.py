"""Exports answer as the run they are of, alone; what cannot be exported leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from alive import assert_alive
from PIL import Image
from scene_runs import write_run
from tiny_exports import CLASSES, pictures, write_classifier, write_files
from torch import nn

import resurge
from resurge.cli import main
from resurge.errors import UserError
from resurge.export import exporting
from resurge.export.convert import Deployed, trace, write_onnx
from resurge.export.exporting import export
from resurge.export.settings import FORMS, ExportSettings, rewritten_for
from resurge.infer.predictor import Predictor
from resurge.runs import load_run, save_run_model

NEEDS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino"), "torch": ()}
pytestmark = pytest.mark.filterwarnings("ignore")  # the exporters and runtimes warn of themselves


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("run") / "tiny")


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("segmenter") / "tiny", "segment")
    made = load_run(folder)
    with torch.inference_mode():
        means = [made.model(made.preprocessing(image)[None]).mean((0, 2, 3)) for image in pictures(3)]
        made.model.get_parameter("head.predict.bias").sub_(torch.stack(means).mean(0))  # no class wins always
    save_run_model(
        folder, made.model, task="segment", classes=made.classes, preprocessing=made.preprocessing, norm="batch",
        scores={}, data={},
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root, made = tmp_path_factory.mktemp("exports"), {}

    def make(format: str) -> Path:
        for name in NEEDS[format]:
            pytest.importorskip(name)
        if format not in made:
            export(run, root / format, ExportSettings(format))
            made[format] = root / format
        return made[format]

    return make


@pytest.mark.parametrize("format", NEEDS)
def test_an_export_answers_as_its_run(format: str, run: Path, exported: Callable[[str], Path]) -> None:
    folder = exported(format)
    assert {path.name for path in folder.glob("*.json")} == {"certificate.json", "model.json"}
    certificate = json.loads((folder / "certificate.json").read_text())
    assert certificate["agreement"] == 1
    assert certificate["relative"] < 1e-4
    predictor, original = Predictor(folder, "cpu", threads=1), load_run(run)
    assert (predictor.format, predictor.precision, predictor.classes) == (format, "fp32", CLASSES)
    for shape in ((1, 3, 32, 32), (3, 3, 47, 64), (5, 3, 33, 32)):
        images = torch.randn(shape)
        with torch.no_grad():
            expected = original.model(images)
        found = predictor.engine.run(images.numpy())["logits"]
        assert np.abs(found - expected.numpy()).max() < 1e-4 * expected.abs().max()
    assert_alive(expected)
    images = pictures(7)
    for given, told in zip(predictor.predict(images), Predictor(run, "cpu").predict(images), strict=True):
        assert given.names[0] == told.names[0]
        np.testing.assert_allclose(given.scores, told.scores, atol=1e-4)
    assert predictor.predict([]) == []


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_predicting_with_an_export_imports_no_torch(
    format: str, exported: Callable[[str], Path], tmp_path: Path
) -> None:
    images = write_files(tmp_path / "images", 3)
    program = (
        "import sys\nfrom resurge.cli import main\n"
        f"code = main(['predict', {str(exported(format))!r}, {str(images)!r}, '--json', '--top', '2'])\n"
        "print(code, [m for m in ('torch', 'lightning_fabric', 'sklearn') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=250)
    assert done.stderr.splitlines()[-1] == "0 []", done.stderr
    said = json.loads(done.stdout)["images"]
    assert [len(image["predictions"]) for image in said] == [2, 2, 2]


@pytest.mark.parametrize("format", NEEDS)
def test_nothing_of_this_machine_is_in_an_export(format: str, exported: Callable[[str], Path]) -> None:
    folder = exported(format)
    for path in folder.iterdir():
        content = path.read_bytes()
        for said in (str(Path(exporting.__file__).parent), "site-packages", str(folder.parent)):
            assert said.encode() not in content, (path.name, said)


@pytest.mark.parametrize("format", NEEDS)
def test_an_export_needs_neither_its_place_nor_its_run(
    format: str, run: Path, exported: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, images = exported(format), pictures(3)
    told = Predictor(folder, "cpu", threads=1).predict(images)
    moved = shutil.copytree(folder, tmp_path / "else where" / "é")
    away = [path.rename(path.with_name(f"{path.name}.away")) for path in (run, folder)]
    try:
        found = Predictor(moved, "cpu", threads=1).predict(images)
    finally:
        for path, back in zip(away, (run, folder), strict=True):
            path.rename(back)
    for mine, theirs in zip(found, told, strict=True):
        assert mine.names == theirs.names
        np.testing.assert_allclose(mine.scores, theirs.scores, atol=1e-6)


def test_a_wrong_network_is_not_exported(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewritten_for = exporting.rewritten_for

    def wrong(model: nn.Module, *form: object) -> nn.Module:
        new = rewritten_for(model, *form)
        with torch.no_grad():
            new.get_parameter("head.fc.weight").copy_(new.get_parameter("head.fc.weight").flip(0))
        return new

    monkeypatch.setattr(exporting, "rewritten_for", wrong)
    with pytest.raises(UserError, match=r"loses .* points, more than --max-drop"):
        export(run, tmp_path / "out", ExportSettings("torch"))
    assert list(tmp_path.iterdir()) == []
    certificate = export(run, tmp_path / "out", ExportSettings("torch"), force=True)
    assert certificate["drop_points"] > 10


def test_another_form(tmp_path: Path) -> None:
    run = write_classifier(tmp_path / "run", "resnest50 depths=(1,1) planes=(8,160) stem=deep(4)")
    nodes = {}
    for form in (None, (), ("absorb_mix",)):
        certificate = export(run, tmp_path / "out", ExportSettings("onnx", form=form), overwrite=True)
        assert certificate["relative"] < 1e-4
        meta = json.loads((tmp_path / "out" / "model.json").read_text(encoding="utf-8"))
        nodes[form] = meta["export"]["nodes"]
        assert meta["export"]["form"] == list(FORMS["onnx", "fp32"] if form is None else form)
    assert nodes["absorb_mix",] < nodes[None] < nodes[()]
    with pytest.raises(UserError, match=r"unknown form 'fold_norms'.*use one of separate_splits, absorb_mix"):
        export(run, tmp_path / "other", ExportSettings("onnx", form=("fold_norms",)))


def test_resnest50_has_few_nodes(tmp_path: Path) -> None:
    for name in NEEDS["onnx"]:
        pytest.importorskip(name)
    model = rewritten_for(resurge.create_model("resnest50"), "onnx", "fp32")
    program = trace(Deployed(model, torch.float32, decide=False), 3)
    assert write_onnx(program, tmp_path)["nodes"] <= 250


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, UserError("no")])
def test_an_interrupted_export_leaves_nothing(
    error: BaseException, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise error

    monkeypatch.setattr(exporting, "self_test", stop)
    with pytest.raises(error if isinstance(error, type) else type(error)):
        export(run, tmp_path / "out", ExportSettings("torch"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words, told",
    [
        (["--format", "onxx"], "Did you mean 'onnx'"),
        (["--precision", "fp8"], "expected one of fp32, bf16, fp16, int8, not 'fp8'"),
        (["--format", "onnx", "--precision", "bf16"], "no bf16 convolution"),
        (["--format", "torch", "--precision", "int8"], "not quantised"),
        (["--format", "torch", "--calibrate", "nowhere"], "nowhere"),
        (["--format", "torch", "--classes-out"], "only a segmenter"),
        (["--format", "torch", "--weights", "x.pth"], "has --weights of its own"),
    ],
)
def test_bad_input(words: list[str], told: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in NEEDS["onnx"]:
        pytest.importorskip(name)
    assert main(["export", str(run), "--out", str(tmp_path / "out"), *words]) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert printed.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_taken(run: Path, exported: Callable[[str], Path], tmp_path: Path) -> None:
    folder = exported("torch")
    with pytest.raises(UserError, match="--overwrite"):
        export(run, folder, ExportSettings("torch"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="other files"):
        export(run, tmp_path / "mine", ExportSettings("torch"), overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        export(run, tmp_path / "file", ExportSettings("torch"))
    with pytest.raises(UserError, match="is for resurge predict and resurge serve only"):
        export(folder, tmp_path / "again", ExportSettings("torch"))
    before = (folder / "model.json").stat().st_mtime_ns
    export(run, folder, ExportSettings("torch"), overwrite=True)
    assert (folder / "model.json").stat().st_mtime_ns > before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "mine"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(run: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(UserError, match="cannot write"):
        export(run, tmp_path / "closed" / "out", ExportSettings("torch"))


def test_a_place_that_cannot_be_a_folder(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        export(run, tmp_path / "file" / "out", ExportSettings("torch"))


def test_a_missing_exporter_names_the_extra(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"onnx is needed.*pip install 'resurge\[export\]'"):
        export(run, tmp_path / "out", ExportSettings("onnx"))


def test_a_network_by_name_needs_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "resnet20_cifar depths=(1,1,1) planes=(4,4,8) stem=conv3x3(4)"
    words = ["export", name, "--format", "torch", "--out", str(tmp_path / "out"), "--size", "32", "--num-classes", "3"]
    assert main(words) == 2
    assert "--weights" in capsys.readouterr().err
    assert main([*words, "--weights", "random", "--json"]) == 0
    certificate = json.loads(capsys.readouterr().out)
    assert "random" in certificate["notes"][0]


@pytest.mark.parametrize(
    "format, precision", [("torch", "bf16"), ("torch", "fp16"), ("onnx", "fp16"), ("openvino", "fp16")]
)
def test_half_precision(format: str, precision: str, run: Path, tmp_path: Path) -> None:
    for name in NEEDS[format]:
        pytest.importorskip(name)
    certificate = export(run, tmp_path / "out", ExportSettings(format, precision, max_drop=15))
    assert 1e-6 < certificate["relative"] < 0.1
    if format == "openvino":
        assert (tmp_path / "out" / "model.bin").stat().st_size < 0.7 * (run / "model.safetensors").stat().st_size


@pytest.mark.parametrize("decide", [False, True])
def test_a_segmenter(decide: bool, segmenter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in NEEDS["onnx"]:
        pytest.importorskip(name)
    export(segmenter, tmp_path / "out", ExportSettings("onnx", decide=decide))
    images = [Image.fromarray(np.asarray(image)) for image in pictures(3)]
    told = Predictor(segmenter, "cpu").predict(images)
    found = Predictor(tmp_path / "out").predict(images)
    for mine, theirs, image in zip(found, told, images, strict=True):
        assert mine.classes.shape == (image.height, image.width)
        assert len(np.unique(theirs.classes)) > 1
        assert (mine.classes == theirs.classes).mean() > (0.9 if decide else 0.999)
    pictures(1)[0].save(tmp_path / "a.png")
    assert main(["predict", str(tmp_path / "out"), str(tmp_path / "a.png"), "--flip", "--debug"]) == 2
    assert "one forward pass" in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "out"), str(tmp_path / "a.png"), "--explain", str(tmp_path / "x")]) == 2
    assert "is an export" in capsys.readouterr().err
