"""A training that was killed and resumed ends with the same bits as one that was left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from resurge.errors import TrainingInterrupted, UserError
from resurge.recipe import Recipe
from resurge.tasks.classify.loss import Batch, Classification
from resurge.tasks.objective import Sums
from resurge.train.train import train

KILLED = Path(__file__).with_name("killed.py")


def kept(folder: Path) -> dict[str, object]:
    """What must not depend on having been interrupted: every tensor of the last checkpoint, and the metrics."""
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    rows = [line.split(",")[:8] for line in (folder / "metrics.csv").read_text().splitlines()]
    return {"state": content, "rows": rows, "model": load_file(folder / "model.safetensors")}


def assert_same(one: object, other: object, where: str = "") -> None:
    if isinstance(one, dict):
        assert isinstance(other, dict), where
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert isinstance(other, (list, tuple)), where
        assert len(one) == len(other), where
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_same(left, right, f"{where}[{index}]")
    elif isinstance(one, torch.Tensor):
        assert isinstance(other, torch.Tensor), where
        assert torch.equal(one, other), where
    else:
        assert one == other, where


def run_killed(recipe: Recipe, out: Path, batch: int, number: int) -> subprocess.CompletedProcess[str]:
    path = out.with_suffix(".yaml")
    path.write_text(recipe.to_yaml())
    return subprocess.run(
        [sys.executable, str(KILLED), str(out), str(path), str(batch), str(number)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def everything(tiny: Recipe) -> Recipe:
    """Everything that carries state or chance from step to step."""
    return tiny.override(
        ["accumulate=2", "ema=0.9", "mixup=0.2", "cutmix=1", "dropout=0.1", "drop_path=0.1", "random_erasing=0.2",
         "checkpoint_every=3", "clip_norm=5", "nesterov=true"]
    )  # fmt: skip


def test_kill_in_mid_epoch_and_resume_gives_the_same_bits(tiny: Recipe, tmp_path: Path) -> None:
    recipe = everything(tiny)
    train(recipe, tmp_path / "whole", quiet=True)
    # batch 28 is the ninth of the second epoch; the last checkpoint stands after its sixth
    ended = run_killed(recipe, tmp_path / "killed", 28, signal.SIGKILL)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    state = torch.load(tmp_path / "killed" / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["resurge"]["position"]["epoch"] == 1
    assert 0 < state["resurge"]["position"]["batch"] < 19
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    train(None, tmp_path / "killed", resume=True, quiet=True)
    assert_same(kept(tmp_path / "whole"), kept(tmp_path / "killed"))


def test_ctrl_c_writes_a_checkpoint_and_resumes_to_the_same_bits(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = everything(tiny).override(["checkpoint_every=0"])
    train(recipe, tmp_path / "whole", quiet=True)
    losses, seen = Classification.losses, []

    def interrupted(self: Classification, net: torch.nn.Module, batch: Batch) -> tuple[dict[str, torch.Tensor], Sums]:
        seen.append(len(batch[0]))
        if len(seen) == 7:  # between the two halves of a step
            os.kill(os.getpid(), signal.SIGINT)
        return losses(self, net, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Classification, "losses", interrupted)
        before = signal.getsignal(signal.SIGINT)
        with pytest.raises(TrainingInterrupted, match="--resume") as stopped:
            train(recipe, tmp_path / "stopped", quiet=True)
    assert stopped.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is before
    state = torch.load(tmp_path / "stopped" / "checkpoints" / "last.ckpt", weights_only=True)["resurge"]
    assert state["position"] == {"epoch": 0, "batch": 8, "step": 4}
    train(None, tmp_path / "stopped", resume=True, quiet=True)
    assert_same(kept(tmp_path / "whole"), kept(tmp_path / "stopped"))

    # resuming a training that is over evaluates it once more, and changes nothing
    train(None, tmp_path / "stopped", resume=True, quiet=True)
    assert_same(kept(tmp_path / "whole"), kept(tmp_path / "stopped"))

    with pytest.raises(UserError, match="goes on with the recipe"):
        train(recipe.override(["lr=1"]), tmp_path / "stopped", resume=True, quiet=True)


def test_resume_of_nothing_and_of_a_damaged_checkpoint(tiny: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"recipe\.yaml"):
        train(None, tmp_path, resume=True, quiet=True)
    (tmp_path / "recipe.yaml").write_text(tiny.to_yaml())
    with pytest.raises(UserError, match="no checkpoint"):
        train(None, tmp_path, resume=True, quiet=True)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(UserError, match="cannot read the checkpoint"):
        train(None, tmp_path, resume=True, quiet=True)


@pytest.mark.slow
def test_two_processes_train_one_model_and_resume(tiny: Recipe, tmp_path: Path) -> None:
    recipe = everything(tiny).override(["devices=2", "epochs=4", "batch_size=32"])
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())

    def resurge(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "resurge", "train", *words],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    whole, part = tmp_path / "whole", tmp_path / "part"
    done = resurge("--recipe", str(tmp_path / "recipe.yaml"), "--out", str(whole))
    assert done.communicate(timeout=250)[0].count("top-1") == 1
    assert done.returncode == 0
    killed = resurge("--recipe", str(tmp_path / "recipe.yaml"), "--out", str(part))
    while not (part / "metrics.csv").exists() and killed.poll() is None:
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=60)
    assert not (part / "model.json").exists()
    done = resurge("--resume", str(part))
    done.communicate(timeout=250)
    assert done.returncode == 0
    assert_same(kept(whole)["model"], kept(part)["model"])
