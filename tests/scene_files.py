"""Small data sets for detection and segmentation, written to a folder by the tests that read them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from resurge.data.check_report import CheckReport
from resurge.data.splits import Objects

SQUARE = [[2.0, 2.0, 12.0, 2.0, 12.0, 12.0, 2.0, 12.0]]


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (40, 30)) -> Path:
    """Coloured noise of that width and height, in the format of the ending; no two seeds are alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def mask(path: Path, values: np.ndarray | int, size: tuple[int, int] = (40, 30)) -> Path:
    """A grey PNG of these values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.full(size[::-1], values, dtype=np.uint8) if isinstance(values, int) else values.astype(np.uint8)
    Image.fromarray(array).save(path, format="PNG")
    return path


def masks_of(objects: Objects, height: int, width: int) -> np.ndarray:
    """bool (n, height, width)"""
    masks = [region.decode(height, width) for region in objects.regions]
    return np.array(masks, dtype=bool).reshape(-1, height, width)


def no_objects() -> Objects:
    empty = np.zeros(0, np.float32)
    return Objects(empty.reshape(0, 4), empty.astype(np.int64), empty.astype(bool), empty, ())


def kinds(report: CheckReport) -> set[str]:
    return {finding.kind for finding in report.findings}


def annotation(number: int, image: int, category: int = 1, box=(2, 2, 10, 10), **more: object) -> dict:
    return {"id": number, "image_id": image, "category_id": category, "bbox": list(box), "iscrowd": 0,
            "segmentation": SQUARE, "area": box[2] * box[3], **more}  # fmt: skip


def coco_document(annotations: list[dict], images: int = 3, first: int = 0, names=None) -> dict:
    """Images a0.png … of 40 x 30 pixels with ids 10, 20, …; categories cat (1), dog (7), bird (90)."""
    entries = [{"id": 10 * (i + 1), "file_name": (names or {}).get(i, f"a{first + i}.png"), "width": 40, "height": 30}
               for i in range(images)]  # fmt: skip
    categories = [{"id": 90, "name": "bird"}, {"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}]
    return {"images": entries, "annotations": annotations, "categories": categories}


def write_coco(root: Path, train: dict, val: dict | None = None) -> Path:
    """annotations/instances_*2017.json with images in train2017/ and val2017/."""
    for seed, (name, document) in enumerate((("train2017", train), ("val2017", val))):
        if document is not None:
            file = root / "annotations" / f"instances_{name}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(document))
            for i, entry in enumerate(document["images"]):
                picture(root / name / entry["file_name"], 100 * seed + i, (entry["width"], entry["height"]))
    return root


def voc_xml(objects: list[tuple], size: tuple[int, int] = (40, 30), name: str = "x.jpg") -> str:
    """objects: (class, xmin, ymin, xmax, ymax[, difficult])."""
    items = "".join(
        f"<object><name>{kind}</name><difficult>{rest[0] if rest else 0}</difficult><bndbox><xmin>{x1}</xmin>"
        f"<ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for kind, x1, y1, x2, y2, *rest in objects
    )
    return (f"<annotation><filename>{name}</filename><size><width>{size[0]}</width><height>{size[1]}</height>"
            f"<depth>3</depth></size>{items}</annotation>")  # fmt: skip


def write_voc(root: Path, objects: dict[str, list[tuple]], lists: dict[str, list[str]] | None = None) -> Path:
    """Annotations/, JPEGImages/ and ImageSets/Main of images by stem."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for seed, (stem, things) in enumerate(objects.items()):
        picture(root / "JPEGImages" / f"{stem}.jpg", seed)
        (root / "Annotations" / f"{stem}.xml").write_text(voc_xml(things, name=f"{stem}.jpg"))
    for name, stems in (lists or {}).items():
        (root / "ImageSets/Main" / f"{name}.txt").write_text("".join(f"{stem}\n" for stem in stems))
    return root


