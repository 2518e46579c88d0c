"""The main job on small real data: what it writes, what it learns, and how it stops."""

from __future__ import annotations

import csv
import json
import multiprocessing
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from resurge.data.sources import open_data
from resurge.errors import TrainingDiverged, UserError
from resurge.recipe import Recipe
from resurge.runs import load_run
from resurge.tasks.classify.loss import Batch, Classification
from resurge.tasks.evaluation import evaluate
from resurge.tasks.objective import Sums
from resurge.tasks.table import get_task
from resurge.train.checkpoint import CHECKPOINT_FORMAT, read_checkpoint, write_checkpoint
from resurge.train.diagnose import first_nonfinite, first_nonfinite_module
from resurge.train.train import build_model, train

CLASSIFY = get_task("classify")


def folder_of_images(root: Path, counts: dict[str, int], mode: str = "RGB", size: int = 8) -> Path:
    """Class folders of images whose brightness tells the class."""
    noise = np.random.default_rng(0)
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = noise.integers(0, 60, (size, size, 3)) + 60 * label
            Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(root / name / f"{index}.png")
    return root


def test_a_training_learns_and_leaves_a_complete_run(
    tiny: Recipe, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = set(Path.cwd().iterdir())
    called: list[str] = []
    out = tmp_path / "deep" / "run"
    result = train(
        tiny.override(["epochs=6", "ema=0.9"]), out, finished=lambda run, scores, data: called.append(scores["split"])
    )
    assert result["top1"] > 0.8
    assert called == ["test"]
    assert set(Path.cwd().iterdir()) == before
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "epoch 6/6" in shown.err
    assert "images/s" in shown.err

    names = {path.name for path in out.iterdir()}
    assert names == {
        ".resurge-run", "recipe.yaml", "split.csv", "digests.csv", "metrics.csv", "tb", "checkpoints",
        "model.safetensors", "model.json", "evaluation.json",
    }  # fmt: skip
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "epoch", "step", "lr", "train_loss", "train_top1", "val_loss", "val_top1", "val_top5", "images_per_s",
        "seconds",
    ]  # fmt: skip
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [int(row["step"]) for row in rows] == [19 * epoch for epoch in range(1, 7)]
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert all(0 <= float(row["val_top1"]) <= float(row["val_top5"]) <= 1 for row in rows)

    meta = json.loads((out / "model.json").read_text())
    best = max(float(row["val_top1"]) for row in rows)
    assert meta["scores"]["val_top1"] == pytest.approx(best, abs=1e-5)
    assert meta["scores"]["top1"] == result["top1"]
    assert meta["num_classes"] == 10
    assert json.loads((out / "evaluation.json").read_text()) == result

    # the weights that were kept score the same when they are read back, by themselves and from the best checkpoint
    run = load_run(out)
    data = open_data("digits")
    again = evaluate(
        get_task(run.task), run.model, data.test, run.preprocessing, run.classes, batch_size=50, device="cpu"
    )
    assert again["top1"] == result["top1"]
    assert again["confusion"] == result["confusion"]
    on_val = evaluate(CLASSIFY, run.model, data.val, run.preprocessing, run.classes, device="cpu")
    assert on_val["top1"] == pytest.approx(best, abs=1e-5)
    average = read_checkpoint(out / "checkpoints" / "best.ckpt")["resurge"]["ema"]["average"]
    assert torch.equal(run.model.head.fc.weight, average["head.fc.weight"])


