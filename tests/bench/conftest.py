"""A tiny run, networks that stand in for another package's, and turns without rests."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from tiny_exports import write_classifier

from resurge.optimize import timing

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # the scripts import one another

SMALL = "resnet20_cifar depths=(1,1) planes=(8,16) stem=conv3x3(8) shortcut=avg"


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return write_classifier(tmp_path_factory.mktemp("bench") / "run", SMALL)


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """No rests, no filling of turns, and a cache of the test's own."""
    monkeypatch.setattr(timing, "SLOT", 0.0)
    monkeypatch.setattr(timing, "PAUSE", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def peers(monkeypatch):
    """Lets the network itself, plainly run, stand for the other package's; returns what may be done to it."""
    from resurge.bench import measuring
    from resurge.bench.baselines import Baseline

    changes = []

    def stand_in(subject, package):
        net = copy.deepcopy(subject.run.model).eval()
        with torch.no_grad():
            for change in changes:
                change(net)
        return Baseline(package, "stand-in", net, True)

    monkeypatch.setattr(measuring, "baseline_of", stand_in)
    return changes