def write_yolo(root: Path, labels: dict[str, str | None], names=("cat", "dog")) -> Path:
    """images/ and labels/ by path without ending, such as train/a; None: no text file."""
    for seed, (name, text) in enumerate(labels.items()):
        picture(root / "images" / f"{name}.png", seed)
        file = root / "labels" / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            file.write_text(text)
    if names:
        (root / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    return root


def write_nuclei(root: Path, count: int = 5) -> Path:
    """<id>/images/<id>.png with two masks each, the second over the image's lower right corner."""
    for i in range(count):
        picture(root / f"id{i}/images/id{i}.png", i)
        for j, (top, left) in enumerate(((3, 4), (22, 30))):
            values = np.zeros((30, 40), dtype=np.uint8)
            values[top : top + 8, left : left + 10] = 255
            mask(root / f"id{i}/masks/m{j}.png", values)
    return root


def write_pairs(root: Path, parts=("train", "val"), count: int = 3, classes: int = 3, outside: bool = True) -> Path:
    """images/<part>/ and masks/<part>/ (or <part>/images/ and so on) with vertical stripes of the classes and 255."""
    values = np.repeat(np.array([*range(classes), 255]), -(-40 // (classes + 1)))[None, :40].repeat(30, 0)
    for part in parts:
        for i in range(count):
            images, masks = (f"images/{part}", f"masks/{part}") if outside else (f"{part}/images", f"{part}/masks")
            picture(root / images / f"p{i}.jpg", 10 * len(part) + i)
            mask(root / masks / f"p{i}.png", values)
    return root


def write_camvid(root: Path, prefix: str = "/SegNet/CamVid/") -> Path:
    """Lists of two images a part, with masks of the indices 0 to 11."""
    for part in ("train", "val", "test"):
        lines = []
        for i in range(2):
            picture(root / part / f"{i}.png", i)
            mask(root / f"{part}annot/{i}.png", np.arange(1200).reshape(30, 40) % 12)
            lines.append(f"{prefix}{part}/{i}.png {prefix}{part}annot/{i}.png\n")
        (root / f"{part}.txt").write_text("".join(lines))
    return root


def healthy_coco(root: Path) -> Path:
    """Three images a part, each with an object, of each class."""
    train = coco_document([annotation(1, 10), annotation(2, 20, 7, (0, 0, 33, 30)), annotation(3, 30, 90)])
    return write_coco(
        root, train, coco_document([annotation(i, 10 * i, c) for i, c in ((1, 1), (2, 7), (3, 90))], 3, 5)
    )


def broken_coco(root: Path) -> Path:
    """Every fault that a COCO file can have, one of each kind."""
    crowd = {"size": [9, 9], "counts": [81]}
    objects = [
        annotation(1, 10), annotation(2, 20, 7), annotation(3, 30, 90), annotation(11, 10, box=(5, 5, 0, 7)),
        annotation(12, 10, box=(60, 5, 5, 7)), annotation(13, 20, box=(30, 5, 20, 7)), annotation(14, 20, 5),
        annotation(15, 20) | {"bbox": "none"}, annotation(16, 30, segmentation=crowd), annotation(17, 10),
        annotation(18, 9999), annotation(19, 60, segmentation=[]),
    ]  # fmt: skip
    train = coco_document(objects, images=8)
    write_coco(root, train, coco_document([annotation(1, 10), annotation(2, 20, 7)], 2, 20))
    train["images"].append({"id": None, "file_name": "nameless"})
    (root / "annotations/instances_train2017.json").write_text(json.dumps(train))
    (root / "train2017/a3.png").unlink()
    (root / "train2017/a4.png").write_bytes((root / "train2017/a4.png").read_bytes()[:400])
    picture(root / "train2017/a5.png", 5, (50, 30))
    (root / "val2017/a20.png").write_bytes((root / "train2017/a6.png").read_bytes())
    return root
