"""A tiny run, networks that stand in for another package's, and turns without rests."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_exports import write_classifier

from resurge.optimize import timing

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
    from resurge.bench import cells
    from resurge.bench.peers import Peer

    changes = []

    def stand_in(subject, package):
        net = copy.deepcopy(subject.run.model).eval()
        with torch.no_grad():
            for change in changes:
                change(net)
        return Peer(package, "stand-in", net, True)

    monkeypatch.setattr(cells, "peer_of", stand_in)
    return changes
