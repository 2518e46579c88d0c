"""Layouts of annotation tools: what is drawn in the pictures is what is read, whatever the folders are called."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from layout_files import HEIGHT, NAMES, WIDTH, drawn, put, scene, voc, yolo
from PIL import Image

from resurge.data.checks import check_data
from resurge.data.sources import open_data, open_split
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


def yolo_files(root: Path, images: str, labels: str, ending: str = "png", **more: object) -> list[str]:
    """The images and text files in these folders, {part} and {i} filled in; the names of the images."""
    names = []
    for i in range(COUNT):
        part = "val" if i > 3 else "train"
        names.append(f"{images.format(part=part)}/{i}.{ending}")
        scene(root / names[-1], i)
        put(root / f"{labels.format(part=part)}/{i}.txt", yolo(i, **more))
    return names


@layout
def yolo_with_backslashes(root: Path) -> None:
    names = yolo_files(root, "images/{part}", "labels/{part}")
    put(root / "train.txt", "\r\n".join(name.replace("/", "\\") for name in names))
    put(root / "data.yaml", f"train: train.txt\nnames: {list(NAMES)}\n")


@layout
def yolo_11_of_cvat(root: Path) -> None:
    names = yolo_files(root, "obj_train_data", "obj_train_data", ending="PNG")
    put(root / "train.txt", "\n".join(f"data/{name}" for name in names))
    put(root / "obj.names", "\n".join(NAMES))
    put(root / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")


@layout
def yolo_of_darknet_with_validation(root: Path) -> None:
    names = yolo_files(root, "obj", "obj")
    put(root / "train.txt", "\n".join(f"/home/else/darknet/data/{name}" for name in names[:4]))
    put(root / "test.txt", "\n".join(f"data/{name}" for name in names[4:]))
    put(root / "my.names", "\n".join(NAMES))
    put(root / "my.data", "classes=2\ntrain=data/train.txt\nvalid=data/test.txt\nnames=cfg/my.names\n")


@layout
def yolo_of_ultralytics_in_cvat(root: Path) -> None:
    names = yolo_files(root, "images/train", "labels/train")
    put(root / "train.txt", "\n".join(f"data/{name}" for name in names))
    put(root / "data.yaml", "names:\n  0: bolt head\n  1: nut\npath: .\ntrain: train.txt\n")


@layout
def yolo_under_another_name(root: Path) -> None:
    yolo_files(root, "images/{part}", "labels/{part}")
    put(root / "coco8.yaml", f"path: ../datasets/coco8\ntrain: images/train\nval: images/val\nnames: {list(NAMES)}\n")


@layout
def yolo_of_label_studio(root: Path) -> None:
    yolo_files(root, "images", "labels")
    put(root / "classes.txt", "\n".join(NAMES))
    put(root / "notes.json", json.dumps({"categories": [{"id": 0, "name": NAMES[0]}], "info": {}}))


@layout
def yolo_in_capitals(root: Path) -> None:
    yolo_files(root, "Images/{part}", "Labels/{part}")
    put(root / "classes.txt", "\n".join(NAMES))


@layout
def yolo_of_roboflow(root: Path) -> None:
    yolo_files(root, "{part}/images", "{part}/labels")
    (root / "val").rename(root / "valid")
    put(root / "data.yaml", f"train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: {list(NAMES)}\n")


@layout
def yolo_of_roboflow_for_darknet(root: Path) -> None:
    yolo_files(root, "{part}", "{part}")
    for part in ("train", "val"):
        put(root / part / "_darknet.labels", "\n".join(NAMES))


@layout
def yolo_of_labelimg(root: Path) -> None:
    yolo_files(root, ".", ".")
    put(root / "classes.txt", "\n".join(NAMES))


@layout
def yolo_beside_images(root: Path) -> None:
    yolo_files(root, "shots/images", "shots/images")
    put(root / "train.txt", "\n".join(f"shots/images/{i}.png" for i in range(COUNT)))
    put(root / "data.yaml", f"train: train.txt\nnames: {list(NAMES)}\n")


def pose(points: int, visible: bool, shape: str) -> Write:
    def write(root: Path) -> None:
        yolo_files(root, "images/{part}", "labels/{part}", points=points, visible=visible)
        put(root / "data.yaml", f"path: .\ntrain: images/train\nval: images/val\n{shape}names: {list(NAMES)}\n")

    return write


for _points, _visible in ((4, False), (5, True), (2, True), (2, False)):
    _shape = f"kpt_shape: [{_points}, {2 + _visible}]\n"
    LAYOUTS[f"yolo_pose_{_points}_{2 + _visible}"] = pose(_points, _visible, _shape)
    LAYOUTS[f"yolo_pose_{_points}_{2 + _visible}_unsaid"] = pose(_points, _visible, "")


def table_of_boxes(file: Path, header: str, row: str, images: str = "", only: range = range(COUNT)) -> None:
    """A table with a row per object, its format filled in from name, label, the corners, shares (u1 to v2) and part."""
    lines = [header] if header else []
    for i in only:
        scene(file.parent / images / f"{i}.png", i)
        for label, x1, y1, x2, y2 in drawn(i):
            shares = {"u1": x1 / WIDTH, "v1": y1 / HEIGHT, "u2": x2 / WIDTH, "v2": y2 / HEIGHT}
            lines.append(row.format(name=f"{i}.png", i=i, label=NAMES[label], x1=x1, y1=y1, x2=x2, y2=y2, **shares,
                                    part="valid" if i > 3 else "train"))  # fmt: skip
    put(file, "\n".join(lines) + "\n")


@layout
def csv_of_roboflow(root: Path) -> None:
    for part, only in (("train", range(4)), ("valid", range(4, COUNT))):
        header = "filename,width,height,class,xmin,ymin,xmax,ymax"
        table_of_boxes(root / part / "_annotations.csv", header, "{name},96,64,{label},{x1},{y1},{x2},{y2}", only=only)


@layout
def csv_with_a_split(root: Path) -> None:
    table_of_boxes(
        root / "boxes.csv", "Image;x1;y1;x2;y2;Label;Split", "img\\{name};{x1};{y1};{x2};{y2};{label};{part}", "img"
    )


@layout
def csv_of_open_images(root: Path) -> None:
    header = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsGroupOf"
    row = "{i},xclick,/m/{label},1,{u1:.6f},{u2:.6f},{v1:.6f},{v2:.6f},0,0"
    table_of_boxes(root / "train-annotations-bbox.csv", header, row, "train")
    put(root / "class-descriptions-boxable.csv", "".join(f"/m/{name},{name}\n" for name in NAMES))


@layout
def csv_of_retinanet(root: Path) -> None:
    table_of_boxes(root / "annotations.csv", "", "/home/else/data/imgs/{name},{x1},{y1},{x2},{y2},{label}", "imgs")


@layout
def csv_of_the_old_tutorials(root: Path) -> None:
    row = "{name},96,64,{label},{x1},{y1},{x2},{y2}"
    for part, only in (("train", range(4)), ("test", range(4, COUNT))):
        header = "filename,width,height,class,xmin,ymin,xmax,ymax"
        table_of_boxes(root / f"{part}_labels.csv", header, row, f"images/{part}", only)
    (root / "test_labels.csv").rename(root / "val_labels.csv")
    (root / "images/test").rename(root / "images/val")


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


def test_key_points_and_rotated_boxes_are_said(tmp_path):
    for name in ("yolo_pose_4_2", "yolo_pose_5_3_unsaid"):
        LAYOUTS[name](tmp_path / name)
        assert any("numbers behind each box are key points" in note for note in notes(tmp_path / name))
    corners = "0 0.2 0.1 0.4 0.3 0.2 0.5 0.1 0.3"
    for name, task in (("plain", ""), ("obb", "task: obb\n")):
        root = tmp_path / name
        for i in range(4):
            scene(root / f"images/{i}.png", i)
            put(root / f"labels/{i}.txt", corners)
        put(root / "data.yaml", f"{task}train: images\nnames: [bolt]\n")
        split, _, _ = open_split(root, annotation="boxes")
        assert np.allclose(split.target(0).boxes, [[0.1 * WIDTH, 0.1 * HEIGHT, 0.4 * WIDTH, 0.5 * HEIGHT]])
        assert any("four corners each" in note for note in notes(root)) == bool(task)
        assert "four-corners" in {finding.kind for finding in check_data(root)[0].findings}


def test_outlines_of_one_length_stay_outlines(tmp_path):
    for i in range(8):
        scene(tmp_path / f"images/{i}.png", i)
        lines = []
        for label, *box in drawn(i):
            x1, y1, x2, y2 = (v / s for v, s in zip(box, (WIDTH, HEIGHT, WIDTH, HEIGHT), strict=True))
            lines.append(f"{label} {x1} {y1} {x2} {y1} {x2} {y2} {(x1 + x2) / 2} {y2} {x1} {y2}")
        put(tmp_path / f"labels/{i}.txt", "\n".join(lines))
    assert len(open_data(tmp_path, annotation="masks").train) == 6
    assert notes(tmp_path) == []


def notes(root: Path) -> list[str]:
    return [note for note in open_data(root, annotation="boxes").notes if "validation object" not in note]
