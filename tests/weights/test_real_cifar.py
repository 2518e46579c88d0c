"""Two trained networks of another author, on real images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resurge.arch.backbone import Backbone
from resurge.arch.zoo import get_spec
from resurge.tasks.classify.model import ClassificationModel
from resurge.weights.catalog import entry
from resurge.weights.checkpoint import load_weights
from resurge.weights.download import fetch


def first(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern)) or sorted(folder.glob(f"*/{pattern}"))
    if not found:
        pytest.skip(f"no unpacked {pattern} in the real data")
    return found[0]


@pytest.fixture(params=[("resnet20_cifar", 0.75), ("resnet56_cifar", 0.77)], ids=lambda p: p[0])
def network(request, real_data) -> tuple[ClassificationModel, float, Path]:
    name, least = request.param
    path = first(real_data, entry(name).sources[0].file)
    model = ClassificationModel(Backbone(get_spec(name)), 10)
    report = load_weights(model, path)
    assert report.layout == "cifar"
    assert not report.missing + report.unexpected
    return model.eval(), least, path


def test_the_catalogue_knows_their_hash(network, tmp_path):
    _, _, path = network
    name = path.name.split("-")[0] + "_cifar"
    (tmp_path / path.name).symlink_to(path)
    assert fetch(entry(name).sources[0], tmp_path) == tmp_path / path.name


def test_they_recognise_real_images(network, real_data):
    model, least, path = network
    folder = first(real_data, "cifar10/test")
    source = entry(path.name.split("-")[0] + "_cifar").sources[0]
    mean, std = torch.tensor(source.mean), torch.tensor(source.std)
    right = total = 0
    for label, cls in enumerate(sorted(p for p in folder.iterdir() if p.is_dir())):
        pixels = np.stack([np.asarray(Image.open(p).convert("RGB")) for p in sorted(cls.iterdir())[:50]])
        images = ((torch.from_numpy(pixels) / 255 - mean) / std).permute(0, 3, 1, 2)
        with torch.no_grad():
            right += int((model(images).argmax(1) == label).sum())
        total += len(images)
    assert total == 500
    assert right / total > least
