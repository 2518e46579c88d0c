"""`resurge models` and `resurge show`."""

from __future__ import annotations

import json

import pytest
from frozen.commands import output
from frozen.goldens import Goldens

SHOWN = {
    "resnet50": (),
    "resnest50": ("--size", "256"),
    "skresnext50_32x4d": (),
    "resnet20_cifar": ("--num-classes", "100"),
    "text": ("--in-channels", "1", "--num-classes", "7"),
}
TEXT = "resnet18 depths=(1,1,1,1) planes=(8,8,16,16) stem=deep(8) transform=avgdown(split(radix=2)) gate=se"


def test_models(goldens: Goldens) -> None:
    goldens.same("models/list", output("models"))
    goldens.same("models/list_json", json.loads(output("models", "--json")))
    goldens.same("models/pattern", output("models", "resnest1*"))


@pytest.mark.parametrize("name", SHOWN)
def test_show(name: str, goldens: Goldens) -> None:
    words = ["show", TEXT if name == "text" else name, *SHOWN[name]]
    goldens.same(f"models/show_{name}", output(*words))
    goldens.same(f"models/show_{name}_json", json.loads(output(*words, "--json")))


def test_compare(goldens: Goldens) -> None:
    goldens.same("models/compare", output("show", "resnet50", "--compare", "resnet50d", "resnest50", "--size", "64"))
