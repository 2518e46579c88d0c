"""Images for tests: two classes that a glance tells apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_images(folder: Path, per_class: int, seed: int) -> None:
    """Class folders `left` and `top` with 24 x 20 pictures whose left or top half is bright."""
    noise = np.random.default_rng(seed)
    for name in ("left", "top"):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = noise.integers(0, 90, (20, 24, 3), dtype=np.uint8)
            half = (slice(None), slice(0, 12)) if name == "left" else (slice(0, 10),)
            pixels[half] += 150
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
