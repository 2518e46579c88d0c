"""A training replaces nothing but an earlier one of its own, is alone in its folder, and goes on with the same data."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_scenes import write_coco, write_pairs
from two_classes import write_images

from resurge.errors import UserError
from resurge.machine import versions
from resurge.recipe import Recipe
from resurge.runs import MARKER
from resurge.train.train import train

OF_A_RUN = ("checkpoints/last.ckpt", "tb/events.out.tfevents.1", "explain/cost.json", "explain/block_1.svg")


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "photos", 4, 0)
    return tmp_path / "photos"


@pytest.fixture
def short(tiny: Recipe, photos: Path) -> Recipe:
    """A step on eight photos."""
    return tiny.override([f"data={photos}", "batch_size=4", "steps=1", "warmup=0"])


# ---------------------------------------------------------------------------------------------- the user's own files


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_run_keeps_everything(overwrite: bool, short: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    for name in (*OF_A_RUN, "recipe.yaml", "metrics.csv", "report.html"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(short.to_yaml())
    before = everything(folder)
    with pytest.raises(UserError, match=r"no run directory|not empty"):
        train(short, folder, overwrite=overwrite, quiet=True)
    assert everything(folder) == before


def test_overwriting_a_run_removes_what_a_run_has_and_nothing_else(short: Recipe, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(short, run, quiet=True)
    events = set((run / "tb").iterdir())
    (run / "explain").mkdir()
    for name in ("checkpoints/mine.ckpt", "tb/notes.txt", "explain/figure.png", "notes.txt", "data/a.csv"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text(name)
    train(short.override(["lr=0.2"]), run, overwrite=True, quiet=True)
    assert not events & set((run / "tb").iterdir())
    for name in ("checkpoints/mine.ckpt", "tb/notes.txt", "explain/figure.png", "notes.txt", "data/a.csv"):
        assert (run / name).read_text() == name
    assert "lr: 0.2" in (run / "recipe.yaml").read_text()


@pytest.mark.parametrize("out", ["photos", "photos/run", ".", "photos/left", "link"])
def test_the_folder_of_a_run_is_apart_from_the_data(out: str, short: Recipe, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("photos")
    (photos / "left").rename(photos / "explain")  # a class by the name of a folder of ours
    before = everything(tmp_path)
    with pytest.raises(UserError, match="kept apart from the data"):
        train(short, tmp_path / out, overwrite=True, quiet=True)
    assert everything(tmp_path) == before


def test_the_folder_of_a_run_is_apart_from_the_images_that_a_table_lists(
    short: Recipe, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "tables").mkdir()
    lines = [f"{path},{path.parent.name}" for path in sorted(photos.rglob("*.png"))]
    (tmp_path / "tables" / "list.csv").write_text("\n".join(["path,label", *lines]))
    listed = short.override([f"data={tmp_path / 'tables' / 'list.csv'}"])
    (photos / MARKER).touch()  # as if it were ours
    with pytest.raises(UserError, match=r"lies above .*png"):
        train(listed, photos, overwrite=True, quiet=True)
    assert len(list(photos.rglob("*.png"))) == 8
    train(listed, tmp_path / "tables" / "run", quiet=True)  # beside a table there is room for a run


def test_a_run_may_have_the_name_of_its_data(short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(short.override(["data=digits", "batch_size=64"]), "digits", quiet=True)
    assert (tmp_path / "digits" / "model.json").is_file()


def test_a_training_that_cannot_begin_leaves_no_folder(short: Recipe, photos: Path, tmp_path: Path) -> None:
    shutil.rmtree(photos / "left")
    with pytest.raises(UserError, match="single class"):
        train(short, tmp_path / "new" / "run", quiet=True)
    assert not (tmp_path / "new").exists()


# ----------------------------------------------------------------------------------------------------- one at a time

HOLD = """
import sys, time
from pathlib import Path
from resurge.files import locked
with locked(Path(sys.argv[1]), "", ""):  # as a training does, but without torch
    print("in", flush=True)
    time.sleep(300)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no locks")
@pytest.mark.parametrize("second", ["new", "overwrite", "resume"])
def test_two_trainings_in_one_folder(second: str, short: Recipe, tmp_path: Path) -> None:
    run = tmp_path / "run"
    if second != "new":
        train(short, run, quiet=True)
    run.mkdir(exist_ok=True)
    before = everything(run)
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(run / MARKER)], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "in\n"
        with pytest.raises(UserError, match=f"a training runs in .* already .process {first.pid} "):
            train(None if second == "resume" else short, run, quiet=True, **{second: True} if second != "new" else {})
        before[MARKER] = everything(run)[MARKER]
        assert everything(run) == before
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate(timeout=60)
    # the lock went with its process
    train(None if second == "resume" else short, run, quiet=True, **{second: True} if second != "new" else {})
    assert (run / "model.json").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no locks")
