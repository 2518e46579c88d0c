"""examples/data_kitti: a format of annotations from another package, checked and trained on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plugins.installed import Installed


def write(root: Path, count: int, seed: int) -> None:
    """A bright square and a bright bar in every image; the last is empty."""
    random = np.random.default_rng(seed)
    for folder in ("image_2", "label_2"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        pixels = random.integers(0, 60, (64, 80, 3), dtype=np.uint8)
        lines = ["DontCare -1 -1 -10 0 0 5 5 -1 -1 -1 -1000 -1000 -1000 -10"]
        if number < count - 1:
            x, y = (int(v) for v in random.integers(2, 28, 2))
            pixels[y : y + 20, x : x + 20] = 250
            pixels[54:60, 10:70] = 200
            lines += [f"square 0 0 0 {x}.00 {y}.00 {x + 20}.00 {y + 20}.00 1 1 1 0 0 0 0", "bar 0 0 0 10 54 70 60"]
        Image.fromarray(pixels).save(root / f"image_2/{number:06d}.png")
        (root / f"label_2/{number:06d}.txt").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def kitti(install: Callable[[str], Installed]) -> Installed:
    place = install("data_kitti")
    write(place.folder / "train", 9, 0)
    write(place.folder / "val", 4, 1)
    return place


def test_checked_and_trained(kitti: Installed) -> None:
    outputs = kitti.succeed(
        "check-data train --task detect --json",
        "train --task detect --data train --val val --model 'resnet18 depths=(1,1,1,1) planes=(8,8,8,8)' --epochs 1"
        " --batch-size 4 --workers 0 --device cpu --set fpn_channels=8 --set size=64 --out run",
        "eval run --json",
    )
    assert json.loads(outputs[0])
    meta = json.loads((kitti.folder / "run" / "model.json").read_text())
    assert meta["classes"] == ["bar", "square"]
    assert meta["data"]["sizes"] == {"train": 9, "val": 4}
    assert json.loads(outputs[2])["count"] == 4


def test_what_is_wrong_is_found(kitti: Installed) -> None:
    write(kitti.folder / "wrong", 3, 2)
    (kitti.folder / "wrong/label_2/000000.txt").write_text(
        "thing 0 0 0 1 1 20 20\nthing 0 0 0 9 9 9 30\nthing 0 0 0 many 9 9 30\n"
    )
    (kitti.folder / "wrong/image_2/000001.png").unlink()
    for folder in ("image_2", "label_2"):
        (kitti.folder / "bare" / folder).mkdir(parents=True)
    found, lacking = kitti.resurge("check-data wrong --task detect", "check-data bare --task detect")
    assert found.code == 1
    for said in ("line 2: the box has no area", "line 3: its corners are no numbers", "000001.png"):
        assert said in found.out
    assert lacking.code == 2
    assert "has no .txt files. Put one per image there." in lacking.err
