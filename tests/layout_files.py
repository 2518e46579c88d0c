"""The same few scenes, written as annotation tools and other programs lay them out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 96, 64
NAMES = ("bolt head", "nut")
Drawn = tuple[int, int, int, int, int]


def drawn(index: int) -> list[Drawn]:
    """(class, x1, y1, x2, y2) of the two rectangles in a scene, in pixels counted from 0, the right and lower edge
    excluded."""
    random = np.random.default_rng(index)
    found = []
    for half in range(2):
        width, height = (int(value) for value in random.integers(14, 24, 2))
        x, y = 48 * half + int(random.integers(0, 47 - width)), int(random.integers(0, HEIGHT - height))
        found.append(((index + half) % 2, x, y, x + width, y + height))
    return found


def scene(path: Path, index: int) -> Path:
    """Write a scene, in the format of the ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(1000 + index).integers(90, 140, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for label, x1, y1, x2, y2 in drawn(index):
        pixels[y1:y2, x1:x2] = ((220, 40, 40), (40, 200, 60))[label]
    Image.fromarray(pixels).save(path)
    return path


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def voc(index: int, filename: str = "", first: int = 0, form: str = "{}") -> str:
    """A file of VOC with coordinates that count from `first`."""
    items = "".join(
        f"<object><name>{NAMES[label]}</name><bndbox>{corners}</bndbox></object>"
        for label, x1, y1, x2, y2 in drawn(index)
        for values in (zip(("xmin", "ymin", "xmax", "ymax"), (x1 + first, y1 + first, x2, y2), strict=True),)
        for corners in ("".join(f"<{name}>{form.format(value)}</{name}>" for name, value in values),)
    )
    return (f"<annotation><filename>{filename}</filename><size><width>{WIDTH}</width><height>{HEIGHT}</height>"
            f"<depth></depth></size>{items}</annotation>")  # fmt: skip


def yolo(index: int, points: int = 0, visible: bool = False) -> str:
    """A file of YOLO's lines, with key points behind the boxes."""
    lines = []
    for label, x1, y1, x2, y2 in drawn(index):
        numbers = [(x1 + x2) / 2 / WIDTH, (y1 + y2) / 2 / HEIGHT, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT]
        for point in range(points):
            share = (point + 1) / (points + 1)
            numbers += [(x1 + share * (x2 - x1)) / WIDTH, (y1 + (1 - share) * (y2 - y1)) / HEIGHT]
            numbers += [2] * visible
        lines.append(f"{label} {' '.join(f'{value:.6f}' for value in numbers)}")
    return "\n".join(lines)
