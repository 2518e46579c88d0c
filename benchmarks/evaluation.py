"""COCO's figures for boxes and masks against pycocotools: the same objects and detections, interleaved rounds.

    python benchmarks/evaluation.py                   # the table of the README
    python benchmarks/evaluation.py --images 100 --rounds 3 --json figures.json

Timed is all from a model's output, as arrays, to the twelve figures. For masks the output is either whole masks, which
each side encodes, or COCO's run lengths. A round runs both sides once, the order alternating; the figure is the median
over rounds of the ratio pycocotools' time / ours (above 1: ours is faster), with the quartiles beside it. Before
timing, the figures of the two are compared.
"""

from __future__ import annotations

import argparse
import contextlib
import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as reference_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from side_by_side import RATIO_HEAD, Rows, machine, race, ratio_cells

from resurge.tasks.detect.metrics import AveragePrecision, encode_masks
from resurge.tasks.detect.report import FIGURES

SIZE = (240, 320)
RESULT = Path(__file__).parent / "results" / "evaluation.json"
Scene = tuple[int, dict[str, Any], dict[str, Any]]


def ellipses(boxes: np.ndarray) -> np.ndarray:
    """bool (n, H, W): the ellipse in each box."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    x1, y1, x2, y2 = boxes.T[:, :, None, None]
    return ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1


def make_scenes(images: int, detections: int, classes: int, form: str) -> list[Scene]:
    """Images with 7 objects; near each up to two detections, the rest of them anywhere."""
    random = np.random.default_rng(0)

    def anywhere(count: int) -> np.ndarray:
        sides = np.exp(random.uniform(np.log(8), np.log(200), (count, 2)))
        corner = random.uniform(0, 1, (count, 2)) * (np.array(SIZE[::-1]) - sides)
        return np.concatenate([corner, corner + sides], axis=1)

    scenes = []
    for image in range(1, images + 1):
        boxes, labels = anywhere(7), random.integers(0, classes, 7)
        near = np.tile(boxes, (2, 1))[:detections]
        sides = np.tile(near[:, 2:] - near[:, :2], 2)
        near = near + random.normal(size=near.shape) * 0.06 * sides
        found = np.concatenate([near, anywhere(detections - len(near))])
        told = np.concatenate([np.tile(labels, 2)[:detections], random.integers(0, classes, detections - len(near))])
        truth: dict[str, Any] = {
            "boxes": boxes, "labels": labels, "crowd": random.random(7) < 0.03,
            "area": (boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
        }  # fmt: skip
        output: dict[str, Any] = {"boxes": found, "labels": told, "scores": random.random(detections)}
        if form != "boxes":
            truth["masks"] = encode_masks(ellipses(boxes), SIZE)
            output["masks"] = ellipses(found) if form == "masks" else encode_masks(ellipses(found), SIZE)
        scenes.append((image, truth, output))
    return scenes


def ours(scenes: list[Scene], kind: str, classes: int) -> list[float]:
    scores = AveragePrecision([str(k) for k in range(classes)], (kind,))
    for image, truth, found in scenes:
        scores.add(image, SIZE, truth, found)
    result = scores.compute()[kind]
    return [-1.0 if result[name] is None else result[name] for name, *_ in FIGURES]


def reference(scenes: list[Scene], kind: str, classes: int) -> list[float]:
    images = [{"id": image, "height": SIZE[0], "width": SIZE[1]} for image, _, _ in scenes]
    objects: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for image, truth, found in scenes:
        boxes = np.concatenate([truth["boxes"][:, :2], truth["boxes"][:, 2:] - truth["boxes"][:, :2]], axis=1).tolist()
        for i, box in enumerate(boxes):
            entry = {"id": len(objects) + 1, "image_id": image, "category_id": int(truth["labels"][i]) + 1, "bbox": box,
                     "area": float(truth["area"][i]), "iscrowd": int(truth["crowd"][i])}  # fmt: skip
            if kind == "mask":
                entry["segmentation"] = dict(truth["masks"][i])
            objects.append(entry)
        boxes = np.concatenate([found["boxes"][:, :2], found["boxes"][:, 2:] - found["boxes"][:, :2]], axis=1).tolist()
        for i, box in enumerate(boxes):
            entry = {"image_id": image, "category_id": int(found["labels"][i]) + 1, "score": float(found["scores"][i])}
            if kind == "box":
                entry["bbox"] = box
            else:
                mask = found["masks"][i]
                dense = isinstance(mask, np.ndarray)
                entry["segmentation"] = (
                    reference_masks.encode(np.asfortranarray(mask.view(np.uint8))) if dense else dict(mask)
                )
            detections.append(entry)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        categories = [{"id": k + 1, "name": str(k)} for k in range(classes)]
        coco.dataset = {"images": images, "annotations": objects, "categories": categories, "info": {}}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(detections), {"box": "bbox", "mask": "segm"}[kind])
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(map(float, evaluation.stats))


def compare(form: str, classes: int, images: int, detections: int, rounds: int) -> dict[str, Any]:
    """One row: the ratio of one form of output with one number of classes."""
    kind = "box" if form == "boxes" else "mask"
    scenes = make_scenes(images, detections, classes, form)
    work = (scenes, kind, classes)
    difference = float(np.abs(np.array(ours(*work)) - np.array(reference(*work))).max())
    if difference > 1e-9:
        raise SystemExit(f"{form}: the figures differ by {difference:.1e}; nothing was timed.")
    timed = race(partial(ours, *work), partial(reference, *work), rounds)
    return {
        "output": form,
        "classes": classes,
        "images": images,
        "detections": detections,
        "rounds": rounds,
        **timed.ratio(digits=2),
        "seconds": round(timed.seconds, 4),
        "peer_seconds": round(timed.their_seconds, 4),
        "difference": difference,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--detections", type=int, default=20, help="of an image")
    parser.add_argument("--classes", type=int, nargs="+", default=[3, 80])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, default=RESULT, help="where the rows are written")
    args = parser.parse_args()
    rows = Rows(args.json, machine("numpy", "pycocotools", "faster-coco-eval"))
    print(f"{'output':<14}{'classes':>7}{RATIO_HEAD}{'seconds':>8}{'pycocotools':>13}")
    for form in ("boxes", "masks", "run lengths"):
        for classes in args.classes:
            row = compare(form, classes, args.images, args.detections, args.rounds)
            rows.add(row, f"{form:<14}{classes:>7}{ratio_cells(row)}{row['seconds']:>8.3f}{row['peer_seconds']:>13.3f}")


if __name__ == "__main__":
    main()
