"""examples/gate_eca: a choice of a block from another package, from the text of a spec to an export."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from plugins.installed import Installed

SPEC = "resnet18 depths=(1,1) planes=(8,16) gate=eca(gamma=1)"


@pytest.fixture(scope="module")
def eca(install: Callable[[str], Installed]) -> Installed:
    return install("gate_eca")


def test_equals_timm(eca: Installed) -> None:
    difference = eca.python(
        """
import torch
from timm.layers import EcaModule
from resurge.arch.zoo import get_spec

x = torch.rand(2, 256, 5, 7)
ours, theirs = get_spec("resnet50 gate=eca").gate.build(256), EcaModule(256)
theirs.load_state_dict(ours.state_dict())
assert theirs.conv.kernel_size == ours.conv.kernel_size == (5,)
assert (ours(x) / x - ours(x.roll(1, 0)) / x.roll(1, 0)).abs().max() > 1e-5  # the weights depend on the image
print((ours(x) - theirs(x)).abs().max().item())
"""
    )
    assert float(difference) < 1e-6


def test_from_spec_to_export(eca: Installed) -> None:
    """Costs, picture, training, evaluation, report and export know the gate."""
    outputs = eca.succeed(
        f"show '{SPEC}' --json",
        f"show '{SPEC.replace('eca(gamma=1)', 'none')}' --json",
        f"show '{SPEC}' --diagram block.svg",
        f"train --data digits --model '{SPEC}' --epochs 1 --batch-size 256 --workers 0 --device cpu --out run",
        "eval run --json",
        "export run --out exported",
        "predict exported run/explain --json",
    )
    shown, plain, scores = json.loads(outputs[0]), json.loads(outputs[1]), json.loads(outputs[4])
    assert "gate=eca(gamma=1)" in json.dumps(shown)
    # one kernel of five weights over 8 and one over 16 channels
    assert shown["cost"]["total"]["parameters"] - plain["cost"]["total"]["parameters"] == 10
    assert shown["cost"]["total"]["macs"] - plain["cost"]["total"]["macs"] == 5 * 8 + 5 * 16
    assert "EfficientChannelAttention" in (eca.folder / "block.svg").read_text()
    assert 0 < scores["top1"] <= 1
    assert "gate=eca(gamma=1)" in json.loads((eca.folder / "run" / "model.json").read_text())["spec"]
    assert "gate=eca(gamma=1)" in (eca.folder / "run" / "report.html").read_text()
    assert json.loads((eca.folder / "exported" / "certificate.json").read_text())["agreement"] == 1
    assert outputs[6]


def test_errors(eca: Installed) -> None:
    done = eca.resurge("show 'resnet18 gate=eca(gamma=0)'", "show 'resnet18 gate=eca(size=3)'")
    assert [each.code for each in done] == [2, 2]
    assert "gamma of EfficientChannelAttention must be a positive whole number" in done[0].err
    assert "gate=eca has no argument 'size'; it takes gamma, beta." in done[1].err
