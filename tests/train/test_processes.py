"""A training in two processes, started in each of the ways there are, seen from the command line."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from resurge.cli import main
from resurge.recipe import Recipe

LIMIT = 120  # seconds; a process that hangs is killed then, with all that it has started
TORCHRUN = ["-m", "torch.distributed.run"]
PROCESSES = {"devices": "devices=2", "torchrun on two nodes": "nodes=2"}


@pytest.fixture
def shared(tiny: Recipe) -> Recipe:
    """A training whose result does not depend on who sees which image: no statistics of a batch, no chance."""
    return tiny.override(["norm=group", "affine_translate=0", "lr=0.05"])


@contextmanager
def started(way: str, *words: str) -> Iterator[list[subprocess.Popen[str]]]:
    """`resurge train` with these words: the command itself, torchrun, or one torchrun for each of two nodes."""
    command = ["-m", "resurge", "train", *words]
    port = free_port()
    lines = {
        "devices": [command],
        "torchrun": [[*TORCHRUN, "--standalone", "--nproc-per-node=2", *command]],
        "torchrun on two nodes": [
            [*TORCHRUN, "--nnodes=2", "--nproc-per-node=1", f"--node-rank={node}", "--master-addr=127.0.0.1",
             f"--master-port={port}", *command]
            for node in (0, 1)
        ],
    }[way]  # fmt: skip
    # The ranks of whoever runs the tests are not theirs.
    own = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    environment = {name: value for name, value in os.environ.items() if name not in own} | {"OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, *line],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for line in lines
    ]
    try:
        yield running
    finally:
        for process in running:
            if process.poll() is None:  # torchrun gives each process that it starts a group of its own
                for one in psutil.Process(process.pid).children(recursive=True):
                    one.kill()
                process.kill()
            process.wait()
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                pipe.close()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def ended(running: list[subprocess.Popen[str]]) -> tuple[list[int], str, str]:
    """Exit codes, and what all processes together wrote to stdout and to stderr."""
    limit = time.monotonic() + LIMIT
    said = [process.communicate(timeout=max(1.0, limit - time.monotonic())) for process in running]
    return [process.returncode for process in running], "".join(out for out, _ in said), "".join(err for _, err in said)


def run(way: str, *words: str) -> tuple[list[int], str, str]:
    with started(way, *words) as running:
        return ended(running)


def written(recipe: Recipe, path: Path) -> str:
    path.write_text(recipe.to_yaml())
    return str(path)


def files(folder: Path) -> set[str]:
    """The files of a run by name; an event file of TensorBoard has the time and the process in its name."""
    return {str(path.relative_to(folder)).partition("events.out")[0] for path in folder.rglob("*") if path.is_file()}


def assert_trained(folder: Path, alone: Path) -> None:
    """The run is whole, and its weights are those that one process has found with batches twice as large."""
    assert files(folder) == files(alone)
    assert (folder / "split.csv").read_text() == (alone / "split.csv").read_text()
    assert len((folder / "metrics.csv").read_text().splitlines()) == 3
    found, expected = load_file(folder / "model.safetensors"), load_file(alone / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # a sum of gradients in another order, 38 steps long
        torch.testing.assert_close(found[name], value, rtol=0, atol=2e-4, msg=lambda text, name=name: name + text)


@pytest.fixture
def alone(shared: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The same training in one process."""
    folder = tmp_path / "alone"
    assert main(["train", "--recipe", written(shared, tmp_path / "alone.yaml"), "--out", str(folder)]) == 0
    capsys.readouterr()
    return folder


@pytest.mark.parametrize("way", PROCESSES)
def test_two_processes_train_what_one_does(way: str, shared: Recipe, alone: Path, tmp_path: Path) -> None:
    recipe = written(shared.override(["batch_size=32", PROCESSES[way]]), tmp_path / "recipe.yaml")
    codes, out, err = run(way, "--recipe", recipe, "--out", str(tmp_path / "run"))
    assert set(codes) == {0}, err
    assert out.count("top-1") == out.count("report:") == 1
    assert err.count("epoch 1/2") == err.count("epoch 2/2") == err.count("fixed stratified split") == 1
    assert_trained(tmp_path / "run", alone)


def test_a_stopped_training_goes_on_under_another_launcher(shared: Recipe, alone: Path, tmp_path: Path) -> None:
    recipe = written(shared.override(["batch_size=32", "devices=2"]), tmp_path / "recipe.yaml")
    folder = tmp_path / "run"
    with started("devices", "--recipe", recipe, "--out", str(folder)) as running:
        limit = time.monotonic() + LIMIT
        while not (folder / "split.csv").exists() and running[0].poll() is None and time.monotonic() < limit:
            time.sleep(0.01)
        running[0].send_signal(signal.SIGTERM)  # before its first step: the signal is remembered
        codes, out, err = ended(running)
    assert codes == [128 + signal.SIGTERM], err
    assert err.count("checkpoint written") == err.count("resurge:") == 1
    assert out == ""
    assert not (folder / "model.safetensors").exists()
    codes, out, err = run("torchrun", "--resume", str(folder))
    assert codes == [0], err
    assert out.count("top-1") == out.count("report:") == 1
    assert err.count("epoch 1/2") == err.count("epoch 2/2") == 1  # no step was made before
    assert_trained(folder, alone)


def test_what_only_the_first_process_finds_wrong_ends_all(shared: Recipe, tmp_path: Path) -> None:
    recipe = written(shared.override(["nodes=2"]), tmp_path / "recipe.yaml")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").touch()
    codes, out, err = run("torchrun on two nodes", "--recipe", recipe, "--out", str(tmp_path / "run"))
    assert codes == [1, 1]  # torchrun's own; it names that of the process
    assert err.count("resurge:") == err.count("resurge: error:") == err.count("is not empty") == 1
    assert "exitcode  : 2 " in err
    assert out == ""
    assert files(tmp_path / "run") == {"mine.txt"}


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"},
        {"RANK": "3", "LOCAL_RANK": "1"},
        {"LOCAL_RANK": "1"},
        {"NODE_RANK": "1"},
        {"RANK": "first"},
    ],
)
def test_a_launcher_that_starts_more_processes_than_the_recipe_has(
    environment: dict[str, str],
    shared: Recipe,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    recipe = written(shared, tmp_path / "recipe.yaml")
    before = signal.getsignal(signal.SIGINT)
    try:
        assert main(["train", "--recipe", recipe, "--out", str(tmp_path / "run")]) == 2
    finally:
        signal.signal(signal.SIGINT, before)  # ignored by a process that another one started
    error = capsys.readouterr().err
    assert "RANK" in error
    assert not (tmp_path / "run").exists()
