"""COCO's figures against pycocotools on the same objects and detections, and one image's matches by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as reference_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from resurge.tasks.detect.metrics import AveragePrecision, encode_masks, f1, match
from resurge.tasks.detect.report import FIGURES

NAMES = [name for name, *_ in FIGURES]
CLASSES = ("cell", "platelet", "nothing of it", "only crowds", "nucleus")
SIZE = (230, 320)
Scene = tuple[int, tuple[int, int], dict[str, Any], dict[str, Any]]


def blobs(boxes: np.ndarray) -> np.ndarray:
    """bool (n, H, W): the ellipse in each box."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    x1, y1, x2, y2 = boxes.T[:, :, None, None]
    return ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1


def random_boxes(random: np.random.Generator, count: int) -> np.ndarray:
    """Boxes of all three size classes inside the image."""
    sides = np.exp(random.uniform(np.log(5), np.log(220), (count, 2)))
    corner = random.uniform(0, 1, (count, 2)) * (np.array([SIZE[1], SIZE[0]]) - sides)
    return np.concatenate([corner, corner + sides], axis=1).astype(np.float32)


def random_scenes(seed: int, count: int = 20) -> list[Scene]:
    """Objects, crowds among them, and detections near them, elsewhere, of other classes, with tied scores."""
    random = np.random.default_rng(seed)
    scenes: list[Scene] = []
    for image_id in random.permutation(count * 3)[:count].tolist():
        # the first image has more objects than ten, and more detections than a hundred
        n, many = (int(random.integers(0, 7)), 4) if scenes else (14, 110)
        boxes, labels = random_boxes(random, n), random.choice([0, 1, 3, 4], n) * (n < 14)
        crowd = (random.random(n) < 0.2) | (labels == 3)
        near = np.repeat(boxes, 3, axis=0)
        sides = np.tile(near[:, 2:] - near[:, :2], 2)
        near = near + (random.normal(size=near.shape) * 0.08 * sides).astype(np.float32)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 2)
        told = np.where(random.random(3 * n) < 0.2, random.integers(0, 5, 3 * n), np.repeat(labels, 3))
        other = random_boxes(random, many)
        found_boxes = np.concatenate([near, other])
        found = {
            "boxes": found_boxes,
            "labels": np.concatenate([told, np.zeros(many, int) if many > 100 else random.integers(0, 5, many)]),
            "scores": np.round(random.random(len(found_boxes)), 1).astype(np.float32),
            "masks": blobs(found_boxes),
        }
        masks = blobs(boxes)
        truth = {"boxes": boxes, "labels": labels, "crowd": crowd, "masks": masks, "area": masks.sum(axis=(1, 2))}
        scenes.append((image_id, SIZE, truth, found))
    return scenes


def collect(scenes: list[Scene], kinds: tuple[str, ...] = ("box", "mask")) -> AveragePrecision:
    scores = AveragePrecision(CLASSES, kinds)
    for scene in scenes:
        scores.add(*scene)
    return scores


def by_pycocotools(scenes: list[Scene], kind: str) -> COCOeval:
    """The reference, fed from the same arrays by its own encoder."""
    images, objects, detections = [], [], []
    for image_id, (height, width), truth, found in scenes:
        images.append({"id": image_id, "height": height, "width": width})
        for values, entries in ((truth, objects), (found, detections)):
            for i, (x1, y1, x2, y2) in enumerate(values["boxes"].astype(np.float64).tolist()):
                entry = {"image_id": image_id, "category_id": int(values["labels"][i]) + 1}
                mask = reference_masks.encode(np.asfortranarray(values["masks"][i].astype(np.uint8)))
                if entries is objects:
                    entry |= {"id": len(objects) + 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": mask,
                              "area": float(values["area"][i]), "iscrowd": int(values["crowd"][i])}  # fmt: skip
                else:
                    # with a box beside its mask pycocotools would take the box's area for the mask's
                    region = {"bbox": [x1, y1, x2 - x1, y2 - y1]} if kind == "box" else {"segmentation": mask}
                    entry |= {"score": float(values["scores"][i]), **region}
                entries.append(entry)
    coco = COCO()
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)]
    coco.dataset = {"images": images, "annotations": objects, "categories": categories, "info": {}}
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(detections), {"box": "bbox", "mask": "segm"}[kind])
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


def mean(values: np.ndarray) -> float:
    return float(values[values > -1].mean()) if (values > -1).any() else -1.0


def numbers(scores: dict[str, Any]) -> list[float]:
    return [-1.0 if scores[name] is None else scores[name] for name in NAMES]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", ["box", "mask"])
