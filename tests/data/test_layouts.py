"""Layouts of annotation tools: what is drawn in the pictures is what is read, whatever the folders are called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from layout_files import HEIGHT, NAMES, WIDTH, drawn, put, scene, voc
from PIL import Image

from resurge.data.checks import check_data
from resurge.data.sources import open_data
from resurge.data.splits import ObjectSplit

COUNT = 6
Write = Callable[[Path], object]
LAYOUTS: dict[str, Write] = {}


def layout(write: Write) -> Write:
    LAYOUTS[write.__name__] = write
    return write


@layout
def voc_of_cvat(root: Path) -> None:
    """Folders with blanks in their names, a list default.txt, coordinates with decimals that count from 0."""
    for i in range(COUNT):
        name = f"cam {i % 2}/frame {i}"
        scene(root / f"JPEGImages/{name}.PNG", i)
        put(root / f"Annotations/{name}.xml", voc(i, f"{name}.PNG", form="{}.0"))
    put(root / "ImageSets/Main/default.txt", "".join(f"cam {i % 2}/frame {i}\n" for i in range(COUNT)))
    put(root / "labelmap.txt", "# label:color_rgb:parts:actions\n")


@layout
def voc_in_small_letters(root: Path) -> None:
    for i in range(COUNT):
        scene(root / f"images/{i}.png", i)
        put(root / f"annotations/{i}.xml", voc(i, f"images\\{i}.png", first=1))


@layout
def voc_among_labels(root: Path) -> None:
    for i in range(COUNT):
        scene(root / f"Images/{i}.png", i)
        put(root / f"Labels/{i}.xml", voc(i, first=1))


@layout
def voc_in_parts(root: Path) -> None:
    for i in range(COUNT):
        part = "Val" if i > 3 else "Train"
        scene(root / f"{part}/images/{i}.png", i)
        put(root / f"{part}/annotations/{i}.xml", voc(i, first=1))


@layout
def voc_by_file_names(root: Path) -> None:
    """The images are named in the files alone, and lie elsewhere."""
    for i in range(COUNT):
        scene(root / f"photos/img_{i}.PNG", i)
        put(root / f"Annotations/{i}.xml", voc(i, f"IMG_{i}.png", first=1))


@layout
def voc_beside_images_in_folders(root: Path) -> None:
    for i in range(COUNT):
        scene(root / f"{i % 2}/{i}.png", i)
        put(root / f"{i % 2}/{i}.xml", voc(i, first=1))


@layout
def voc_with_lists_at_the_top(root: Path) -> None:
    for i in range(COUNT):
        scene(root / f"JPEGImages/{i}.png", i)
        put(root / f"Annotations/{i}.xml", voc(i, first=1))
    put(root / "train.txt", "".join(f"JPEGImages/{i}.png Annotations/{i}.xml\n" for i in range(4)))
    put(root / "val.txt", "".join(f"./JPEGImages/{i}.png\n" for i in range(4, COUNT)))


@layout
def labelme_of_cvat(root: Path) -> None:
    for i in range(COUNT):
        scene(root / f"default/{i}.png", i)
        objects = "".join(
            f"<object><name>{NAMES[label]}</name><deleted>0</deleted><id>{n}</id><type>bounding_box</type><polygon>"
            f"{''.join(f'<pt><x>{x}.00</x><y>{y}.00</y></pt>' for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2)))}"
            "<username></username></polygon></object>"
            for n, (label, x1, y1, x2, y2) in enumerate(drawn(i))
        )
        size = f"<imagesize><nrows>{HEIGHT}</nrows><ncols>{WIDTH}</ncols></imagesize>"
        put(root / f"default/{i}.xml", f"<annotation><filename>{i}.png</filename>{size}{objects}</annotation>")


def boxes_of(root: Path) -> dict[bytes, list[tuple[str, list[float]]]]:
    """The objects that training and validation see, by the pixels of their pictures."""
    bundle = open_data(root, annotation="boxes", val_fraction=0.34)
    found = {}
    for split in (bundle.train, bundle.val):
        assert isinstance(split, ObjectSplit)
        for index in range(len(split)):
            target = split.target(index)
            things = zip((bundle.classes[label] for label in target.labels), target.boxes.tolist(), strict=True)
            found[np.asarray(split.read(index)).tobytes()] = sorted(things)
    return found


def expected(root: Path) -> dict[bytes, list[tuple[str, list[float]]]]:
    found = {}
    for i in range(COUNT):
        pixels = np.asarray(Image.open(scene(root / f"{i}.png", i))).tobytes()
        found[pixels] = sorted((NAMES[label], [float(v) for v in box]) for label, *box in drawn(i))
    return found


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_drawn_is_read(tmp_path, name):
    root = tmp_path / "set"
    LAYOUTS[name](root)
    read, wanted = boxes_of(root), expected(tmp_path / "drawn")
    assert read.keys() == wanted.keys()
    for pixels, things in wanted.items():
        assert [label for label, _ in read[pixels]] == [label for label, _ in things]
        assert np.allclose([box for _, box in read[pixels]], [box for _, box in things], atol=0.01)
    report, _ = check_data(root)  # without being told what the data are for
    assert report.ok
    assert report.stats["objects"] == 2 * COUNT
