"""Data sets of a few small scenes on disk: rectangles of two classes, some images without any."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64


def rectangles(index: int) -> list[tuple[int, int, int, int, int]]:
    """(class, x1, y1, x2, y2) of an image; every fourth image has none."""
    random = np.random.RandomState(index)
    found = []
    for _ in range(0 if index % 4 == 3 else 1 + index % 3):
        width, height = random.randint(12, 30, 2)
        x, y = random.randint(0, SIDE - width), random.randint(0, SIDE - height)
        found.append((int(random.randint(2)), int(x), int(y), int(x + width), int(y + height)))
    return found


def picture(index: int, boxes: list[tuple[int, int, int, int, int]]) -> Image.Image:
    pixels = np.random.RandomState(1000 + index).randint(0, 80, (SIDE, SIDE, 3)).astype(np.uint8)
    for label, x1, y1, x2, y2 in boxes:
        pixels[y1:y2, x1:x2, label] = 220
    return Image.fromarray(pixels)


def write_coco(root: Path, train: int = 8, val: int = 4, *, sparse: bool = False) -> Path:
    """COCO's layout: annotations/instances_{train,val}.json with polygons, images in train/ and val/; ids have gaps.

    With `sparse` the first training image has objects and no other image.
    """
    (root / "annotations").mkdir(parents=True)
    number = 0
    for split, count in (("train", train), ("val", val)):
        (root / split).mkdir()
        images, annotations = [], []
        for _ in range(count):
            number += 1
            boxes = [] if sparse and number > 1 else rectangles(number)
            picture(number, boxes).save(root / split / f"{number}.png")
            images.append({"id": 10 * number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
            for label, x1, y1, x2, y2 in boxes:
                annotations.append(
                    {
                        "id": len(annotations) + 100 * number,
                        "image_id": 10 * number,
                        "category_id": (3, 17)[label],
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": 0,
                        "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
                    }
                )
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 3, "name": "red"}, {"id": 17, "name": "green"}],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def write_pairs(root: Path, train: int = 8, val: int = 4) -> Path:
    """images/{train,val} and masks/{train,val}: background, red, green; a frame of ignored pixels."""
    number = 0
    for split, count in (("train", train), ("val", val)):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for _ in range(count):
            number += 1
            boxes = rectangles(number)
            picture(number, boxes).save(root / "images" / split / f"{number}.png")
            mask = np.zeros((SIDE, SIDE), np.uint8)
            for label, x1, y1, x2, y2 in boxes:
                mask[y1:y2, x1:x2] = 1 + label
            mask[:, :2] = 255
            Image.fromarray(mask).save(root / "masks" / split / f"{number}.png")
    (root / "classes.txt").write_text("background\nred\ngreen\n")
    return root
