"""examples/data_csv_boxes: a format of annotations from another package, checked and trained on."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from plugins.installed import Installed


@pytest.fixture(scope="module")
def boxes(install: Callable[[str], Installed]) -> Installed:
    """The package, and a folder with a bright square and a bright bar in every image."""
    place = install("data_csv_boxes")
    folder = place.folder / "shapes"
    folder.mkdir()
    lines = ["image,x1,y1,x2,y2,label,split"]
    random = np.random.default_rng(0)
    for number in range(12):
        pixels = random.integers(0, 60, (64, 80, 3), dtype=np.uint8)
        x, y = (int(v) for v in random.integers(2, 28, 2))
        pixels[y : y + 20, x : x + 20] = 250
        pixels[54:60, 10:70] = 200
        name, part = f"{number}.png", "val" if number >= 8 else "train"
        Image.fromarray(pixels).save(folder / name)
        lines += [f"{name},{x},{y},{x + 20},{y + 20},square,{part}", f"{name},10,54,70,60,bar,{part}"]
    Image.fromarray(np.zeros((64, 80, 3), dtype=np.uint8)).save(folder / "empty.png")
    lines.append("empty.png,,,,,,train")
    (folder / "boxes.csv").write_text("\n".join(lines) + "\n")
    return place


def test_checked_and_trained(boxes: Installed) -> None:
    outputs = boxes.succeed(
        "check-data shapes --task detect --json",
        "train --task detect --data shapes --model 'resnet18 depths=(1,1,1,1) planes=(8,8,8,8)' --epochs 1"
        " --batch-size 4 --workers 0 --device cpu --set fpn_channels=8 --set size=64 --out run",
        "eval run --json",
    )
    assert json.loads(outputs[0])
    meta = json.loads((boxes.folder / "run" / "model.json").read_text())
    assert meta["classes"] == ["bar", "square"]
    assert meta["data"]["sizes"] == {"train": 9, "val": 4}
    assert json.loads(outputs[2])["count"] == 4


def test_what_is_wrong_is_found(boxes: Installed) -> None:
    wrong = boxes.folder / "wrong"
    wrong.mkdir()
    Image.new("RGB", (64, 64)).save(wrong / "a.png")
    (wrong / "boxes.csv").write_text(
        "image,x1,y1,x2,y2,label\na.png,1,1,20,20,thing\na.png,9,9,9,30,thing\na.png,many,9,9,30,thing\n"
        "gone.png,1,1,20,20,thing\n"
    )
    short = boxes.folder / "short"
    short.mkdir()
    (short / "boxes.csv").write_text("image,label\na.png,thing\n")
    found, lacking = boxes.resurge("check-data wrong --task detect", "check-data short --task detect")
    assert found.code == 1
    for said in ("line 3: the box has no area", "line 4: its corners are no numbers", "gone.png"):
        assert said in found.out
    assert lacking.code == 2
    assert "lacks the columns x1, y1, x2, y2. Add them to its first line." in lacking.err
