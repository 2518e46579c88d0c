"""Exports of the trained networks: their certificates, and that they say what the run says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from frozen import tiny_runs
from frozen.goldens import Goldens, differences, same_skeleton

Record = Callable[[str], dict[str, Any]]
# Tracing takes up to half a minute, so that each task has one format by default and the other one with --slow.
DEFAULT = (("classify", "onnx"), ("segment", "openvino"), ("detect", "onnx"), ("instances", "openvino"))
SLOW = (("classify", "openvino"), ("segment", "onnx"), ("detect", "openvino"), ("instances", "onnx"))
CASES = [*DEFAULT, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]
NEEDS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}
# What is not the same each time, or depends on the versions of the runtimes.
MEASURED = ("difference", "relative", "bytes", "nodes", "images_per_second", "seconds_to_load", "machine")


def elsewhere(found: Any, recorded: Any) -> Iterator[str]:
    """Other machines: the same keys, and all that was not computed from the weights."""
    yield from same_skeleton(found, recorded)
    for name in ("files", "printed"):
        yield from differences(found[name], recorded[name])
    yield from differences(found["model"]["export"], recorded["model"]["export"])


def masks_taken_out(answers: dict[str, Any]) -> list[dict[str, Any]]:
    """The masks of all objects in order; a pixel on a mask's edge may be on either side of the threshold."""
    objects = [thing for image in answers["images"] for thing in image.get("objects", ())]
    return [thing.pop("mask") for thing in objects if "mask" in thing]


def overlap(mine: dict[str, Any], wanted: dict[str, Any]) -> float:
    """Intersection over union of two masks in COCO's run lengths; 1 for equal ones, empty ones too."""
    if mine == wanted:
        return 1.0
    coco = pytest.importorskip("pycocotools.mask")
    return float(coco.iou([mine], [wanted], [0])[0, 0])


@pytest.mark.parametrize("task, format", CASES)
def test_exports(task: str, format: str, recorded: Record, once: Callable[..., Path], goldens: Goldens) -> None:
    for package in NEEDS[format]:
        pytest.importorskip(package)
    answers = recorded(task)["predict"]["json"]
    for image in answers["images"]:
        image.pop("map", None)  # where a segmenter's map was written
    masks = masks_taken_out(answers)
    folder = once(task, lambda folder: None)

    def make(target: Path) -> None:
        found = tiny_runs.export(task, format, folder, target / "export")
        (target / "found.json").write_text(json.dumps(found))

    found = json.loads((once(f"{task}-{format}", make) / "found.json").read_text())
    certificate = found["certificate"]
    assert certificate["relative"] < 1e-4
    assert certificate["agreement"] == 1
    assert certificate["drop_points"] == 0
    if "objects" in certificate:
        assert certificate["objects"].pop("box_difference") < 0.1  # pixels
        assert certificate["objects"]["before"] > 0
    for mine, wanted in zip(masks_taken_out(found["predict"]), masks, strict=True):
        assert overlap(mine, wanted) > 0.98
    assert not list(differences(found["predict"], answers, relative=2e-4, absolute=1e-3))
    found["certificate keys"] = sorted(certificate)
    for name in MEASURED:
        del certificate[name]
    found["model"] = {key: found["model"][key] for key in ("task", "classes", "preprocessing", "export")}
    goldens.close(f"{task}/export_{format}", found, elsewhere, relative=2e-4, absolute=1e-3)
