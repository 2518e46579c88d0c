"""train, eval, predict, report: from a folder of images to a model and its predictions."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from tiny_scenes import write_pairs

import resurge
from resurge import recipe as recipes
from resurge.cli import main
from resurge.cli.options import option_name
from resurge.config import fields
from resurge.errors import TrainingDiverged, TrainingInterrupted
from resurge.recipe import Recipe


def printed_recipe(capsys: pytest.CaptureFixture[str], *words: str) -> Recipe:
    assert main(["train", *words, "--print-recipe"]) == 0
    return Recipe.from_yaml(capsys.readouterr().out)


def test_every_field_of_a_recipe_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    names = [option_name(path) for path, *_ in fields(Recipe)]
    assert len(set(names)) == len(names)
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    for name in names:
        assert f"  {name} " in text or f"  {name}\n" in text, name


def test_options_change_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed_recipe(
        capsys,
        *["--model", "resnet50 stem=deep(32) gate=se", "--data", "my: photos, 2024", "--weights", "none"],
        *[
            "--lr",
            "1e-3",
            "--epochs",
            "7",
            "--compile",
            "--channels-last",
            "false",
            "--milestones",
            "3,5",
            "--std",
            "1,2,3",
        ],
        *["--mean", "[0.1, 0.2, 0.3]", "--crop-scale", "none", "--class-weights", "auto"],
        *["--set", "drop_path=0.2", "--set", "optimization.ema=0.99", "--set", "epochs=99"],
    )
    assert (found.model, found.data, found.weights) == ("resnet50 stem=deep(32) gate=se", "my: photos, 2024", None)
    assert (found.optimization.lr, found.optimization.epochs, found.optimization.ema) == (1e-3, 7, 0.99)
    assert (found.machine.compile, found.machine.channels_last) == (True, False)
    assert found.optimization.milestones == (3, 5)
    assert (found.images.mean, found.images.std) == ((0.1, 0.2, 0.3), (1, 2, 3))
    assert found.augmentation.crop_scale is None
    assert (found.regularization.class_weights, found.regularization.drop_path) == ("auto", 0.2)


def test_options_change_a_named_recipe_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    named = recipes.load_recipe("digits")
    found = printed_recipe(capsys, "--recipe", "digits", "--lr", "0.321")
    assert found == dataclasses.replace(named, optimization=dataclasses.replace(named.optimization, lr=0.321))


@pytest.mark.parametrize(
    "words, told",
    [
        (["--epochs", "many"], "epochs"),
        (["--lr", "-1"], "lr"),
        (["--precision", "fp8"], "precision"),
        (["--set", "nonsense"], "field=value"),
        (["--data", "no-such-folder", "--out", "OUT"], "no-such-folder"),
        (["--model", "resnot50", "--out", "OUT"], "'resnet50'"),
        (["--resume", "no-such-run"], "no-such-run"),
        (["--resume", "RUN", "--lr", "1"], "may change"),
        (["--resume", "RUN", "--out", "x"], "--out"),
        (["--data", "digits", "--weights", "no-such-file.pth", "--out", "OUT"], "no-such-file.pth"),
        (["--data", "digits", "--out", "RUN"], "--overwrite"),
        (["--data", "digits", "--device", "cpu", "--devices", "9999", "--out", "OUT"], "processors"),
    ],
)
def test_bad_input_of_train(
    words: list[str], told: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in trained.iterdir())
    places = {"OUT": str(tmp_path / "out"), "RUN": str(trained)}
    assert main(["train", *(places.get(word, word) for word in words)]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in trained.iterdir()) == before


def test_how_a_training_is_computed_may_change_when_it_goes_on(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    assert main(["train", "--resume", str(tmp_path / "run"), "--threads", "1", "--workers", "0"]) == 0


def test_a_recipe_that_was_cut_short_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    lines = (run / "recipe.yaml").read_text().splitlines(keepends=True)
    (run / "recipe.yaml").write_text("".join(lines[:-3]))
    assert main(["train", "--resume", str(run)]) == 2
    assert "cut short" in capsys.readouterr().err
    (run / "recipe.yaml").write_text("")
    assert main(["train", "--resume", str(run)]) == 2
    assert "cut short" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["1,2", "[1, 2]"])
def test_values_of_options(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--schedule", "step", "--milestones", text, "--data", "a: b", "--epochs", "3")
    recipe = printed_recipe(capsys, *words)
    assert recipe.optimization.milestones == (1.0, 2.0)
    assert recipe.data == "a: b"
    assert recipe.optimization.epochs == 3


def test_a_run_has_what_it_needs(trained: Path) -> None:
    for name in ("recipe.yaml", "metrics.csv", "model.safetensors", "model.json", "evaluation.json", "report.html"):
        assert (trained / name).is_file(), name
    evaluation = json.loads((trained / "evaluation.json").read_text())
    assert {entry["true"] for entry in evaluation["examples"]} == {"left", "top"}
    for entry in [*evaluation["examples"], *evaluation["mistakes"]]:
        for key in ("thumbnail", "overlay"):
            Image.open(trained / entry[key]).load()
    report = (trained / "report.html").read_text()
    assert report.count("<img") >= 2 * len(evaluation["examples"]) + 1 + 3  # pictures, the network, a block a stage
    assert (trained / "explain" / "cost.json").is_file()


def test_load_run(trained: Path) -> None:
    run = resurge.load_run(trained)
    assert run.classes == ("left", "top")
    with torch.inference_mode():
        assert run.model(torch.zeros(2, 3, 16, 16)).shape == (2, 2)


def test_report_is_written_anew(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copytree(trained, tmp_path / "copy")
    before = (copy / "report.html").read_text()
    (copy / "report.html").unlink()
    assert main(["report", str(copy)]) == 0
    assert "report.html" in capsys.readouterr().out
    after = (copy / "report.html").read_text()
    assert after.replace("copy", "photos") == before.replace("copy", "photos")


def test_eval_of_a_run_repeats_the_training_s_own_scores(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(trained), "--json", "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    kept = json.loads((trained / "evaluation.json").read_text())
    assert found["count"] == 12
    assert found["confusion"] == kept["confusion"]
    assert found["top1"] == kept["top1"]
    assert main(["eval", str(trained), "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert "top-1" in text
    assert "left" in text


def test_eval_on_other_data_and_split(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores"
    words = ["eval", str(trained), "--data", str(photos), "--split", "train", "--json", "--out", str(out)]
    assert main([*words, "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["count"] == 24
    assert json.loads((out / "evaluation.json").read_text())["top1"] == found["top1"]


def test_eval_into_the_run_renews_its_pictures(trained: Path, tmp_path: Path, photos: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    words = ["eval", str(run), "--data", str(photos), "--split", "train", "--out", str(run), "--device", "cpu"]
    assert main(words) == 0
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["count"] == 24
    assert all((run / entry["overlay"]).is_file() for entry in evaluation["examples"])
    assert main(["report", str(run)]) == 0


def test_eval_of_a_network_by_name(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = resurge.create_model("resnet20_cifar", num_classes=2)
    weights = tmp_path / "mine.pth"
    torch.save(model.state_dict(), weights)
    words = ["eval", "resnet20_cifar", "--weights", str(weights), "--data", str(photos), "--device", "cpu", "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["count"] == 12
    # what the published CIFAR networks want to see
    assert found["preprocessing"]["size"] == 32
    assert found["preprocessing"]["crop_pct"] == 1.0
    assert found["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    assert main([*words, "--size", "40", "--mean", "0.5,0.5,0.5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["preprocessing"]["size"], found["preprocessing"]["mean"]) == (40, [0.5, 0.5, 0.5])


def test_eval_does_not_score_a_random_classifier(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(resurge.create_model("resnet20_cifar", num_classes=10).state_dict(), tmp_path / "ten.pth")
    words = ["eval", "resnet20_cifar", "--weights", str(tmp_path / "ten.pth"), "--data", str(photos)]
    assert main(words) == 2
    assert "10 classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, told",
    [
        (["resnet50", "--data", "x"], "--weights"),
        (["no-such-run"], "no folder no-such-run"),
        (["resnet50", "--weights", "x.pth"], "--data"),
        (["RUN", "--weights", "x.pth"], "--weights"),
        (["RUN", "--data", "no-such-folder"], "no-such-folder"),
        (["RUN", "--device", "gpu"], "device"),
        (["RUN", "--precision", "fp8"], "precision"),
    ],
)
def test_bad_input_of_eval(words: list[str], told: str, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", *(str(trained) if word == "RUN" else word for word in words)]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error


@pytest.fixture
def mixed(tmp_path: Path, photos: Path) -> Path:
    """Three images, one of them broken, and files that are none."""
    folder = tmp_path / "mixed"
    (folder / "inner").mkdir(parents=True)
    shutil.copy(photos / "test" / "left" / "0.png", folder / "a.png")
    shutil.copy(photos / "test" / "top" / "0.png", folder / "inner" / "b.png")
    (folder / "broken.jpg").write_text("no image")
    (folder / "notes.txt").write_text("notes")
    return folder


def test_predict_reports_and_skips_what_cannot_be_read(
    trained: Path, mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(trained), str(mixed), "--json", "--top", "2", "--device", "cpu"]) == 1
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert [Path(image["path"]).name for image in found["images"]] == ["a.png", "b.png"]
    for image in found["images"]:
        scores = [ranked["score"] for ranked in image["predictions"]]
        assert {ranked["class"] for ranked in image["predictions"]} == {"left", "top"}
        assert sum(scores) == pytest.approx(1, abs=1e-5)
        assert scores == sorted(scores, reverse=True)
    assert [Path(entry["path"]).name for entry in found["skipped"]] == ["broken.jpg"]
    assert "broken.jpg" in printed.err
    assert "1 of 3 files skipped" in printed.err


def test_predict_agrees_with_eval(trained: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    confusion = json.loads((trained / "evaluation.json").read_text())["confusion"]
    for row, name in enumerate(("left", "top")):
        folder = str(photos / "test" / name)
        assert main(["predict", str(trained), folder, "--csv", "--device", "cpu", "--batch-size", "4"]) == 0
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        said = [line["class_1"] for line in rows]
        assert [said.count("left"), said.count("top")] == confusion[row]


def test_predict_prints_lines(trained: Path, mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(trained), str(mixed / "a.png"), "--device", "cpu"]) == 0
    line = capsys.readouterr().out
    assert line.startswith(str(mixed / "a.png"))
    assert line.endswith("%\n")


def test_predict_writes_a_file(trained: Path, mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "said.csv"
    words = ["predict", str(trained), str(mixed / "a.png"), str(mixed / "missing.png"), "--out", str(out)]
    assert main([*words, "--device", "cpu"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "missing.png" in printed.err
    assert [row["path"] for row in csv.DictReader(io.StringIO(out.read_text()))] == [str(mixed / "a.png")]


def test_predict_takes_names_that_are_no_text(trained: Path, mixed: Path, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        Path(os.fsdecode(odd)).write_bytes((mixed / "a.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    out = tmp_path / "said.csv"
    assert main(["predict", str(trained), os.fsdecode(odd), "--device", "cpu", "--out", str(out)]) == 0
    assert b"caf" in out.read_bytes()
    assert main(["predict", str(trained), os.fsdecode(odd), "--device", "cpu", "--json"]) == 0


def test_predict_explains(trained: Path, mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "overlays"
    images = [str(mixed / "a.png"), str(mixed / "inner" / "b.png"), str(mixed / "a.png")]
    assert main(["predict", str(trained), *images, "--explain", str(out), "--device", "cpu"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "attention.json", "b.png"]
    with Image.open(out / "a.png") as overlay:
        assert overlay.width > overlay.height
    attention = json.loads((out / "attention.json").read_text())
    assert {gate["kind"] for gate in attention["a.png"]["attention"]} == {"squeeze-excite"}


@pytest.mark.parametrize(
    "words, told",
    [
        (["RUN", "DIR", "--json", "--csv"], "Choose one"),
        (["RUN", "DIR", "--out", "said.txt"], ".csv or .json"),
        (["RUN", "DIR", "--top", "0"], "at least 1"),
        (["RUN", "EMPTY"], "no images"),
        (["EMPTY", "DIR"], "model.json"),
        (["no-such-run", "DIR"], "no-such-run"),
    ],
)
def test_bad_input_of_predict(
    words: list[str], told: str, trained: Path, mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"RUN": str(trained), "DIR": str(mixed), "EMPTY": str(tmp_path / "empty")}
    assert main(["predict", *(places.get(word, word) for word in words)]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "stop, code",
    [
        (TrainingInterrupted("stopped after step 3."), 130),
        (TrainingDiverged("the loss is not a number.", "backbone.stem"), 3),
    ],
)
def test_ways_a_training_stops(
    stop: Exception, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from resurge.train import train as training

    def train(*args: object, **kwargs: object) -> None:
        raise stop

    monkeypatch.setattr(training, "train", train)
    assert main(["train", "--data", "digits", "--out", str(tmp_path / "run")]) == code
    assert capsys.readouterr().err == f"resurge: {stop}\n"


def test_a_recipe_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"model": "resnest14", "optimization": {"lr": 0.5}}))
    assert printed_recipe(capsys, "--recipe", str(file), "--epochs", "3").optimization.lr == 0.5
    file.write_text("optimisation: {lr: 0.5}")
    assert main(["train", "--recipe", str(file), "--print-recipe"]) == 2
    assert "Did you mean 'optimization" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--model", "resnet50"], ["--recipe", "segment"], ["--task", "classify"]])
def test_a_training_asks_for_its_data(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *words]) == 2
    told = capsys.readouterr().err
    assert "expected --data" in told
    assert "Nothing was started. With --data digits this would be res" in told
    assert "pixels, " in told
    assert "steps of" in told
    assert "multiply-adds" in told
    assert not list(tmp_path.iterdir())


def test_options_without_effect_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["train", "--data", "digits", "--test-flip", "--out", str(out)]) == 2
    assert "--test-flip has no effect on the task classify. Leave it out." in capsys.readouterr().err
    # a recipe may hold what another choice of the command line makes idle
    assert main(["train", "--recipe", "digits_segment", "--head", "fcn", "--weights", str(tmp_path / "none.pth")]) == 2
    assert "none.pth" in capsys.readouterr().err
    assert not out.exists()


def test_eval_computes_in_the_precision_of_the_run(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(text.replace("precision: fp32", "precision: bf16"))
    threads = torch.get_num_threads()
    try:
        assert main(["eval", str(run), "--device", "cpu", "--threads", "1"]) == 0
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    assert "\ncomputed in bf16\n" in capsys.readouterr().out
    assert main(["eval", str(run), "--device", "cpu", "--precision", "fp32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["precision"] == "fp32"
    assert main(["eval", str(run), "--device", "cpu", "--precision", "fp32"]) == 0
    assert "computed in fp32 (trained, and scored then, in bf16)" in capsys.readouterr().out
    assert json.loads((trained / "model.json").read_text())["scores"]["precision"] == "fp32"
    assert "of 12 test images, computed in fp32" in " ".join((trained / "report.html").read_text().split())


def test_two_classes_have_no_top5(trained: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", str(photos), "--select-by", "top5", "--size", "16"]) == 2
    assert "select_by=top5 picks nothing among 2 classes" in capsys.readouterr().err
    rows = list(csv.DictReader((trained / "metrics.csv").read_text().splitlines()))
    assert {row["val_top5"] for row in rows} == {""}
    assert "op-5" not in (trained / "report.html").read_text()


def test_a_size_takes_the_crop_along(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_pairs(tmp_path / "pairs")
    words = [
        "--task",
        "segment",
        "--data",
        data,
        "--size",
        "48",
        "--max-size",
        "64",
        "--steps",
        "1",
        "--batch-size",
        "2",
    ]
    words += ["--model", "resnet18 depths=(1,1,1,1) planes=(8,8,16,16)", "--workers", "0", "--device", "cpu"]
    assert main(["train", *map(str, words), "--out", str(tmp_path / "run")]) == 0
    told = capsys.readouterr()
    assert "--crop-size 45,45 follows --size 48; give --crop-size for another." in told.err
    assert "shorter side 48 pixels, longer side at most 64, times 0.5 to 2, cut or padded to 45 x 45" in told.err
    assert "on the 4 images of the val split, computed in fp32" in told.out
