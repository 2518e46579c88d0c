"""Boxes, masks and label maps drawn onto images."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resurge.errors import UserError
from resurge.explain.heat import save_image
from resurge.explain.overlays import (
    BACKGROUND,
    class_colours,
    colour,
    draw_label_map,
    draw_objects,
    index_image,
    one_line,
)

ODD = ("<b>&", "línea\nzwei\x00", "犬" * 60, "\udcff", "")


def grey(width: int = 60, height: int = 40, mode: str = "L") -> Image.Image:
    return Image.new("L", (width, height), 120).convert(mode)


def test_colours_differ() -> None:
    first = [colour(i) for i in range(20)]
    nearest = min(sum((a - b) ** 2 for a, b in zip(*pair, strict=True)) ** 0.5 for pair in combinations(first, 2))
    assert nearest > 50
    assert len({colour(i) for i in range(255)}) == 255
    assert class_colours(["cat", BACKGROUND])[1] == (0, 0, 0)
    assert colour(300) == colour(45)


def test_a_box_is_drawn_where_it_is() -> None:
    picture = draw_objects(grey(100, 50), np.array([[20.0, 30.0, 60.0, 48.0]]), [1], ["a", "b"], sides=(400, 1600))
    pixels = np.asarray(picture)
    assert pixels.shape == (200, 400, 3)
    tone = np.array(colour(1))
    assert (pixels[150, 81] == tone).all()  # the left side
    assert (pixels[190, 150] == tone).all()  # the lower side, its last row
    assert (pixels[150, 238] == tone).all()
    assert (pixels[150, 150] == 120).all()  # nothing inside
    assert (pixels[196:, 80:240] == 120).all()


def test_masks_tint_what_they_cover() -> None:
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:30, 20:40] = True
    picture = draw_objects(grey(), np.array([[20, 10, 40, 30]]), [0], ["a"], masks=iter([mask]), sides=(60, 1600))
    pixels = np.asarray(picture).astype(int)
    assert abs(pixels[22, 30] - np.rint(0.55 * 120 + 0.45 * np.array(colour(0)))).max() <= 1
    assert (pixels[5, 50] == 120).all()


def test_nothing_to_draw_leaves_the_image() -> None:
    none = np.zeros((0, 4))
    assert (np.asarray(draw_objects(grey(), none, [], ["a"], scores=[], masks=[], sides=(60, 1600))) == 120).all()


def test_many_small_boxes_have_a_legend_instead_of_words() -> None:
    corners = np.stack(np.meshgrid(np.arange(0, 60, 6), np.arange(0, 40, 8)), -1).reshape(-1, 2).astype(float)
    boxes = np.concatenate([corners, corners + 4], axis=1)
    few = draw_objects(grey(), boxes[:20], [0] * 20, ["a class"])
    many = draw_objects(grey(), boxes, [0] * 50, ["a class"])
    assert few.height == 40 * 7
    assert many.height > 40 * 7
    inside = np.asarray(many)[2 * 7, 2 * 7]
    assert (inside == 120).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
def test_any_mode_of_image(mode: str) -> None:
    assert draw_objects(grey(mode=mode), np.array([[1, 1, 9, 9]]), [0], ["a"]).mode == "RGB"


@pytest.mark.parametrize(
    "box", [(5, 5, 5, 5), (30, 20, 10, 5), (-1e9, -5, 1e9, 500), (59.5, 39.5, 60, 40), (np.nan, 0, 5, 5)]
)
def test_odd_boxes(box: tuple[float, ...]) -> None:
    draw_objects(grey(), np.array([box]), [0], ["a"], scores=[0.5])


@pytest.mark.parametrize("size", [(1, 1), (2, 900), (3000, 5)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    mask = np.ones((size[1], size[0]), dtype=bool)
    picture = draw_objects(grey(*size), np.array([[0, 0, *size]]), [0], ["a class"], scores=[1.0], masks=[mask])
    assert max(picture.size) <= 1600
    draw_label_map(grey(*size), mask.astype(np.uint8), ["a", "b"])


def test_odd_names() -> None:
    boxes = np.tile([[5.0, 5.0, 20.0, 20.0]], (len(ODD), 1))
    draw_objects(grey(), boxes, range(len(ODD)), ODD, scores=[0.5] * len(ODD), notes=["(crowd)"] * len(ODD))
    draw_label_map(grey(), np.arange(2400).reshape(40, 60).astype(np.uint8) % len(ODD), ODD)
    for name in ODD:
        line = one_line(name)
        assert len(line) <= 28
        assert line.isprintable()


def test_numbers_that_do_not_fit() -> None:
    with pytest.raises(UserError, match="labels in"):
        draw_objects(grey(), np.zeros((1, 4)), [1], ["a"])
    with pytest.raises(UserError, match="60 x 40"):
        draw_label_map(grey(), np.zeros((60, 40), dtype=np.uint8), ["a"])
    with pytest.raises(UserError, match="two dimensions"):
        index_image(np.zeros((2, 2, 3), dtype=np.uint8), ["a"])


def test_a_label_map_colours_all_but_the_background() -> None:
    labels = np.zeros((40, 60), dtype=np.uint8)
    labels[:, 30:], labels[:, 50:] = 1, 255
    picture = draw_label_map(grey(), labels, [BACKGROUND, "cat"], sides=(60, 1600), legend=False)
    pixels = np.asarray(picture).astype(int)
    assert pixels.shape == (40, 60, 3)
    assert (pixels[:, :30] == 120).all()
    assert abs(pixels[5, 40] - np.rint(0.4 * 120 + 0.6 * np.array(colour(1)))).max() <= 1
    assert (pixels[5, 55] != pixels[5, 40]).any()


def test_the_legend_stands_below() -> None:
    labels = np.arange(2400).reshape(40, 60).astype(np.uint8) % 30
    plain = draw_label_map(grey(), labels, [f"class {i}" for i in range(30)], legend=False)
    picture = draw_label_map(grey(), labels, [f"class {i}" for i in range(30)])
    assert picture.width == plain.width
    assert picture.height > plain.height
    assert (np.asarray(picture)[: plain.height] == np.asarray(plain)).all()


def test_index_pictures_keep_their_values(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 256, (7, 9)).astype(np.uint8)
    index_image(labels, [f"class {i}" for i in range(200)]).save(tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as read:
        assert read.mode == "P"
        assert (np.asarray(read) == labels).all()
        palette = read.getpalette()
    assert palette is not None
    assert tuple(palette[9:12]) == colour(3)


def test_jpegs(tmp_path: Path) -> None:
    save_image(grey(mode="RGBA"), tmp_path / "new" / "a.jpg")
    with Image.open(tmp_path / "new" / "a.jpg") as picture:
        assert (picture.format, picture.size) == ("JPEG", (60, 40))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        save_image(grey(), tmp_path / "file" / "a.jpg")