def test_what_a_killed_training_was_writing_is_swept(short: Recipe, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(short, run, quiet=True)
    left = [".metrics.csv.abcd1234.tmp", "checkpoints/.last.ckpt.x_y0z1w2.tmp", "explain/.block_1.svg.abcd1234.tmp"]
    mine = [".notes.txt.abcd1234.tmp", "checkpoints/.mine.ckpt.abcd1234.tmp", ".metrics.csv.swp"]
    (run / "explain").mkdir()
    for name in (*left, *mine):
        (run / name).write_text("half")
    train(None, run, resume=True, quiet=True)
    assert [name for name in (*left, *mine) if (run / name).exists()] == mine


# ----------------------------------------------------------------------------------------------------- the same data


def moved(photos: Path, name: str, to: str) -> None:
    (photos / to).parent.mkdir(exist_ok=True)
    (photos / name).rename(photos / to)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "removed": (lambda photos: (photos / "left/0.png").unlink(), r"1 image removed \(.*left/0\.png\)"),
    "added": (
        lambda photos: Image.new("RGB", (24, 20)).save(photos / "top/9.png"), r"1 image added \(.*top/9\.png\)"
    ),
    "renamed": (
        lambda photos: moved(photos, "left/0.png", "left/00.png"), r"1 image renamed \(.*left/0\.png, now .*00\.png"
    ),
    "in another class": (
        lambda photos: moved(photos, "left/0.png", "top/00.png"),
        r"1 image in another class \(.*left/0\.png, left, now top\)",
    ),
    "replaced": (
        lambda photos: Image.new("RGB", (24, 20), "red").save(photos / "top/0.png"),
        r"1 image replaced by another picture \(.*top/0\.png\)",
    ),
    "exchanged": (
        lambda photos: [moved(photos, *pair) for pair in (("left/0.png", "x"), ("top/0.png", "left/0.png"),
                                                          ("x", "top/0.png"))],
        r"2 images replaced by another picture",
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_training_does_not_go_on_with_other_data(change: str, short: Recipe, photos: Path, tmp_path: Path) -> None:
    run, (alter, told) = tmp_path / "run", CHANGES[change]
    train(short, run, quiet=True)
    train(None, run, resume=True, quiet=True)
    before = everything(run)
    alter(photos)
    with pytest.raises(UserError, match=told) as refused:
        train(None, run, resume=True, quiet=True)
    assert "would mix training and validation" in str(refused.value)
    assert everything(run).keys() == before.keys()
    assert everything(run)["checkpoints/last.ckpt"] == before["checkpoints/last.ckpt"]


def test_labels_of_a_table_that_were_changed(short: Recipe, photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    lines = [f"{path},{path.parent.name}" for path in sorted(photos.rglob("*.png"))]
    table.write_text("\n".join(["path,label", *lines]))
    train(short.override([f"data={table}"]), tmp_path / "run", quiet=True)
    table.write_text("\n".join(["path,label", lines[0].replace(",left", ",top"), *lines[1:]]))
    with pytest.raises(UserError, match=r"1 image in another class \(.*, left, now top\)"):
        train(None, tmp_path / "run", resume=True, quiet=True)


SCENE = (
    "steps=1", "batch_size=2", "size=32", "max_size=64", "warmup=0", "workers=0", "threads=1", "device=cpu",
    "model=resnet18 depths=(1,1,1,1) planes=(8,8,16,16) stem=conv7x7(8)",
)  # fmt: skip
OF_TASK = {
    "detect": ("fpn_channels=8", "box_channels=16", "max_detections=5", "rpn_proposals_train=20",
               "rpn_proposals_test=10", "rpn_batch=16", "roi_batch=8"),
    "segment": ("head=fcn", "head_channels=8"),
}  # fmt: skip


@pytest.mark.parametrize("task", OF_TASK)
def test_a_training_does_not_go_on_with_other_annotations(task: str, tmp_path: Path) -> None:
    data = (write_coco if task == "detect" else write_pairs)(tmp_path / "data", 4, 2)
    recipe = Recipe().override([f"task={task}", f"data={data}", *SCENE, *OF_TASK[task]])
    train(recipe, tmp_path / "run", quiet=True)
    train(None, tmp_path / "run", resume=True, quiet=True)
    if task == "detect":
        file = data / "annotations" / "instances_train.json"
        content = json.loads(file.read_text())
        content["annotations"][0]["bbox"][2] -= 3
        file.write_text(json.dumps(content))
    else:
        file = data / "masks" / "train" / "1.png"
        values = np.asarray(Image.open(file)).copy()
        values[30:40, 30:40] = 2 - values[30:40, 30:40].clip(0, 1)
        Image.fromarray(values).save(file)
    with pytest.raises(UserError, match=r"1 image annotated otherwise \(.*1\.png\)"):
        train(None, tmp_path / "run", resume=True, quiet=True)


def test_what_ends_equality_to_the_last_bit_is_said(
    short: Recipe, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    train(short, run, quiet=True)
    train(None, run, resume=True)
    assert "last bits" not in capfd.readouterr().err
    module = importlib.import_module("resurge.train.train")
    monkeypatch.setattr(module, "versions", lambda *names: {**versions(*names), "torch": "99.1"})
    train(short.override(["threads=2", "channels_last=false"]), run, resume=True)
    said = [line for line in capfd.readouterr().err.splitlines() if "last bits" in line]
    assert len(said) == 1
    assert "threads 2 (before: 1), channels_last False (before: True), torch 99.1 (before: " in said[0]


# -------------------------------------------------------------------------------------------------------- same bytes


def test_identical_trainings_leave_identical_files(short: Recipe, tmp_path: Path) -> None:
    code = "import sys; from resurge.train.train import train; from resurge.recipe import Recipe; " + (
        "train(Recipe.from_yaml(sys.argv[1]), sys.argv[2], quiet=True)"
    )
    train(short, tmp_path / "one", quiet=True)
    # in another process, which has another order of what has none
    command = [sys.executable, "-c", code, short.to_yaml(), str(tmp_path / "two")]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    one, two = (everything(tmp_path / name) for name in ("one", "two"))
    same = {name for name in one.keys() & two.keys() if one[name] == two[name]}
    # metrics.csv and tb/ tell the time; the pickle in a checkpoint depends on which texts are one object
    others = {
        name for name in one.keys() | two.keys() if name.startswith(("metrics.csv", "tb/", "checkpoints/", MARKER))
    }
    assert same | others == one.keys() | two.keys()
    assert {"model.safetensors", "model.json", "evaluation.json"} <= same
