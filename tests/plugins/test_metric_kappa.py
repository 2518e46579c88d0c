"""examples/metric_kappa: a metric from another package, validated, reported, and picking the weights."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable

import pytest
from plugins.installed import Installed

TRAIN = "--epochs 2 --workers 0 --device cpu --data digits"


@pytest.fixture(scope="module")
def kappa(install: Callable[[str], Installed]) -> Installed:
    return install("metric_kappa")


def test_equals_scikit_learn(kappa: Installed) -> None:
    kappa.python(
        """
import torch
from sklearn.metrics import cohen_kappa_score
from resurge_kappa import of_images

torch.manual_seed(0)
labels = torch.randint(0, 4, (200,))
told = torch.where(torch.rand(200) < 0.6, labels, torch.randint(0, 4, (200,)))
found = of_images(torch.nn.functional.one_hot(told, 4).float(), labels)
assert 0.3 < found < 0.9 and abs(found - cohen_kappa_score(labels, told)) < 1e-12
assert abs(found - (told == labels).float().mean()) > 0.05  # accuracy is something else
"""
    )


def test_classifier(kappa: Installed) -> None:
    outputs = kappa.succeed(
        f"train {TRAIN} --model 'resnet18 depths=(1,1) planes=(8,16)' --batch-size 32 --set select_by=kappa --out run",
        "eval run --json",
        "eval run",
    )
    with (kappa.folder / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(-1 <= float(row["val_kappa"]) < float(row["val_top1"]) for row in rows)
    scores = json.loads(outputs[1])
    confusion = scores["confusion"]
    total = sum(map(sum, confusion))
    chance = sum(sum(row) * sum(each[i] for each in confusion) for i, row in enumerate(confusion)) / total**2
    assert scores["plugin_metrics"]["kappa"] == pytest.approx((scores["top1"] - chance) / (1 - chance), abs=1e-6)
    assert f"kappa              {scores['plugin_metrics']['kappa']:.4f}" in outputs[2]
    model = json.loads((kappa.folder / "run" / "model.json").read_text())
    assert model["scores"]["val_kappa"] == pytest.approx(max(float(row["val_kappa"]) for row in rows), abs=1e-5)
    assert "kappa" in (kappa.folder / "run" / "report.html").read_text()


def test_segmenter_and_what_cannot_be_selected_by(kappa: Installed) -> None:
    trained, wrong = kappa.resurge(
        f"train {TRAIN} --task segment --head fcn --model 'resnet18 depths=(1,1) planes=(8,8)' --batch-size 32"
        " --set head_channels=8 --out maps",
        f"train {TRAIN} --set select_by=kapa --out other",
    )
    assert trained.code == 0, trained.err
    assert "kappa" in json.loads((kappa.folder / "maps" / "evaluation.json").read_text())["plugin_metrics"]
    assert wrong.code == 2
    assert "Did you mean 'kappa'?" in wrong.err
