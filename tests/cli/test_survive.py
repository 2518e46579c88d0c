"""What the commands write replaces nothing but what they wrote before; a training that was stopped is of use."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from scene_runs import write_run
from two_classes import write_images

import resurge
from resurge.cli import main


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "detect", "detect")


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "segment", "segment")


@pytest.fixture
def originals(tmp_path: Path) -> Path:
    """Twelve photos, and smaller copies of them beside, under the same names."""
    for folder in ("originals", "small"):
        (tmp_path / folder).mkdir()
        for number in range(12):
            Image.new("RGB", (40, 30), (20 * number, 90, 200)).save(tmp_path / folder / f"{number}.png")
    return tmp_path / "originals"


CPU = ("--device", "cpu")


def on_cpu(words: Sequence[object]) -> list[str]:
    """A command, on the processor where it may be elsewhere."""
    return [*map(str, words), *(CPU if words[0] in ("bench", "eval", "predict", "train") else ())]


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(on_cpu(words)) == 2
    return capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------------- predict


@pytest.mark.parametrize("option", ["--explain", "--overlays", "--out"])
def test_predict_writes_over_no_photo(
    option: str, trained: Path, detector: Path, segmenter: Path, originals: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = {"--explain": trained, "--overlays": detector, "--out": segmenter}[option]
    before = everything(originals)
    assert "not replaced" in refused(capsys, "predict", run, originals.with_name("small"), option, originals)
    assert everything(originals) == before


@pytest.mark.parametrize("place", ["small", "small/new", "."])
@pytest.mark.parametrize("named", ["folder", "file"])
def test_predict_writes_neither_at_nor_in_nor_above_its_images(
    place: str, named: str, trained: Path, originals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "small" / ("3.png" if named == "file" else "")
    if (place, named) == ("small/new", "file"):
        return  # a file that is named has nothing in it
    before = everything(tmp_path)
    assert "to be read" in refused(capsys, "predict", trained, images, "--explain", tmp_path / place)
    assert everything(tmp_path) == before


def test_predict_replaces_its_own_pictures(
    trained: Path, detector: Path, originals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run, option in ((trained, "--explain"), (detector, "--overlays")):
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "mine.png").write_text("mine")
        for _ in range(2):
            assert main(["predict", str(run), str(originals), option, str(tmp_path / "new"), *CPU]) == 0
        assert (tmp_path / "new" / "mine.png").read_text() == "mine"
        assert (tmp_path / "new" / "11.png").is_file()
        shutil.rmtree(tmp_path / "new")


@pytest.mark.parametrize(
    "option, name, content",
    [
        ("--out", "found.csv", "path,label\na.png,cat\n"),
        ("--out", "found.json", '{\n  "images": [\n    {\n      "id": 1,\n      "path": "a.png"\n    }\n  ]\n}\n'),
        ("--coco-json", "found.json", '{"images": [], "categories": [], "annotations": []}\n'),
    ],
)
def test_a_file_of_predict_replaces_its_own_kind_only(
    option: str, name: str, content: str, detector: Path, originals: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    file = tmp_path / name
    words = ["predict", str(detector), str(originals), option, str(file)]
    for _ in range(2):
        assert main([*words, *CPU]) == 0
    file.write_text(content)
    assert "not replaced" in refused(capsys, *words)
    assert file.read_text() == content


# ---------------------------------------------------------------------------------------------------- other commands


def commands(trained: Path, photos: Path, weights: Path, out: Path) -> dict[str, tuple[list[object], Path]]:
    """Each command that writes a file where the user says, and the file."""
    convert = ["--model", "resnet18", "--to", "timm", "--overwrite"]
    return {
        "predict": (["predict", trained, photos, "--out", out / "x.csv"], out / "x.csv"),
        "eval": (["eval", trained, "--out", out], out / "evaluation.json"),
        "report": (["report", trained], trained / "report.html"),
        "show": (["show", "resnet18", "--diagram", out / "x.svg"], out / "x_stage3.svg"),
        "show png": (["show", "resnet18", "--size", "64", "--diagram", out / "x.png"], out / "x.png"),
        "convert": (["convert", weights, out / "x.safetensors", *convert], out / "x.safetensors"),
        "bench": (["bench", "resnet18", "--json", out / "x.json"], out / "x.json"),
        "bench plot": (["bench", "resnet18", "--plot", out / "x.svg"], out / "x.svg"),
    }


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(resurge.create_model("resnet18").state_dict(), path)
    return path


def test_a_file_is_no_run_directory(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.csv").write_text("mine")
    for more in ([], ["--overwrite"]):
        words = ["train", "--data", str(photos), "--out", str(tmp_path / "mine.csv"), "--steps", "1", *CPU, *more]
        assert main(words) == 2
        assert "mine.csv is a file. Give a folder" in capsys.readouterr().err
    assert (tmp_path / "mine.csv").read_text() == "mine"


NAMES = tuple(commands(Path(), Path(), Path(), Path()))


@pytest.mark.parametrize("kind", ["file", "pipe"])
@pytest.mark.parametrize("name", NAMES)
def test_no_command_replaces_what_is_not_its_own(
    name: str, kind: str, trained: Path, photos: Path, weights: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = shutil.copytree(trained, tmp_path / "run")
    words, file = commands(run, photos, weights, tmp_path)[name]
    file.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(file)
    else:
        file.write_text("precious")
    assert ("not replaced" if kind == "file" else "no ordinary file") in refused(capsys, *words)
    if kind == "pipe":
        assert stat.S_ISFIFO(file.stat().st_mode)
    else:
        assert file.read_text() == "precious"
    assert not [path for path in tmp_path.glob("x*") if path != file]


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("bench")])
def test_every_command_replaces_its_own(
    name: str, trained: Path, photos: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    words, file = commands(run, photos / "test", weights, tmp_path)[name]
    for _ in range(2):
        assert main(on_cpu(words)) == 0
        capsys.readouterr()
    assert file.stat().st_size


def test_nothing_is_written_into_data(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    write_images(data, 2, 0)
    before = everything(data)
    for words in (
        ["check-data", data, "--fix", data / "new"],
        ["check-data", data, "--fix", tmp_path],
        ["eval", trained, "--data", data, "--out", data],
        ["export", trained, "--format", "torch", "--calibrate", data, "--out", data / "new"],
        ["export", trained, "--format", "torch", "--out", photos / "new"],
        ["bench", "resnet18", "--calibrate", data, "--json", data / "x.json"],
        ["train", "--data", data, "--out", data / "left", "--overwrite"],
        ["predict", trained, data, "--out", data / "x.csv"],
    ):
        said = refused(capsys, *words)
        assert "kept apart from the data" in said, words
    assert everything(data) == before
    assert not (photos / "new").exists()


# -------------------------------------------------------------------------------------------------- a stopped training


@pytest.fixture
def stopped(trained: Path, tmp_path: Path) -> Path:
    """The run as a training leaves it that was killed after an epoch or more."""
    run = shutil.copytree(trained, tmp_path / "stopped")
    for name in ("model.json", "model.safetensors", "evaluation.json", "report.html"):
        (run / name).unlink()
    return run


def write_older_export(folder: Path) -> Path:
    """An export, with files of the user beside it."""
    (folder / "deep" / "er").mkdir(parents=True)
    about = {"format": 1, "spec": "resnet18", "export": {"format": "onnx", "files": {"model.onnx": {}}}}
    (folder / "model.json").write_text(json.dumps(about))
    for name in ("model.onnx", "certificate.json"):
        (folder / name).write_text("old")
    for name in ("notes.txt", "deep/er/mine.txt"):
        (folder / name).write_text("mine")
    return folder


def test_a_stopped_training_is_of_use(
    stopped: Path, trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = str(photos / "test")
    out = write_older_export(tmp_path / "out")
    for words in (["predict", "RUN", images, "--json"], ["eval", "RUN", "--json"],
                  ["export", "RUN", "--format", "torch", "--out", str(out), "--overwrite"]):  # fmt: skip
        device = [] if words[0] == "export" else CPU
        here = [str(stopped) if word == "RUN" else word for word in words]
        assert main([*here, *device]) == 2
        said = capsys.readouterr().err
        assert "--best" in said
        assert r"\n" not in said
        assert main([*here, "--best", *device]) == 0
        found = capsys.readouterr().out
        if words[0] != "export":  # the best checkpoint is what a training keeps at its end
            assert main([*(str(trained) if word == "RUN" else word for word in words), *device]) == 0
            expected = json.loads(capsys.readouterr().out)
            assert json.loads(found) | {"model": ""} == expected | {"model": ""}
    assert main(["predict", str(out), images, *CPU]) == 0
    # of the older export nothing is left, and of the user everything
    assert {path.name for path in out.iterdir()} == {"certificate.json", "deep", "model.json", "model.pt2", "notes.txt"}
    assert (out / "notes.txt").read_text() == (out / "deep" / "er" / "mine.txt").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"out", "stopped"}
    assert not (stopped / "model.json").exists()
    with torch.inference_mode():
        predictor = resurge.Predictor(stopped, "cpu", best=True)
        assert predictor.classes == ("left", "top")


@pytest.mark.parametrize("command", ["predict", "eval", "export"])
def test_best_of_what_has_no_checkpoint(
    command: str, stopped: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {"predict": [str(photos)], "eval": ["--device", "cpu"], "export": ["--out", str(tmp_path / "out")]}[command]
    (stopped / "checkpoints" / "best.ckpt").unlink()
    assert main([command, str(stopped), *more, "--best"]) == 2
    assert "best.ckpt" in capsys.readouterr().err
    assert main([command, str(stopped), *more]) == 2
    said = capsys.readouterr().err
    assert "--resume" in said
    assert "--best" not in said
