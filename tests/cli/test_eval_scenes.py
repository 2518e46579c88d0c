"""`resurge eval` and `resurge report` for detectors, instance segmenters and semantic segmenters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scene_files import mask, picture, write_pairs
from scene_runs import DETECTOR, MODEL, SEGMENTER, write_run

import resurge
from resurge.cli import main
from resurge.data.formats import digits
from resurge.data.formats.digits import DIGITS
from resurge.recipe import Recipe

TASKS = ("detect", "instances", "segment")


@pytest.fixture(scope="module", autouse=True)
def few_scenes() -> Iterator[None]:
    """The embedded scenes, but few of them."""
    patch = pytest.MonkeyPatch()
    patch.setattr(digits, "COUNTS", {"train": 4, "val": 3, "test": 5})
    digits._scenes.cache_clear()
    yield
    patch.undo()
    digits._scenes.cache_clear()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each task that says it was trained on the embedded scenes."""
    found = {}
    for task in TASKS:
        classes = ("background", *DIGITS) if task == "segment" else DIGITS
        recipe = Recipe().replace({"task": task, "data": "digits", "model": MODEL})
        found[task] = write_run(tmp_path_factory.mktemp("runs") / task, task, classes=classes, recipe=recipe.to_yaml())
    return found


def evaluate(*words: object) -> int:
    return main(["eval", *map(str, words), "--device", "cpu", "--debug"])


