"""`resurge show NAME --forms`: the equal forms of a network's layers, checked on the network."""

from __future__ import annotations

import json

import pytest
import torch

from resurge.arch import forms
from resurge.arch.zoo import get_spec
from resurge.cli import main
from resurge.explain.equalities import equalities

SMALL = "depths=(2,1) planes=(16,32)"
NETWORKS = {
    f"resnext50_32x4d {SMALL} groups=4": "ResNeXt, form a",
    f"resnest50 {SMALL}": "cardinality-major",
    f"resnest50_fast_1s4x24d {SMALL}": "radix 1 = squeeze-and-excitation",
    f"skresnet50 {SMALL}": "selective kernels = split attention",
    f"res2net50_26w_4s {SMALL} base_width=64": "Res2 = a chain",
    f"seresnet50 {SMALL}": "squeeze-and-excitation = attention",
}


@pytest.mark.parametrize("text", NETWORKS)
def test_every_form_is_equal(text: str) -> None:
    found = equalities(get_spec(text))
    assert any(NETWORKS[text] in each.forms for each in found)
    assert len({each.forms for each in found}) == len(found)
    assert all(each.largest_difference < 1e-12 for each in found)


def test_a_wrong_form_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Early concatenation with two branches exchanged, which is what a slip in the order of channels does."""
    right = forms.to_early

    def exchanged(block: object) -> object:
        early = right(block)  # type: ignore[arg-type]
        branches = early.transform.branches
        early.transform.branches = torch.nn.ModuleList([branches[1], branches[0], *branches[2:]])
        return early

    monkeypatch.setattr(forms, "to_early", exchanged)
    found = equalities(get_spec(f"resnext50_32x4d {SMALL} groups=4"))
    assert max(each.largest_difference for each in found if "form b" in each.forms) > 1e-2


@pytest.mark.parametrize("text", [f"resnet18 {SMALL}", f"resnet50 {SMALL} transform=deform(conv3x3)"])
def test_a_network_without_other_forms_says_so(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", text, "--forms"]) == 0
    assert "none of its layers has another form" in capsys.readouterr().out


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", f"seresnet50 {SMALL}", "--forms", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["place"] == "stage 1, block 1"
    assert found["largest_difference"] < 1e-12
