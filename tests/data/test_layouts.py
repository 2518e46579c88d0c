"""Layouts of annotation tools: what is drawn in the pictures is what is read, whatever the folders are called."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from layout_files import HEIGHT, NAMES, WIDTH, drawn, put, scene, voc, yolo
from PIL import Image

from resurge.data.checks import check_data
from resurge.data.fix import mend
from resurge.data.images import is_image_name
from resurge.data.sources import open_data, open_split
from resurge.data.splits import ObjectSplit
from resurge.errors import UserError

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
def yolo_with_a_list_of_powershell(root: Path) -> None:
    names = yolo_files(root, "images/{part}", "labels/{part}")
    (root / "train.txt").write_text("\n".join(names), encoding="utf-16")
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
def yolo_in_other_letters(root: Path) -> None:
    for i, name in enumerate(yolo_files(root, "images", "labels")):
        (root / name).rename(root / f"images/Shot_{i}.PNG")
        (root / f"labels/{i}.txt").rename(root / f"labels/SHOT_{i}.TXT")
    put(root / "classes.txt", "\n".join(NAMES))


@layout
def voc_in_other_letters(root: Path) -> None:
    for i in range(COUNT):
        scene(root / f"JPEGImages/Shot_{i}.png", i)
        put(root / f"ANNOTATIONS/SHOT_{i}.XML", voc(i, first=1))


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


def cvat_xml(shape: Callable[..., str], subset: str = "default") -> str:
    """The XML of CVAT with what `shape` makes of each label and box."""
    images = "".join(
        f'<image id="{i}" name="frames/{i}.png" subset="{subset}" width="{WIDTH}" height="{HEIGHT}">'
        f"{''.join(shape(NAMES[label], *box) for label, *box in drawn(i))}</image>"
        for i in range(COUNT)
    )
    return f"<?xml version='1.0' encoding='utf-8'?><annotations><version>1.1</version><meta/>{images}</annotations>"


def cvat_box(label: str, x1: int, y1: int, x2: int, y2: int) -> str:
    return f'<box label="{label}" xtl="{x1}.00" ytl="{y1}.0" xbr="{x2}.0" ybr="{y2}.0" occluded="0"/>'


def cvat_polygon(label: str, x1: int, y1: int, x2: int, y2: int) -> str:
    return f'<polygon label="{label}" points="{x1}.0,{y1}.0;{x2}.0,{y1}.0;{x2}.0,{y2}.0;{x1}.0,{y2}.0"/>'


def cvat_mask(label: str, x1: int, y1: int, x2: int, y2: int) -> str:
    lengths = ", ".join(["1", str((x2 - x1) * (y2 - y1) - 2), "1"])  # but its first and its last pixel
    return (f'<mask label="{label}" rle="{lengths}" left="{x1}" top="{y1}" width="{x2 - x1}" '
            f'height="{y2 - y1}"/>')  # fmt: skip


@layout
def cvat_boxes(root: Path) -> None:
    put(root / "annotations.xml", cvat_xml(cvat_box))
    for i in range(COUNT):
        scene(root / f"images/frames/{i}.png", i)


@layout
def cvat_outlines(root: Path) -> None:
    put(root / "annotations.xml", cvat_xml(cvat_polygon, "Train"))
    for i in range(COUNT):
        scene(root / f"images/Train/frames/{i}.png", i)


@layout
def cvat_masks(root: Path) -> None:
    put(root / "annotations.xml", cvat_xml(cvat_mask))
    for i in range(COUNT):
        scene(root / f"{i}.png", i)


@layout
def datumaro(root: Path) -> None:
    items = []
    for i in range(COUNT):
        scene(root / f"images/default/{i}.png", i)
        shapes = []
        for n, (label, x1, y1, x2, y2) in enumerate(drawn(i)):
            box = {"type": "bbox", "bbox": [x1, y1, x2 - x1, y2 - y1], "attributes": {"rotation": 0.0}}
            outline = {"type": "polygon", "points": [x1, y1, x2, y1, x2, y2, x1, y2]}
            shapes.append({"id": n, "label_id": label, "group": 0, **(outline if n else box)})
        image = {"path": f"{i}.png", "size": [HEIGHT, WIDTH]}
        items.append({"id": str(i), "annotations": shapes, "attr": {"frame": i}, "image": image})
    categories = {"label": {"labels": [{"name": name, "parent": ""} for name in NAMES]}, "points": {"items": []}}
    put(root / "annotations/default.json", json.dumps({"info": {}, "categories": categories, "items": items}))


@layout
def labelme(root: Path) -> None:
    for i in range(COUNT):
        scene(root / f"{i}.png", i)
        shapes = [
            {"label": NAMES[label], "points": [[x2, y1], [x1, y2]], "group_id": None, "shape_type": "rectangle"}
            if label
            else {"label": NAMES[label], "points": [[x1, y1], [x2, y1], [x2, y2], [x1, y2]], "shape_type": "polygon"}
            for label, x1, y1, x2, y2 in drawn(i)
        ]
        document = {"version": "5.1.1", "flags": {}, "shapes": shapes, "imagePath": f"..\\shots\\{i}.png",
                    "imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH}  # fmt: skip
        put(root / f"{i}.json", json.dumps(document))


def label_studio_shapes(index: int) -> list[dict]:
    shapes = []
    for label, x1, y1, x2, y2 in drawn(index):
        value = {"x": x1 / WIDTH * 100, "y": y1 / HEIGHT * 100, "width": (x2 - x1) / WIDTH * 100,
                 "height": (y2 - y1) / HEIGHT * 100, "rotation": 0, "rectanglelabels": [NAMES[label]]}  # fmt: skip
        shapes.append({"original_width": WIDTH, "original_height": HEIGHT, "value": value, "type": "rectanglelabels"})
    return shapes


@layout
def label_studio(root: Path) -> None:
    tasks = []
    for i in range(COUNT):
        scene(root / f"images/shot {i}.png", i)
        done = [{"id": i, "was_cancelled": False, "result": label_studio_shapes(i)}]
        tasks.append({"id": i, "annotations": done, "data": {"image": f"/data/upload/7/1a2b3c4d-shot%20{i}.png"}})
    put(root / "project-1.json", json.dumps(tasks))


def label_studio_rows() -> list[dict]:
    return [
        {"image": f"/data/local-files/?d=set/{i}.png", "id": i, "annotator": 1, "annotation_id": i, "lead_time": 3.5,
         "label": [{**shape.pop("value"), **shape} for shape in label_studio_shapes(i)]}
        for i in range(COUNT)
    ]  # fmt: skip


@layout
def label_studio_min(root: Path) -> None:
    for i in range(COUNT):
        scene(root / f"{i}.png", i)
    put(root / "project.json", json.dumps(label_studio_rows()))


@layout
def coco_of_cvat_and_label_studio(root: Path) -> None:
    """Backslashes in the names of the files, as on Windows."""
    images, annotations = [], []
    for i in range(COUNT):
        scene(root / f"images/{i}.png", i)
        images.append({"id": i, "file_name": f"images\\{i}.png", "width": WIDTH, "height": HEIGHT})
        for label, x1, y1, x2, y2 in drawn(i):
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append({"id": len(annotations), "image_id": i, "category_id": label, "bbox": box,
                                "segmentation": [], "area": box[2] * box[3], "iscrowd": 0, "ignore": 0})  # fmt: skip
    categories = [{"id": label, "name": name} for label, name in enumerate(NAMES)]
    put(root / "result.json", json.dumps({"images": images, "annotations": annotations, "categories": categories}))


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
    report, looked = check_data(root)  # without being told what the data are for
    assert report.ok
    assert report.stats["objects"] == 2 * COUNT
    out = tmp_path / "out"
    if report.stats["format"] not in ("coco", "voc", "yolo", "csv_boxes"):
        with pytest.raises(UserError, match="cannot be mended"):
            mend(looked, out)
        return
    mend(looked, out)
    for image in (file for file in root.rglob("*") if is_image_name(file.name)):
        (out / image.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, out / image.relative_to(root))
    assert boxes_of(out) == read


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


def test_a_table_of_label_studio(tmp_path):
    rows = [{**row, "label": json.dumps(row["label"])} for row in label_studio_rows()]
    with (tmp_path / "export.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for i in range(COUNT):
        scene(tmp_path / f"images/{i}.png", i)
    split, classes, _ = open_split(tmp_path / "export.csv", annotation="boxes")
    assert classes == NAMES
    assert np.allclose(split.target(3).boxes, [box for _, *box in drawn(3)])
    assert check_data(tmp_path / "export.csv")[0].stats["format"] == "label_studio"


@pytest.mark.parametrize("name", ["cvat_outlines", "cvat_masks", "datumaro", "labelme", "labelme_of_cvat"])
def test_outlines_of_tools_are_masks(tmp_path, name):
    LAYOUTS[name](tmp_path)
    if name == "labelme_of_cvat":
        with pytest.raises(UserError, match="boxes but no masks"):
            open_split(tmp_path, annotation="masks")
        return
    target = open_split(tmp_path, annotation="masks")[0].target(0)
    boxes = [box for i in range(COUNT) for _, *box in drawn(i)]
    areas = {tuple(map(float, box)): (box[2] - box[0]) * (box[3] - box[1]) for box in boxes}
    missing = 2 if name == "cvat_masks" else 0
    found = [region.decode(HEIGHT, WIDTH).sum() for region in target.regions]
    assert len(found) == (1 if name in ("datumaro", "labelme") else 2)  # in these the other object is a box alone
    assert found == [areas[tuple(box)] - missing for box in target.boxes.tolist()]


def test_a_turned_box_is_its_four_corners(tmp_path):
    xml = cvat_xml(lambda label, x1, y1, x2, y2: cvat_box(label, 10, 10, 30, 20).replace("/>", ' rotation="90.0"/>'))
    put(tmp_path / "annotations.xml", xml)
    for i in range(COUNT):
        scene(tmp_path / f"images/frames/{i}.png", i)
    target = open_split(tmp_path, annotation="masks")[0].target(0)
    assert np.allclose(target.boxes, [[15, 5, 25, 25]] * 2)


ELSEWHERE = {
    "tags": ("annotations.xml", lambda: cvat_xml(lambda label, *box: f'<tag label="{label}"/>'), "ImageNet 1.0"),
    "tracks": ("annotations.xml", lambda: "<annotations><track id='0'/></annotations>", "CVAT for images 1.1 or COCO"),
    "choices": (
        "project.json",
        lambda: json.dumps([{"image": "0.png", "choice": "a", "annotator": 1, "annotation_id": 2}]),
        "Export them as CSV",
    ),
    "half": ("annotations.xml", lambda: cvat_xml(cvat_box)[:300], "is damaged or cut short"),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_exports_that_are_not_read_are_said(tmp_path, name):
    file, text, message = ELSEWHERE[name]
    put(tmp_path / file, text())
    for i in range(2):
        scene(tmp_path / f"{i}.png", i)
    with pytest.raises(UserError, match=message):
        open_data(tmp_path, annotation="boxes")


def test_what_is_no_area_is_counted(tmp_path):
    put(tmp_path / "annotations.xml", cvat_xml(lambda *box: cvat_box(*box) + '<points label="nut" points="1,1"/>'))
    for i in range(COUNT):
        scene(tmp_path / f"{i}.png", i)
    assert any("shapes that are no boxes, outlines or masks: 12 points" in note for note in notes(tmp_path))
