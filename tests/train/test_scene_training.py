"""Trainings of the dense tasks on a few scenes: they run, resume to the same bits, and say what is wrong."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_scenes import SIDE, write_coco, write_pairs

from resurge.data.sources import open_data
from resurge.errors import TrainingDiverged, UserError
from resurge.recipe import Recipe, list_recipes, load_recipe, recipe_text
from resurge.runs import load_run
from resurge.tasks.objective import SceneObjective
from resurge.tasks.table import TASKS
from resurge.train.train import build_model, train

MODEL = "resnest14 stem=deep(4) planes=(8,8,8,8) depths=(1,1,1,1)"
SMALL = [
    f"model={MODEL}", "batch_size=2", "epochs=2", "warmup=0.5", "lr=0.02", "lr_per=0", "threads=1", "workers=0",
    "device=cpu", "fpn_channels=16", "head_norm=true", "anchor_scale=4", "rpn_proposals_train=40",
    "rpn_proposals_test=20", "roi_batch=16", "box_channels=16", "mask_channels=8", "head_channels=16",
    "crop_scale=null",
]  # fmt: skip
# what makes each recipe of a large data set small enough for a test
FEW_STEPS = [
    "steps=2", "milestones=[1]", "batch_size=2", "threads=1", "workers=0", "device=cpu", "devices=1", "precision=fp32",
    "norm=batch", "weights=null", "size=64", "max_size=96", "checkpoint_every=0", "roi_batch=16",
    "rpn_proposals_train=40", "rpn_proposals_test=20", "fpn_channels=16", "box_channels=16", "mask_channels=8",
    "head_channels=16",
]  # fmt: skip
LARGE = [name for name in list_recipes() if name.split("/")[0] in ("coco", "ade20k", "cityscapes")]

KILLED = Path(__file__).with_name("killed.py")


def small(task: str, data: Path, *changes: str) -> Recipe:
    return Recipe().override([f"task={task}", f"data={data}", *SMALL, *changes])


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("scenes") / "coco")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("scenes") / "pairs")


@pytest.fixture(autouse=True)
def _threads_put_back() -> None:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("task", ["detect", "instances", "segment"])
def test_a_training_leaves_a_run_that_loads(task: str, coco: Path, pairs: Path, tmp_path: Path) -> None:
    recipe = small(task, pairs if task == "segment" else coco, "color_jitter=0.2", "vflip=0.5", "ema=0.5")
    result = train(recipe, tmp_path, quiet=True)
    assert result["split"] == "val"
    assert result["count"] == 4
    first = TASKS[task].metrics[0]
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(0 <= float(row[f"val_{first}"]) <= 1 for row in rows)
    terms = [name for name in rows[0] if name.startswith("train_loss_")]
    assert len(terms) == {"detect": 4, "instances": 5, "segment": 2}[task]
    assert sum(float(rows[0][name]) for name in terms) == pytest.approx(float(rows[0]["train_loss"]), rel=1e-4)
    run = load_run(tmp_path)
    assert (run.task, run.model.head_name) == (task, TASKS[task].heads[0])
    assert run.model.settings == (recipe.segmenter if task == "segment" else recipe.detector)
    meta = json.loads((tmp_path / "model.json").read_text())
    assert meta["scores"][first] == result["scores"][first]


@pytest.mark.parametrize("task", ["instances", "segment"])
def test_killed_in_mid_epoch_resumes_to_the_same_bits(task: str, coco: Path, pairs: Path, tmp_path: Path) -> None:
    changes = ["color_jitter=0.2", "vflip=0.5", "short_sides=[48,64]", "ema=0.5", "checkpoint_every=1"]
    recipe = small(task, pairs if task == "segment" else coco, *changes)
    train(recipe, tmp_path / "whole", quiet=True)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    command = [
        sys.executable,
        str(KILLED),
        str(tmp_path / "cut"),
        str(tmp_path / "recipe.yaml"),
        "3",
        str(signal.SIGKILL),
    ]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, timeout=200)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    train(None, tmp_path / "cut", resume=True, quiet=True)
    one, other = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("whole", "cut")
    )
    assert one["resurge"]["position"] == other["resurge"]["position"]
    assert all(torch.equal(value, other["state_dict"][name]) for name, value in one["state_dict"].items())
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())


def test_a_term_of_the_loss_that_is_not_a_number_is_named(
    coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = SceneObjective.losses

    def poisoned(self, net, batch):
        terms, sums = losses(self, net, batch)
        return terms | {"loss_box": terms["loss_box"] * float("nan")}, sums

    monkeypatch.setattr(SceneObjective, "losses", poisoned)
    with pytest.raises(TrainingDiverged, match="its term loss_box"):
        train(small("detect", coco), tmp_path, quiet=True)


@pytest.mark.parametrize("crop", ["[16,16]", "null"])
def test_label_maps_of_nothing_but_ignored_pixels_are_counted_once(
    crop: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = write_pairs(tmp_path / "data")
    maps = sorted((data / "masks" / "train").iterdir())
    for path in maps[1:3]:
        Image.new("L", (SIDE, SIDE), 255).save(path)
    corner = Image.new("L", (SIDE, SIDE), 255)  # most crops of it are ignored, but there is something to learn
    corner.putpixel((0, 0), 1)
    corner.save(maps[4])
    train(small("segment", data, f"crop_size={crop}"), tmp_path / "run", quiet=True)
    (said,) = [record.getMessage() for record in caplog.records if "ignored" in record.getMessage()]
    assert said.startswith("of 8 training images 2 have nothing but ignored pixels in their label maps")
    assert "images/train/2.png, images/train/3.png; label them" in said


@pytest.mark.parametrize("head", [*TASKS["detect"].heads, *TASKS["instances"].heads])
def test_batches_without_any_object(head: str, tmp_path: Path) -> None:
    task = "instances" if head in TASKS["instances"].heads else "detect"
    data = write_coco(tmp_path / "data", train=6, val=2, sparse=True)
    result = train(small(task, data, f"head={head}", "epochs=1"), tmp_path / "run", quiet=True)
    assert result["box"]["ap"] is None  # there was nothing to find
    assert result["objects"] == 0


def test_frozen_parts_are_named_and_do_not_change(
    coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = small("detect", coco, "freeze=2", "epochs=1", "norm=group")
    before = build_model(recipe, 3, 2).state_dict()
    train(recipe, tmp_path)
    assert "not trained, statistics included: the stem, stage 1" in capsys.readouterr().err
    after = load_run(tmp_path).model.state_dict()
    stay = [name for name in before if name.startswith(("backbone.stem.", "backbone.stages.0."))]
    assert stay
    assert all(torch.equal(before[name], after[name]) for name in stay)
    assert not torch.equal(
        before["backbone.stages.3.0.reduce.conv.weight"], after["backbone.stages.3.0.reduce.conv.weight"]
    )


def test_a_classifier_becomes_a_detectors_backbone(coco: Path, tmp_path: Path) -> None:
    model = f"model={MODEL}"
    digits = Recipe().override(
        [model, "data=digits", "size=16", "epochs=1", "warmup=0", "threads=1", "crop_scale=null", "batch_size=256"]
    )
    train(digits, tmp_path / "digits", quiet=True)
    grey = load_run(tmp_path / "digits").model.state_dict()
    net = build_model(small("detect", coco, f"weights={tmp_path / 'digits'}"), 3, 2)
    own = net.state_dict()
    shared = [name for name in grey if name.startswith("backbone.stages.")]
    assert shared
    assert all(torch.equal(grey[name], own[name]) for name in shared)


@pytest.mark.parametrize(
    "changes, message",
    [
        (["head=mask_rcnn"], "--task instances"),
        (["head=fasterrcnn"], "faster_rcnn"),
        (["freeze=9"], "parts"),
        (["model=resnest5"], "resnest50"),
    ],
)
def test_what_does_not_fit_is_said(changes: list[str], message: str, coco: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        train(small("detect", coco).override(changes), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes, side, said",
    [
        ([], 480, "shorter side 512 pixels, longer side at most 853, times 0.5 to 2, cut or padded to 480 x 480"),
        (["size=32"], 30, "shorter side 32 pixels"),
        (["size=0"], SIDE, "their own size, longer side at most 107, times 0.5 to 2, cut or padded to 64 x 64"),
        (["size=0", "crop_size=[90,90]"], 90, "cut or padded to 90 x 90"),
    ],
)
def test_tiny_images_are_not_mostly_padding(changes: list[str], side: int, said: str, pairs: Path) -> None:
    recipe = load_recipe("segment").override([f"data={pairs}", *changes])
    bundle = open_data(pairs, annotation="maps")
    objective = TASKS["segment"].objective(recipe, bundle)
    image, target = objective.training_data(bundle.train)[0, 0][:2]
    assert tuple(image.shape[1:]) == tuple(target["mask"].shape) == (side, side)
    (note,) = objective.notes
    assert note.startswith("training images: ")
    assert said in note


def data_for(recipe: Recipe, coco: Path, pairs: Path) -> Path:
    return pairs if recipe.task == "segment" else coco


@pytest.mark.parametrize("name", LARGE)
def test_every_published_recipe_says_what_it_must(name: str) -> None:
    text = recipe_text(name)
    assert all(word in text for word in ("Paper:", "Command:", "Hardware:", "Expected:", "Run here:  no"))
    recipe = load_recipe(name)
    assert recipe.weights == "pretrained"
    assert recipe.machine.norm == "sync"


@pytest.mark.parametrize("name", ["coco/cascade_mask_rcnn_resnest101", "coco/faster_rcnn_resnet50",
                                  "ade20k/deeplabv3_resnest101", "ade20k/pspnet_resnest101"])  # fmt: skip
def test_published_recipes_take_a_few_steps(name: str, coco: Path, pairs: Path, tmp_path: Path) -> None:
    """Their own loaders, heads, losses and schedule, with a small network in place of the large one."""
    recipe = load_recipe(name)
    changes = [f"data={data_for(recipe, coco, pairs)}", f"model={MODEL}", *FEW_STEPS]
    changes += ["crop_size=[64,64]", "test_scales=[1.0,1.5]"] if recipe.task == "segment" else ["short_sides=[48,64]"]
    result = train(recipe.override(changes), tmp_path, quiet=True)
    assert result["count"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_published_recipes_take_a_few_steps_whole(name: str, coco: Path, pairs: Path, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    changes = [f"data={data_for(recipe, coco, pairs)}", *FEW_STEPS]
    changes += ["crop_size=[64,64]", "test_scales=[1.0]"] if recipe.task == "segment" else ["short_sides=[48,64]"]
    assert train(recipe.override(changes), tmp_path, quiet=True)["count"] == 4
