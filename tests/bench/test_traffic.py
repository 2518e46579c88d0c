"""The bytes under a network's time, counted by hand for a small one."""

from __future__ import annotations

import torch
from torch import nn

import resurge
from resurge.bench import measuring
from resurge.bench.measuring import Bench, bandwidth, traffic
from resurge.bench.settings import Configuration, Settings
from resurge.bench.subjects import open_subject


def test_two_layers():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    convolution = 2 * 3 * 16 * 16 + 8 * 3 * 9 + 2 * 8 * 8 * 8
    linear = 2 * 8 + 8 * 5 + 5 + 2 * 5
    assert traffic(model, (2, 3, 16, 16), 2) == 2 * (convolution + linear)
    assert all(each.device.type == "cpu" for each in model.parameters())


def test_weights_are_read_once_a_batch():
    model = resurge.create_model("resnest14")
    one, two, three = (traffic(model, (n, 3, 64, 64), 4) for n in (1, 2, 3))
    assert three - two == two - one
    assert 0 < 2 * one - two <= 4 * sum(each.numel() for each in model.parameters())


def test_a_device_moves_something():
    assert bandwidth(torch.device("cpu"), rounds=1) > 1e7


def test_the_share_of_a_row(run, monkeypatch):
    monkeypatch.setattr(measuring, "bandwidth", lambda device: 1e9)
    with Bench(Settings(against="none", size=32, yardstick=None, threads=1)) as bench:
        subject = open_subject(str(run), 32)
        row = bench._floor(subject, Configuration("eager", "bf16", 4), 0.001)
    assert row["floor_bytes"] == traffic(subject.run.model, (4, subject.channels, 32, 32), 2)
    assert row["floor_share"] == round(row["floor_bytes"] / 1e9 / 0.001, 3)