def test_all_figures_equal_pycocotools(kind: str, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    scenes = random_scenes(seed)
    capsys.readouterr()
    got = collect(scenes).compute()[kind]
    assert capsys.readouterr() == ("", "")
    reference = by_pycocotools(scenes, kind)
    assert numbers(got) == pytest.approx(reference.stats.tolist(), abs=1e-9)
    assert 0.1 < got["ap"] < 0.9
    assert len(set(numbers(got))) == 12  # no figure stands for another
    precision = reference.eval["precision"]
    for k, row in enumerate(got["per_class"]):
        assert row["class"] == CLASSES[k]
        assert (-1.0 if row["ap"] is None else row["ap"]) == pytest.approx(mean(precision[:, :, k, 0, 2]), abs=1e-9)
        assert (-1.0 if row["ap50"] is None else row["ap50"]) == pytest.approx(mean(precision[0, :, k, 0, 2]), abs=1e-9)
        assert row["n"] == sum(int(((t["labels"] == k) & ~t["crowd"]).sum()) for _, _, t, _ in scenes)
    assert [row["class"] for row in got["per_class"] if row["ap"] is None] == ["nothing of it", "only crowds"]
    assert [curve["class"] for curve in got["curves"]] == ["cell", "platelet", "nucleus"]
    for curve in got["curves"]:
        expected = precision[0, :, CLASSES.index(curve["class"]), 0, 2]
        assert curve["precision"] == pytest.approx(expected.tolist(), abs=1e-9)


def test_variants_that_are_wrong_are_told_from_it() -> None:
    scenes = random_scenes(0)
    expected = {kind: by_pycocotools(scenes, kind).stats for kind in ("box", "mask")}

    def difference(kind: str, change_truth: dict[str, Any], change_found: dict[str, Any]) -> float:
        def changed(values: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
            return values | {key: make(values) for key, make in change.items()}

        variant = [(i, size, changed(t, change_truth), changed(f, change_found)) for i, size, t, f in scenes]
        return float(np.abs(np.array(numbers(collect(variant).compute()[kind])) - expected[kind]).max())

    def box_area(values: dict[str, Any]) -> np.ndarray:
        return (values["boxes"][:, 2:] - values["boxes"][:, :2]).prod(axis=1)

    for kind in ("box", "mask"):
        assert difference(kind, {}, {}) < 1e-9
        assert difference(kind, {"crowd": lambda t: np.zeros_like(t["crowd"])}, {}) > 1e-3  # crowds are no objects
        assert difference(kind, {"area": box_area}, {}) > 1e-3  # an object is as large as its mask
        assert difference(kind, {}, {"scores": lambda f: f["scores"][::-1]}) > 1e-3
        assert difference(kind, {}, {"labels": lambda f: np.zeros_like(f["labels"])}) > 1e-3
    assert difference("mask", {}, {"masks": lambda f: blobs(f["boxes"] * 0.97)}) > 1e-3


def test_tensors_and_run_lengths_give_what_arrays_give() -> None:
    scenes = random_scenes(2, 6)

    def as_tensors(values: dict[str, Any]) -> dict[str, Any]:
        return {key: torch.as_tensor(np.array(value)) for key, value in values.items()}

    def as_run_lengths(values: dict[str, Any]) -> dict[str, Any]:
        return values | {"masks": encode_masks(values["masks"], SIZE)}

    def uncompressed(values: dict[str, Any]) -> dict[str, Any]:
        masks = []
        for mask in values["masks"]:
            flat = mask.ravel(order="F").astype(int)
            edges = np.flatnonzero(np.diff(flat)) + 1
            counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
            masks.append({"size": list(SIZE), "counts": [0, *counts] if flat[0] else counts})
        return values | {"masks": masks}

    expected = collect(scenes).compute()
    for form in (as_tensors, as_run_lengths, uncompressed):
        assert collect([(i, size, form(t), form(f)) for i, size, t, f in scenes]).compute() == expected


def test_run_lengths_are_those_of_pycocotools() -> None:
    random = np.random.default_rng(0)
    masks = [random.random(size) < p for size in ((9, 7), (7, 9), (1, 8), (8, 1), (1, 1)) for p in np.linspace(0, 1, 9)]
    whole_columns = np.zeros((6, 7), bool)
    whole_columns[:, [1, 2, 4, 6]] = True
    masks += [whole_columns, whole_columns.T, ~whole_columns, *blobs(random_boxes(random, 20))]
    for mask in masks:
        expected = reference_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
        for form in (mask, mask.astype(np.uint8) * 7, torch.from_numpy(mask), mask.astype(np.float32)):
            (got,) = encode_masks(form[None], mask.shape)
            assert got["counts"] == expected["counts"]


def test_nothing_found_nothing_there_and_no_images() -> None:
    nothing = {"boxes": np.zeros((0, 4)), "labels": [], "scores": [], "crowd": [], "area": [], "masks": []}
    scenes = random_scenes(4, 5)
    none_found = collect([(i, size, t, nothing) for i, size, t, _ in scenes]).compute()
    for kind in ("box", "mask"):
        assert none_found[kind]["ap"] == none_found[kind]["ap50"] == none_found[kind]["ar_100"] == 0.0
        assert [row["ap"] for row in none_found[kind]["per_class"]] == [0.0, 0.0, None, None, 0.0]
    none_there = collect([(i, size, nothing, f) for i, size, _, f in scenes]).compute()["box"]
    assert [none_there[name] for name in NAMES] == [None] * 12
    assert none_there["curves"] == []
    assert [none_there[name] for name in NAMES] == [collect([]).compute()["mask"][name] for name in NAMES]
    only_empty = AveragePrecision(CLASSES)
    only_empty.add(1, SIZE, nothing, {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0), "scores": torch.zeros(0)})
    assert only_empty.compute()["box"]["ap"] is None


def test_numbers_that_are_not_finite_are_left_out() -> None:
    scenes = random_scenes(5, 5)
    expected = collect(scenes).compute()
    spoiled = []
    for image_id, size, truth, found in scenes:
        boxes = np.concatenate([found["boxes"], [[0, 0, np.nan, 5], [1, 1, 9, 9]]])
        more = {"boxes": boxes, "scores": np.append(found["scores"], [0.9, np.nan]),
                "labels": np.append(found["labels"], [0, 0]),
                "masks": np.concatenate([found["masks"], np.ones((2, *SIZE), bool)])}  # fmt: skip
        spoiled.append((image_id, size, truth, more))
    assert collect(spoiled).compute() == expected


def test_degenerate_boxes_and_one_pixel_masks() -> None:
    pixel = np.zeros((2, *SIZE), bool)
    pixel[0, 3, 4] = True  # the other mask has no pixel
    boxes = np.array([[4, 3, 5, 4], [7, 7, 7, 9]])
    truth = {"boxes": boxes, "labels": [0, 1], "crowd": [False, False], "area": [1, 0], "masks": pixel}
    got = collect([(1, SIZE, truth, truth | {"scores": [0.9, 0.8]})]).compute()
    assert got["mask"]["per_class"][0]["ap"] == got["box"]["per_class"][0]["ap"] == 1.0
    assert got["mask"]["per_class"][1]["ap"] == 0.0


def test_what_does_not_fit_is_refused() -> None:
    scores = AveragePrecision(("a", "b"), ("box", "mask"))
    fine = {"boxes": [[0, 0, 4, 4]], "labels": [1], "crowd": [False], "area": [16], "scores": [0.5],
            "masks": np.ones((1, 8, 9), bool)}  # fmt: skip
    scores.add(1, (8, 9), fine, fine)
    with pytest.raises(ValueError, match=r"labels must be in 0\.\.1; got 2 to 2"):
        scores.add(1, (8, 9), fine, fine | {"labels": [2]})
    with pytest.raises(ValueError, match="differ in length"):
        scores.add(1, (8, 9), fine, fine | {"scores": [0.5, 0.5]})
    with pytest.raises(ValueError, match=r"expected masks \(n, 9, 8\)"):
        scores.add(1, (9, 8), fine, fine)
    with pytest.raises(ValueError, match="expected masks of 9 x 8"):
        scores.add(1, (9, 8), *(fine | {"masks": encode_masks(fine["masks"], (8, 9))},) * 2)
    with pytest.raises(ValueError, match="expected kinds"):
        AveragePrecision(("a",), ("bbox",))


def test_matches_of_one_image() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [50, 0, 90, 40]], float)
    truth = {"boxes": boxes, "labels": [0, 1, 0], "crowd": [False, False, True], "area": [100, 100, 1600]}
    found = {
        "boxes": [[0, 0, 10, 9], [0, 0, 10, 10], [20, 0, 30, 10], [60, 10, 70, 20], [20, 0, 30, 4.9], [20, 0, 30, 5]],
        "labels": [0, 0, 0, 0, 1, 1],
        "scores": [0.9, 0.8, 0.7, 0.6, 0.55, 0.4],
    }
    kept = AveragePrecision(("a", "b")).add(1, (100, 100), truth, found)
    matches = match(kept)
    # found, found twice, of another class, in the crowd, overlap too small, exactly half
    assert matches.object.tolist() == [0, -1, -1, -2, -1, 1]
    assert matches.iou[0, 0] == pytest.approx(0.9)
    assert matches.iou[3, 2] == pytest.approx(1.0)  # the share of the detection that lies in the crowd
    # scores of a half or more: one hit, three misses, one in the crowd; two objects
    assert f1(kept, matches) == pytest.approx(2 * 1 / (4 + 2))
    assert f1(kept, matches, threshold=0.3) == pytest.approx(2 * 2 / (5 + 2))
    nothing = AveragePrecision(("a", "b")).add(
        1, (9, 9), {key: value[2:] for key, value in truth.items()}, {"boxes": [], "labels": [], "scores": []}
    )
    assert f1(nothing, match(nothing)) is None
