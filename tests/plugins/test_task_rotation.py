"""examples/task_rotation: a task from another package; what it learnt starts a classifier."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from plugins.installed import Installed

MODEL = "--model 'resnet18 stem=conv3x3(16) depths=(1,1) planes=(16,32)' --workers 0 --device cpu"


@pytest.fixture(scope="module")
def rotation(install: Callable[[str], Installed]) -> Installed:
    return install("task_rotation")


def test_labels_are_turns(rotation: Installed) -> None:
    rotation.python(
        """
import torch
from resurge.data.sources import open_data
from resurge.recipe import Recipe
from resurge.tasks.table import get_task

bundle = open_data("digits")
task = get_task("rotation")
training = task.objective(Recipe(task="rotation"), bundle)
samples = training.training_data(bundle.train)
plain = training.task.prepared(bundle.train, training.preprocessing[1])
seen = set()
for index in range(40):
    image, turns = samples[1, index]
    again = samples[1, index]
    assert torch.equal(image, again[0]) and turns == again[1]
    seen.add(turns)
    turned, label, _ = plain[index]
    assert label == index % 4
    upright = torch.rot90(turned, -label, (1, 2))
    assert torch.equal(upright, training.preprocessing[1](bundle.train.read(index)))
assert seen == {0, 1, 2, 3}
"""
    )


def test_trains_and_its_backbone_goes_on(rotation: Installed) -> None:
    outputs = rotation.succeed(
        f"train --task rotation --data digits {MODEL} --epochs 4 --batch-size 64 --out turns",
        "eval turns --json",
        f"train --data digits {MODEL} --weights turns --epochs 1 --batch-size 64 --out digits",
        "export turns --out exported",
        "predict exported turns/explain --json",
    )
    scores = json.loads(outputs[1])
    assert scores["top1"] > 0.5  # a quarter by chance
    meta = json.loads((rotation.folder / "turns" / "model.json").read_text())
    assert (meta["task"], len(meta["classes"])) == ("rotation", 4)
    assert len(json.loads((rotation.folder / "digits" / "model.json").read_text())["classes"]) == 10
    assert "90 degrees" in (rotation.folder / "turns" / "report.html").read_text()
    assert "degrees" in outputs[4]


def test_fields_without_effect_are_refused(rotation: Installed) -> None:
    (done,) = rotation.resurge("train --task rotation --data digits --set balanced_sampling=true --out other")
    assert done.code == 2
    assert "balanced_sampling has no effect on the task rotation" in done.err
