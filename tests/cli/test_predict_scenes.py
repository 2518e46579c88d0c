"""`resurge predict` for detectors, instance segmenters and semantic segmenters."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scene_runs import CLASSES, write_pictures, write_run

from resurge.cli import main

READABLE = ["clear.png", "grey.png", "turned.jpg", "wide.jpg"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data") / "pictures")


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "detect", "detect")


@pytest.fixture(scope="module")
def instances(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "instances", "instances")


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "segment", "segment")


def predict(*words: object) -> int:
    return main(["predict", *map(str, words), "--device", "cpu", "--debug"])


def test_json_of_a_detector(detector: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(detector, pictures, "--json", "--score", 0.05) == 1
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert [Path(image["path"]).name for image in found["images"]] == READABLE
    assert [Path(entry["path"]).name for entry in found["skipped"]] == ["broken.jpg", "deep.tif"]
    assert "1 band of integers of more than 8 bits" in found["skipped"][1]["problem"]
    sizes = {Path(image["path"]).name: (image["width"], image["height"]) for image in found["images"]}
    assert sizes["turned.jpg"] == (60, 90)
    assert any(image["objects"] for image in found["images"])
    for image in found["images"]:
        scores = [thing["score"] for thing in image["objects"]]
        assert scores == sorted(scores, reverse=True)
        for thing in image["objects"]:
            assert thing["class"] in CLASSES
            x1, y1, x2, y2 = thing["box"]
            assert 0 <= x1 <= x2 <= image["width"]
            assert 0 <= y1 <= y2 <= image["height"]


def test_text_and_csv_of_a_detector(detector: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(detector, pictures / "wide.jpg", "--score", 0.05) == 0
    line = capsys.readouterr().out
    assert line.startswith(str(pictures / "wide.jpg"))
    assert "; surest " in line
    assert predict(detector, pictures / "wide.jpg", "--score", 0.05, "--csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert rows
    assert {row["class"] for row in rows} <= set(CLASSES)


def test_nothing_found_is_an_answer(
    instances: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--score", 1, "--overlays", tmp_path / "drawn", "--coco-json", tmp_path / "all.json"]
    assert predict(instances, pictures / "wide.jpg", *words) == 0
    assert "nothing found; the best score seen is 0." in capsys.readouterr().out
    content = json.loads((tmp_path / "all.json").read_text())
    assert len(content["images"]) == 1
    assert content["annotations"] == []
    with Image.open(tmp_path / "drawn" / "wide.png") as picture:
        assert picture.size == (90 * 5, 60 * 5)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own
def test_a_coco_file_opens_elsewhere(instances: Path, pictures: Path, tmp_path: Path) -> None:
    pycocotools = pytest.importorskip("pycocotools.coco")
    out = tmp_path / "all.json"
    assert predict(instances, pictures, "--score", 0, "--coco-json", out, "--json", "--out", tmp_path / "x.json") == 1
    read = pycocotools.COCO(str(out))
    assert [read.cats[k]["name"] for k in sorted(read.cats)] == list(CLASSES)
    assert [image["file_name"] for image in read.imgs.values()] == READABLE
    assert read.anns
    for annotation in read.anns.values():
        image = read.imgs[annotation["image_id"]]
        mask = read.annToMask(annotation)
        assert mask.shape == (image["height"], image["width"])
        assert mask.sum() == annotation["area"]
        left, top, _, height = annotation["bbox"]
        rows, columns = np.nonzero(mask)
        if len(rows):  # the mask lies in its box
            assert columns.min() >= left - 1.5
            assert rows.max() <= top + height + 1.5


def test_images_of_folders_are_named_from_what_they_share(detector: Path, pictures: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.jpg").write_bytes((pictures / "wide.jpg").read_bytes())
    words = ["--coco-json", tmp_path / "all.json", "--overlays", tmp_path / "drawn"]
    assert predict(detector, tmp_path / "a", tmp_path / "b", *words) == 0
    content = json.loads((tmp_path / "all.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["a/same.jpg", "b/same.jpg"]
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["same-2.png", "same.png"]


def test_batches_say_what_single_images_say(
    segmenter: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for size in (1, 4):
        assert predict(segmenter, pictures, "--csv", "--batch-size", size) == 1
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]


def test_label_maps_are_index_pictures(
    segmenter: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "maps"
    assert predict(segmenter, pictures, "--out", out, "--overlays", tmp_path / "drawn", "--json") == 1
    said = {Path(image["path"]).name: image for image in json.loads(capsys.readouterr().out)["images"]}
    assert sorted(path.name for path in out.iterdir()) == [Path(name).stem + ".png" for name in READABLE]
    for name, (width, height) in {"wide.jpg": (90, 60), "turned.jpg": (60, 90)}.items():
        with Image.open(out / (Path(name).stem + ".png")) as picture:
            assert picture.mode == "P"
            assert picture.size == (width, height)
            values = np.asarray(picture)
        assert values.max() < len(CLASSES)
        counts = {entry["class"]: entry["pixels"] for entry in said[name]["classes"]}
        assert counts == {CLASSES[k]: n for k, n in enumerate(np.bincount(values.ravel())) if n}
        assert said[name]["map"] == str(out / (Path(name).stem + ".png"))
    assert len(list((tmp_path / "drawn").iterdir())) == len(READABLE)


def test_views_of_a_segmenter(segmenter: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, same, other = [], [], []
    for words, kept in (([], plain), (["--window", "none"], same), (["--scales", "0.5,1", "--flip"], other)):
        assert predict(segmenter, pictures / "wide.jpg", "--json", *words) == 0
        kept.append(json.loads(capsys.readouterr().out)["images"][0]["confidence"])
    assert plain == same
    assert plain != other
    assert predict(segmenter, pictures / "wide.jpg", "--window", "32,32") == 0


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_explanations_of_the_backbone(task: str, pictures: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", task, model="resnet18 depths=(1,1,1,1) planes=(8,8,16,16) gate=se(reduction=2)")
    out = tmp_path / "explained"
    assert predict(run, pictures / "wide.jpg", pictures / "grey.png", "--explain", out) == 0
    assert sorted(path.name for path in out.iterdir()) == ["attention.json", "grey.png", "wide.png"]
    attention = json.loads((out / "attention.json").read_text())
    assert {gate["kind"] for gate in attention["wide.png"]["attention"]} == {"squeeze-excite"}


def test_large_images_are_bounded(instances: Path, segmenter: Path, tmp_path: Path) -> None:
    Image.new("RGB", (4000, 600), (90, 120, 60)).save(tmp_path / "long.png")
    for run in (instances, segmenter):
        words = ["--max-size", "64", "--overlays", tmp_path / f"drawn-{run.name}", "--score", "0.05"]
        words = words if run is instances else words[:-2]
        assert predict(run, tmp_path / "long.png", *words) == 0
        with Image.open(tmp_path / f"drawn-{run.name}" / "long.png") as picture:
            assert picture.width == 1600


def test_grey_networks_take_any_image(pictures: Path, tmp_path: Path) -> None:
    for task in ("detect", "segment"):
        run = write_run(tmp_path / task, task, channels=1)
        assert predict(run, pictures) == 1


@pytest.mark.parametrize(
    "task, words, told",
    [
        ("detect", ["--top", "3"], "--top"),
        ("detect", ["--scales", "1,2"], "--scales"),
        ("segment", ["--score", "0.5"], "--score"),
        ("segment", ["--coco-json", "x.json"], "--coco-json"),
        ("segment", ["--out", "x.json"], "folder"),
        ("segment", ["--window", "3"], "height and a width"),
        ("segment", ["--scales", "0"], "above 0"),
        ("detect", ["--score", "50"], "at most 1"),
        ("detect", ["--max-size", "0"], "at least 1"),
        ("detect", ["--out", "maps"], ".csv or .json"),
        ("segment", ["--out", "maps", "--overlays", "maps"], "same folder"),
        ("segment", ["--out", "PICTURES"], "to be read"),
    ],
)
def test_bad_input(
    task: str, words: list[str], told: str, detector: Path, segmenter: Path, pictures: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    run = detector if task == "detect" else segmenter
    words = [str(pictures) if word == "PICTURES" else word for word in words]
    assert main(["predict", str(run), str(pictures), *words, "--device", "cpu"]) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert printed.out == ""
    assert list(tmp_path.iterdir()) == []
