"""Random data sets in every format, damaged: what they show is read, or somebody says what is wrong."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damaged_sets import AFTER, CLASSES, DAMAGES, LAYOUTS, concerns, drawn, write

from resurge.data.checks import check_data
from resurge.data.images import UnreadableImage
from resurge.data.sources import open_data
from resurge.data.splits import DataBundle, MaskSplit, Split
from resurge.errors import UserError


def read_map(bundle: DataBundle[Any], split: Any, index: int) -> np.ndarray:
    """What the annotations say that image `index` shows, as `drawn` says it: int (H, W)."""
    numbers = {"background": 0, "red": 1, "green": 2, "class 0": 0, "class 2": 2}
    values = [numbers.get(name, 1) for name in bundle.classes]
    target = split.target(index)
    if isinstance(split, MaskSplit):
        found: np.ndarray = np.array([*values, *[0] * 256])[target]
        return found
    image = split.read(index)
    found = np.zeros((image.height, image.width), dtype=int)
    for at, (label, box) in enumerate(zip(target.labels, target.boxes, strict=True)):
        if target.regions is not None and not target.crowd[at]:
            found[target.regions[at].decode(image.height, image.width)] = values[label]
        elif not target.crowd[at]:
            x1, y1, x2, y2 = np.rint(box).astype(int)
            found[y1:y2, x1:x2] = values[label]
    return found


def is_right(bundle: DataBundle[Any], split: Any, index: int, kept: dict[str, np.ndarray], named: bool) -> bool:
    """Whether of an image is read what it shows."""
    try:
        image, stem = split.read(index), Path(split.id(index)).stem
    except UnreadableImage:
        return True  # training skips it, and says so
    picture = kept[stem] if stem in kept else drawn(image)
    if isinstance(split, Split):
        return bundle.classes[split.labels[index]] == CLASSES[np.bincount(picture[picture > 0]).argmax() - 1]
    try:
        read = read_map(bundle, split, index)
    except UnreadableImage:
        return True
    if read.shape != picture.shape:
        return False
    read, picture = (read, picture) if named else (read > 0, picture > 0)
    either, both = ((read > 0) | (picture > 0)).sum(), ((read == picture) & (read > 0)).sum()
    # Half a pixel of rounding at each edge is more of two objects of ten pixels than of two of twenty.
    return bool(both > (0.8 if (picture > 0).sum() > 500 else 0.7) * either)


def tried(place: Path, layout: str, kept: dict[str, np.ndarray]) -> tuple[str, list[str], str]:
    """("right", "wrong" or "refused"; what training says; how the check ends) of a data set."""
    kind, named = LAYOUTS[layout].annotation, LAYOUTS[layout].named
    try:
        bundle = open_data(place, annotation=kind)
        parts = (bundle.train, bundle.val)
        whole = sum(map(len, parts)) == 12
        right = whole and all(is_right(bundle, each, i, kept, named) for each in parts for i in range(len(each)))
        verdict, said = "right" if right else "wrong", list(bundle.notes)
    except UserError as error:
        verdict, said = "refused", [str(error)]
    try:
        ends = check_data(place, annotation=kind)[0].lines()[-1]
    except UserError as error:
        ends = f"refused: {error}"
    return verdict, said, ends


CASES = [(layout, damage) for damage in (*DAMAGES, *AFTER) for layout in LAYOUTS if concerns(damage, layout)]


@pytest.mark.parametrize("layout, damage", CASES, ids=[f"{a}-{b}".replace(" ", "_") for a, b in CASES])
def test_damage(layout: str, damage: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Ten sets each with --slow, else one."""
    for number in range(10 if request.config.getoption("--slow") else 1):
        seed = zlib.crc32(f"{layout} {damage} {number}".encode())
        place, kept = write(tmp_path / f"set{number}", layout, damage, seed)
        verdict, said, ends = tried(place, layout, kept)
        if damage == "none":
            assert (verdict, ends) == ("right", "nothing wrong found")
        elif verdict == "wrong":
            assert said, f"training says nothing; the check: {ends}"
            assert ends != "nothing wrong found"
        elif verdict == "refused":
            assert ends != "nothing wrong found"
