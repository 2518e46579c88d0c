"""examples/head_unet: a head from another package, which sees the maps of all stages, trains, exports and predicts."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from plugins.installed import Installed
from tiny_scenes import write_pairs


@pytest.fixture(scope="module")
def unet(install: Callable[[str], Installed]) -> Installed:
    place = install("head_unet")
    write_pairs(place.folder / "scenes")
    return place


def test_the_finest_map_decides_and_the_coarsest_too(unet: Installed) -> None:
    shapes = unet.python(
        """
import torch
from resurge import create_model

torch.manual_seed(0)
model = create_model("resnet18 depths=(1,1,1) planes=(8,16,32)", num_classes=5, task="segment", head="unet").eval()
images = torch.rand(2, 3, 64, 96)
features = [level.detach() for level in model.backbone(images)]
logits = model.head(features)
for i, level in enumerate(features):
    changed = [*features[:i], level + 1, *features[i + 1:]]
    assert (model.head(changed) - logits).abs().max() > 1e-6, i
assert model(images).shape == (2, 5, 64, 96)
print(tuple(logits.shape), tuple(features[0].shape))
"""
    )
    assert shapes.split("\n")[0] == "(2, 5, 16, 24) (2, 8, 16, 24)"


def test_from_recipe_to_export(unet: Installed) -> None:
    outputs = unet.succeed(
        "train --task segment --head unet --data scenes --model 'resnet18 depths=(1,1) planes=(8,8)' --epochs 2"
        " --batch-size 4 --size 64 --crop-size 64,64 --workers 0 --device cpu --set head_channels=8 --out run",
        "eval run --json",
        "export run --out exported",
        "predict exported run/explain --out maps",
    )
    assert json.loads(outputs[1])["miou"] > 0
    assert json.loads((unet.folder / "run" / "model.json").read_text())["head"] == "unet"
    assert json.loads((unet.folder / "exported" / "certificate.json").read_text())["agreement"] > 0.999
    assert any((unet.folder / "maps").iterdir())


def test_a_wrong_head_is_told_of_it(unet: Installed) -> None:
    (done,) = unet.resurge("train --task segment --head une --data scenes --out other")
    assert done.code == 2
    assert "the task segment has the heads deeplabv3, fcn, pspnet, unet, not 'une'. Did you mean 'unet'?" in done.err
