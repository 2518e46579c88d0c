"""Data sets whose annotations can be compared with what is drawn: a red and a green rectangle on dark noise."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from resurge.data.regions import run_lengths_of
from resurge.data.splits import IGNORE

NAMES = ("red", "green")
Box = tuple[int, int, int, int]


def draw(index: int, width: int = 48, height: int = 32) -> tuple[np.ndarray, list[Box]]:
    """uint8 (height, width, 3), and (x1, y1, x2, y2) of the red and the green rectangle, all of them even."""
    random = np.random.default_rng(index)
    pixels = random.integers(0, 60, (height, width, 3)).astype(np.uint8)
    boxes = []
    for channel in range(2):
        w, h = (int(side) for side in 2 * random.integers(4, 8, 2))
        x = 2 * int(random.integers(0, (width // 2 - w) // 2 + 1)) + channel * width // 2
        y = 2 * int(random.integers(0, (height - h) // 2 + 1))
        pixels[y : y + h, x : x + w] = 0
        pixels[y : y + h, x : x + w, channel] = 250
        boxes.append((x, y, x + w, y + h))
    return pixels, boxes


def seen(image: Image.Image) -> np.ndarray:
    """float64 (2, 4): where the rectangles are in an image as training gets it."""
    found = []
    for channel in range(2):
        rows, columns = np.nonzero(np.asarray(image)[..., channel] > 200)
        found.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    return np.array(found, dtype=np.float64)


def save(path: Path, pixels: np.ndarray, tag: int = 1) -> None:
    """A PNG with an EXIF orientation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(pixels).save(path, exif=exif if tag != 1 else None)


@dataclass(frozen=True)
class Annotated:
    """A picture of a set: what is stored, its tag, the size that the annotations are of, and its two boxes in it."""

    pixels: np.ndarray
    tag: int
    size: tuple[int, int]
    boxes: Sequence[Box]


def write_coco(root: Path, pictures: Sequence[Annotated], kind: str = "polygons") -> Path:
    images, annotations = [], []
    for at, picture in enumerate(pictures):
        save(root / f"images/{at}.png", picture.pixels, picture.tag)
        width, height = picture.size
        images.append({"id": at, "file_name": f"{at}.png", "width": width, "height": height})
        for label, (x1, y1, x2, y2) in enumerate(picture.boxes):
            mask = np.zeros((height, width), dtype=bool)
            mask[y1:y2, x1:x2] = True
            lengths = {"size": [height, width], "counts": run_lengths_of(mask).counts.decode("ascii")}
            outline = [[x1, y1, x2, y1, x2, y2, x1, y2]]
            annotations.append({
                "id": len(annotations), "image_id": at, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1), "iscrowd": 0,
                "segmentation": {"boxes": [], "polygons": outline, "rle": lengths}[kind],
            })  # fmt: skip
    categories = [{"id": at, "name": name} for at, name in enumerate(NAMES)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations.json").write_text(json.dumps(document))
    return root


def write_rle(root: Path, pictures: Sequence[Annotated]) -> Path:
    return write_coco(root, pictures, "rle")


def write_voc(root: Path, pictures: Sequence[Annotated]) -> Path:
    (root / "Annotations").mkdir(parents=True)
    for at, picture in enumerate(pictures):
        save(root / f"JPEGImages/{at}.png", picture.pixels, picture.tag)
        things = "".join(
            f"<object><name>{NAMES[label]}</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax>"
            f"<ymax>{y2}</ymax></bndbox></object>"
            for label, (x1, y1, x2, y2) in enumerate(picture.boxes)
        )
        size = f"<size><width>{picture.size[0]}</width><height>{picture.size[1]}</height></size>"
        (root / f"Annotations/{at}.xml").write_text(f"<annotation>{size}{things}</annotation>")
    return root


def write_yolo(root: Path, pictures: Sequence[Annotated]) -> Path:
    (root / "labels").mkdir(parents=True)
    (root / "classes.txt").write_text("red\ngreen\n")
    for at, picture in enumerate(pictures):
        save(root / f"images/{at}.png", picture.pixels, picture.tag)
        width, height = picture.size
        lines = [
            f"{label} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} {(x2 - x1) / width} {(y2 - y1) / height}\n"
            for label, (x1, y1, x2, y2) in enumerate(picture.boxes)
        ]
        (root / f"labels/{at}.txt").write_text("".join(lines))
    return root


def write_nuclei(root: Path, pictures: Sequence[Annotated]) -> Path:
    for at, picture in enumerate(pictures):
        save(root / f"{at}/images/{at}.png", picture.pixels, picture.tag)
        for label, (x1, y1, x2, y2) in enumerate(picture.boxes):
            mask = np.zeros(picture.size[::-1], dtype=np.uint8)
            mask[y1:y2, x1:x2] = 255
            save(root / f"{at}/masks/{label}.png", mask)
    return root


def write_maps(root: Path, pictures: Sequence[Annotated]) -> Path:
    for at, picture in enumerate(pictures):
        save(root / f"images/{at}.png", picture.pixels, picture.tag)
        values = np.zeros(picture.size[::-1], dtype=np.uint8)
        values[0, 0] = IGNORE
        for label, (x1, y1, x2, y2) in enumerate(picture.boxes):
            values[y1:y2, x1:x2] = label + 1
        save(root / f"masks/{at}.png", values)
    (root / "classes.txt").write_text("background\nred\ngreen\n")
    return root


WRITERS: dict[str, Callable[[Path, Sequence[Annotated]], Path]] = {
    "coco": write_coco, "rle": write_rle, "voc": write_voc, "yolo": write_yolo, "nuclei": write_nuclei,
    "maps": write_maps,
}  # fmt: skip