def test_the_folder_must_be_free_and_writable(tiny: Recipe, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="not empty"):
        train(tiny, tmp_path, quiet=True)
    with pytest.raises(UserError, match="cannot write"):
        train(tiny, tmp_path / "mine.txt" / "run", quiet=True)
    with pytest.raises(UserError, match="no run directory"):
        train(tiny, tmp_path, overwrite=True, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "assignment, message",
    [
        ("model=resnest5", "Did you mean"),
        ("data=nowhere", "nowhere"),
        ("freeze=9", "4 parts"),
        ("class_weights=[1,2]", "10 classes"),
        ("precision=fp16", "GPU"),
        ("weights=none.safetensors", "none.safetensors"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    tiny: Recipe, tmp_path: Path, assignment: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train(tiny.override([assignment]), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_run_cut_short_is_told(tiny: Recipe, tmp_path: Path) -> None:
    train(tiny.override(["steps=1"]), tmp_path, quiet=True)
    whole = (tmp_path / "model.json").read_text()
    (tmp_path / "model.json").write_text(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cut short"):
        load_run(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({"format": 1, "spec": "resnet18"}))
    with pytest.raises(UserError, match="damaged"):
        load_run(tmp_path)
    (tmp_path / "model.json").write_text(whole)
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(UserError):
        load_run(tmp_path)
    (tmp_path / "model.json").unlink()
    with pytest.raises(UserError, match="did not finish"):
        load_run(tmp_path)
    with pytest.raises(UserError, match="not a folder"):
        load_run(tmp_path / "none")


def test_a_loss_that_is_not_a_number_stops_and_names_the_module(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, seen = Classification.losses, []

    def poisoned(self: Classification, net: nn.Module, batch: Batch) -> tuple[dict[str, torch.Tensor], Sums]:
        seen.append(len(batch[0]))
        if len(seen) == 9:
            net.get_submodule("backbone.stages.1.0.transform").register_forward_hook(
                lambda module, inputs, output: output * float("nan")
            )
        return losses(self, net, batch)

    monkeypatch.setattr(Classification, "losses", poisoned)
    with pytest.raises(TrainingDiverged, match=r"backbone\.stages\.1\.0\.transform.*checkpoint.*is kept") as stopped:
        train(tiny.override(["checkpoint_every=3"]), tmp_path, quiet=True)
    assert stopped.value.module == "backbone.stages.1.0.transform"
    kept = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert kept["resurge"]["position"]["step"] == 6
    assert first_nonfinite(kept["state_dict"].items()) is None


def test_a_step_that_is_too_large_never_reaches_the_checkpoint(tiny: Recipe, tmp_path: Path) -> None:
    recipe = tiny.override(["lr=1e38", "warmup=0", "checkpoint_every=1"])
    with pytest.raises(TrainingDiverged, match="infinite or not a number"):
        train(recipe, tmp_path, quiet=True)
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert not last.exists() or first_nonfinite(read_checkpoint(last)["state_dict"].items()) is None


def test_the_first_bad_module_is_the_innermost() -> None:
    class Bad(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / 0

    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), Bad()), nn.Linear(2, 2))
    assert first_nonfinite_module(model, lambda: model(torch.ones(1, 2))) == "1.1"
    assert first_nonfinite_module(model[0], lambda: model[0](torch.ones(1, 2))) is None


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a POSIX matter")
def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    write_checkpoint({"resurge": {"format": CHECKPOINT_FORMAT}, "weight": torch.zeros(10)}, path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(UserError, match="cannot write"):
            write_checkpoint({"resurge": {}, "weight": torch.zeros(1_000_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]
    assert read_checkpoint(path)["resurge"] == {"format": CHECKPOINT_FORMAT}


def test_checkpoints_hold_plain_data_only(tmp_path: Path) -> None:
    torch.save({"resurge": {}, "hook": print}, tmp_path / "code.ckpt")
    with pytest.raises(UserError, match="cannot read"):
        read_checkpoint(tmp_path / "code.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="not a checkpoint of"):
        read_checkpoint(tmp_path / "other.ckpt")
    torch.save({"resurge": {"format": CHECKPOINT_FORMAT - 1}, "state_dict": {}}, tmp_path / "older.ckpt")
    with pytest.raises(UserError, match=r"another version of resurge.*start anew"):
        read_checkpoint(tmp_path / "older.ckpt")


def test_no_loader_process_outlives_a_training(tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = multiprocessing.active_children()
    train(tiny.override(["workers=2", "steps=2"]), tmp_path / "run", quiet=True)
    assert multiprocessing.active_children() == before

    def failing(self: Classification, net: nn.Module, batch: Batch) -> tuple[dict[str, torch.Tensor], Sums]:
        raise RuntimeError("no losses")

    monkeypatch.setattr(Classification, "losses", failing)
    with pytest.raises(RuntimeError, match="no losses"):
        train(tiny.override(["workers=2"]), tmp_path / "failed", quiet=True)
    assert multiprocessing.active_children() == before


def test_frozen_parts_do_not_change_nor_do_their_statistics(tiny: Recipe, tmp_path: Path) -> None:
    recipe = tiny.override(["freeze=2", "steps=5", "optimizer=adamw", "lr=0.01", "layer_decay=0.8"])
    start = build_model(recipe, 1, 10).state_dict()
    train(recipe, tmp_path, quiet=True)
    end = load_run(tmp_path).model.state_dict()
    for name, value in start.items():
        frozen = name.startswith(("backbone.stem", "backbone.stages.0"))
        if frozen:
            assert torch.equal(value, end[name]), name
        elif not name.endswith("num_batches_tracked"):
            assert not torch.equal(value, end[name]), name


@pytest.mark.parametrize("norm", ["frozen", "group", "sync"])
def test_other_norms_come_back_from_the_run(norm: str, tiny: Recipe, tmp_path: Path) -> None:
    if norm == "sync" and not torch.cuda.is_available():
        pytest.skip("synchronised normalisation computes on a GPU only")
    result = train(tiny.override([f"norm={norm}", "steps=4"]), tmp_path, quiet=True)
    run = load_run(tmp_path)
    assert run.meta["norm"] == ("batch" if norm == "sync" else norm)
    again = evaluate(
        get_task(run.task), run.model, open_data("digits").test, run.preprocessing, run.classes, device="cpu"
    )
    assert again["nll"] == pytest.approx(result["nll"], rel=1e-5)


def test_fewer_images_than_a_batch_grey_and_two_classes(tiny: Recipe, tmp_path: Path) -> None:
    data = folder_of_images(tmp_path / "data", {"dark": 6, "light": 4}, mode="L")
    recipe = tiny.override([f"data={data}", "epochs=2", "mixup=0.2", "class_weights=auto", "balanced_sampling=true"])
    result = train(recipe, tmp_path / "run", quiet=True)
    run = load_run(tmp_path / "run")
    assert run.meta["in_channels"] == 1
    assert result["split"] == "val"
    assert result["top5"] is None
    assert {row["class"] for row in result["per_class"]} == {"dark", "light"}
    assert (tmp_path / "run" / "split.csv").read_text().count("\n") == 11


def test_class_weights_enter_the_loss(tiny: Recipe, tmp_path: Path) -> None:
    data = folder_of_images(tmp_path / "data", {"a": 30, "b": 5, "c": 10})
    weights = ["class_weights=auto", "class_weights=[1,2,3]", "class_weights=none"]
    losses = []
    for index, assignment in enumerate(weights):
        train(tiny.override([f"data={data}", "steps=1", assignment]), tmp_path / str(index), quiet=True)
        losses.append((tmp_path / str(index) / "metrics.csv").read_text().splitlines()[1].split(",")[3])
    assert len(set(losses)) == 3


def test_early_stop_and_evaluation_every_second_epoch(tiny: Recipe, tmp_path: Path) -> None:
    # at a rate this small nothing gets better, so patience runs out
    recipe = tiny.override(["lr=1e-12", "early_stop=2", "epochs=20", "eval_every=2", "batch_size=600"])
    train(recipe, tmp_path, quiet=True)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) < 20
    assert [bool(row["val_top1"]) for row in rows] == [epoch % 2 == 0 for epoch in range(1, len(rows) + 1)]


def test_bf16_and_workers_give_a_run(tiny: Recipe, tmp_path: Path) -> None:
    recipe = tiny.override(
        ["precision=bf16", "workers=1", "steps=3", "auto_augment=randaugment", "channels_last=false"]
    )
    train(recipe, tmp_path, quiet=True)
    assert load_run(tmp_path).meta["scores"]["epoch"] == 1


def test_the_course_of_a_training_does_not_depend_on_workers(tiny: Recipe, tmp_path: Path) -> None:
    for workers in (0, 2):
        train(
            tiny.override([f"workers={workers}", "steps=3", "random_erasing=0.5"]), tmp_path / str(workers), quiet=True
        )
    rows = [(tmp_path / str(workers) / "metrics.csv").read_text().splitlines()[1].split(",")[:8] for workers in (0, 2)]
    assert rows[0] == rows[1]


def test_broken_images_do_not_stop_a_training(tiny: Recipe, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    folder_of_images(data / "train", {"a": 20, "b": 20})
    folder_of_images(data / "val", {"a": 5, "b": 5})
    whole = (data / "train" / "a" / "0.png").read_bytes()
    (data / "train" / "a" / "1.png").write_bytes(whole[: len(whole) // 2])
    (data / "train" / "b" / "2.png").write_text("no picture")
    (data / "val" / "b" / "3.png").write_bytes(whole[:20])
    result = train(tiny.override([f"data={data}", "batch_size=8", "workers=1"]), tmp_path / "run")
    assert result["count"] == 9
    assert "3.png" in capfd.readouterr().err
    assert load_run(tmp_path / "run").meta["data"]["sizes"] == {"train": 40, "val": 9}
