"""`resurge check-data` on a small set in each annotation format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from frozen.commands import resurge, without_paths
from frozen.goldens import Goldens
from scene_files import broken_coco, healthy_coco, write_camvid, write_nuclei, write_pairs, write_voc, write_yolo
from two_classes import write_images

BOXES = {"a": [("dog", 1, 1, 9, 9), ("dog", 4, 4, 4, 4)], "b": [("cat", 1, 1, 9, 9), ("dog", 20, 9, 60, 20, 1)]}
YOLO = {"train/a": "0 0.5 0.5 0.2 0.2\n1 0.2 0.2 0.1 0.1\n", "train/b": "1 0.9 0.9 0.4 0.4\n", "val/c": None}


def voc(root: Path) -> Path:
    return write_voc(root, BOXES, {"train": ["a"], "val": ["b"]})


def folders(root: Path) -> Path:
    write_images(root / "train", 4, 0)
    write_images(root / "val", 2, 1)
    (root / "train" / "left" / "0.png").write_text("no image")
    (root / "val" / "top" / "1.png").write_bytes((root / "train" / "top" / "1.png").read_bytes())
    return root


SETS: dict[str, Callable[[Path], Path]] = {
    "folders": folders,
    "coco": healthy_coco,
    "broken_coco": broken_coco,
    "voc": voc,
    "yolo": lambda root: write_yolo(root, YOLO),
    "masks": write_pairs,
    "camvid": write_camvid,
    "nuclei": write_nuclei,
}


@pytest.mark.parametrize("name", SETS)
def test_check_data(name: str, tmp_path: Path, goldens: Goldens) -> None:
    root = SETS[name](tmp_path / "set")
    places = {tmp_path: "<tmp>"}
    done = resurge("check-data", root)
    goldens.same(f"check_data/{name}", without_paths(f"exit code {done.code}\n{done.out}{done.err}", places))
    found = resurge("check-data", root, "--json")
    assert found.code == done.code
    goldens.same(f"check_data/{name}_json", without_paths(json.loads(found.out), places))


@pytest.mark.parametrize("name", ["broken_coco", "voc", "yolo", "masks"])
def test_fix(name: str, tmp_path: Path, goldens: Goldens) -> None:
    root = SETS[name](tmp_path / "set")
    done = resurge("check-data", root, "--fix", tmp_path / "out")
    files = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file())
    text = "\n".join([f"exit code {done.code}", done.out + done.err, *files, ""])
    goldens.same(f"check_data/{name}_fixed", without_paths(text, {tmp_path: "<tmp>"}))