@pytest.mark.parametrize("task", TASKS)
def test_eval_into_the_run_and_its_report(
    task: str, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(runs[task], tmp_path / "run")
    assert evaluate(run, "--out", run, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["count"] == 5
    assert found["task"] == task
    kept = json.loads((run / "evaluation.json").read_text())
    assert kept == found
    assert kept["examples"]["worst"]
    for entries in kept["examples"].values():
        for entry in entries:
            for key in ("thumbnail", "overlay"):
                with Image.open(run / entry[key]) as picture:
                    assert max(picture.size) >= 288
    costs = json.loads((run / "explain" / "cost.json").read_text())
    assert costs["input"] == [3, 48, 48]
    total = costs["total"]["parameters"] + costs.get("other_parameters", 0)
    assert total == sum(p.numel() for p in resurge.load_run(run).model.parameters())
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "Worst images" in page
    assert page.count("data:image/jpeg") >= 2 * len(kept["examples"]["worst"])


def test_text_of_a_detector(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(runs["instances"], "--split", "val") == 0
    text = capsys.readouterr().out
    assert "3 images in 10 classes: the val split of digits" in text
    lines = [line for line in text.splitlines() if line.startswith("average")]
    assert len(lines) == 12
    assert lines[0].split()[:5] == ["average", "precision", "0.50:0.95", "all", "100"]
    assert "mask AP50" in text


def test_text_of_a_segmenter_and_its_views(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(runs["segment"], "--flip", "--scales", "1,1.5", "--window", "40,40") == 0
    text = capsys.readouterr().out
    assert "mIoU" in text
    assert "background" in text
    assert evaluate(runs["segment"], "--flip", "--json") == 0
    assert json.loads(capsys.readouterr().out)["inference"] == {"scales": [1.0], "flip": True, "window": None}


def test_eval_of_other_data_and_size(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(runs["detect"], "--data", "digits", "--split", "train", "--size", "64", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["count"] == 4
    assert (found["preprocessing"]["short_side"], found["preprocessing"]["max_size"]) == (64, 128)
    assert evaluate(runs["detect"], "--data", "digits", "--max-size", "32", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["preprocessing"]["short_side"], found["preprocessing"]["max_size"]) == (32, 32)


@pytest.mark.parametrize("task, head", [("detect", "retinanet"), ("segment", "fcn")])
def test_eval_of_a_network_by_name(task: str, head: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classes = 11 if task == "segment" else 10
    model = resurge.create_model("resnet18", classes, task=task, head=head)
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    words = ["resnet18", "--weights", tmp_path / "mine.pth", "--data", "digits", "--task", task]
    assert evaluate(*words, "--head", head, "--size", "48", "--json") == 0
    assert json.loads(capsys.readouterr().out)["count"] == 5
    other = resurge.create_model("resnet18", 4, task=task, head=head)
    torch.save(other.state_dict(), tmp_path / "mine.pth")
    assert main(["eval", *map(str, words), "--head", head]) == 2
    assert "mine.pth" in capsys.readouterr().err


def test_data_that_was_changed_is_not_taken_for_the_training_s(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(runs["detect"], tmp_path / "run")
    meta = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps(meta | {"data": {"sizes": {"train": 4, "val": 3, "test": 6}}}))
    assert main(["eval", str(run)]) == 2
    assert "was changed" in capsys.readouterr().err
    (run / "recipe.yaml").unlink()
    assert main(["eval", str(run)]) == 2
    assert "--data" in capsys.readouterr().err


def test_an_image_that_the_training_left_out_is_left_out_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_pairs(tmp_path / "data")
    (data / "images/val/p1.jpg").write_bytes(b"no picture")
    recipe = Recipe().replace({"task": "segment", "data": str(data), "model": MODEL})
    classes = tuple(f"class {k}" for k in range(3))
    run = write_run(tmp_path / "run", "segment", classes=classes, recipe=recipe.to_yaml())
    meta = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps(meta | {"data": {"sizes": {"train": 3, "val": 2}}}))
    assert evaluate(run, "--json") == 0
    assert json.loads(capsys.readouterr().out)["count"] == 2


@pytest.mark.parametrize(
    "words, told",
    [
        (["detect", "--crop-pct", "0.9"], "--crop-pct"),
        (["detect", "--flip"], "--flip"),
        (["detect", "--task", "detect"], "--task"),
        (["segment", "--window", "8"], "height and a width"),
        (["segment", "--flip", "maybe"], "true or false"),
        (["resnet18", "--weights", "x", "--data", "digits", "--task", "detect", "--head", "mask_rcnn"], "instances"),
        (["resnet18", "--weights", "x", "--data", "digits", "--task", "detct"], "'detect'"),
    ],
)
def test_bad_input(words: list[str], told: str, runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(runs[word]) if word in runs and i == 0 else word for i, word in enumerate(words)]
    assert main(["eval", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error


def test_tiny_settings_are_kept(runs: dict[str, Path]) -> None:
    assert resurge.load_run(runs["detect"]).model.settings == DETECTOR
    assert resurge.load_run(runs["segment"]).model.settings == SEGMENTER


# ---------------------------------------------------------------------------------- what the values of masks mean


def write_masks(root: Path, values: tuple[int, ...], count: int = 4) -> Path:
    """Images of 40 x 30 pixels with masks of these values, in columns 10 pixels wide."""
    columns = np.repeat(np.array([values[k % len(values)] for k in range(4)]), 10)
    for i in range(count):
        picture(root / f"images/{i}.png", i)
        mask(root / f"masks/{i}.png", columns[None].repeat(30, 0))
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of a step each: of three classes, of two with the values 0 and 255, and of two that a file names."""
    root = tmp_path_factory.mktemp("trained")
    names = root / "names.txt"
    names.write_text("no\ncrack\n")
    kinds = {"three": ((0, 1, 2), []), "two": ((0, 255), []), "named": ((0, 128), ["--classes", names])}
    for name, (values, words) in kinds.items():
        data = write_masks(root / f"{name}_data", values)
        short = ["--steps", 1, "--batch-size", 2, "--size", 32, "--device", "cpu", "--workers", 0]
        out = ["--out", root / name, "--head", "fcn", "--channels-last", "false"]
        assert (
            main(list(map(str, ["train", "--task", "segment", "--model", MODEL, "--data", data, *short, *out, *words])))
            == 0
        )
    names.unlink()  # the run has the names, not the file
    return {name: root / name for name in kinds}


def test_a_run_keeps_names_and_values(trained: dict[str, Path]) -> None:
    kept = {name: json.loads((run / "model.json").read_text()) for name, run in trained.items()}
    assert kept["three"]["data"]["values"] == {"0": "class 0", "1": "class 1", "2": "class 2"}
    assert kept["two"]["data"]["values"] == {"0": "background", "255": "foreground"}
    assert kept["named"]["data"]["values"] == {"0": "no", "128": "crack"}
    assert kept["named"]["classes"] == ["no", "crack"]


@pytest.mark.parametrize("run, values, pixels, said", [
    ("three", (0, 1), {"class 0": 2400, "class 1": 2400, "class 2": 0}, "classes of the run"),
    ("three", (0,), {"class 0": 4800, "class 1": 0, "class 2": 0}, "classes of the run"),
    ("three", (2, 1), {"class 0": 0, "class 1": 2400, "class 2": 2400}, "classes of the run"),
    ("two", (0, 255), {"background": 2400, "foreground": 2400}, "0 background, 255 foreground"),
    ("two", (0, 1), {"background": 2400, "foreground": 2400}, "0 background, 1 foreground"),
    ("two", (0,), {"background": 4800, "foreground": 0}, "classes of the run"),
    ("named", (0, 255), {"no": 2400, "crack": 2400}, "0 no, 255 crack"),
])  # fmt: skip
def test_other_data_is_read_as_the_training_s(
    run: str, values: tuple[int, ...], pixels: dict[str, int], said: str, trained: dict[str, Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    capsys.readouterr()
    assert evaluate(trained[run], "--data", write_masks(tmp_path / "other", values), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {each["class"]: each["pixels"] for each in found["per_class"]} == pixels
    assert said in found["data"]


def test_other_values_have_to_be_named(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_masks(tmp_path / "other", (0, 255))
    assert evaluate(trained["three"], "--data", other) == 2
    assert "255 with nothing but 0" in capsys.readouterr().err
    assert evaluate(trained["three"], "--data", other, "--classes", "0=class 0,255=class 2", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["pixels"] for each in found["per_class"]] == [2400, 0, 2400]
    assert evaluate(trained["three"], "--classes", "0=class 0,255=class 2") == 2
    assert "--data" in capsys.readouterr().err
    assert evaluate(trained["three"], "--data", other, "--classes", "0=class 0,255=crack") == 2
    assert "'crack' is not one of training's" in capsys.readouterr().err
