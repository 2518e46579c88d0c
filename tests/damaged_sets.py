"""Random data sets whose pictures show what is annotated, written in many formats, and damages of them.

Rectangles of two colours stand on grey noise, so that the pictures themselves say what a reader should find, whatever
happened to the files.
"""

from __future__ import annotations

import csv
import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("red", "green")
COLOURS = ((230, 30, 30), (30, 220, 40))
Box = tuple[float, float, float, float]


@dataclass
class Scene:
    """A picture and its rectangles (class, x1, y1, x2, y2), in pixels."""

    stem: str
    pixels: np.ndarray
    objects: list[tuple[int, int, int, int, int]]


@dataclass
class Writing:
    """How a set is written; a damage changes some of it."""

    random: np.random.Generator
    image: Callable[[Scene], Image.Image] = lambda scene: Image.fromarray(scene.pixels)
    ending: str = ".png"
    save: dict[str, object] = field(default_factory=dict)
    size: Callable[[Scene], tuple[int, int]] = lambda scene: (scene.pixels.shape[1], scene.pixels.shape[0])
    corners: Callable[[Box, tuple[int, int]], Box] = lambda box, size: box
    coco_box: Callable[[Box, tuple[int, int]], list[float]] = lambda b, size: [b[0], b[1], b[2] - b[0], b[3] - b[1]]
    outline: Callable[[Box], list] = lambda b: [b[0], b[1], b[2], b[1], b[2], b[3], b[0], b[3]]
    label: Callable[[int], int] = lambda label: label
    name: Callable[[str], str] = lambda name: name  # as annotations spell it
    number: Callable[[int], object] = lambda number: number
    crowd: int = 0
    mask: Callable[[np.ndarray, int], Image.Image] = lambda values, index: Image.fromarray(values)
    repeat: int = 1  # how often each object is written
    names: tuple[str, ...] = CLASSES


def scenes(random: np.random.Generator, count: int, first: int = 0) -> list[Scene]:
    """Pictures of one size each 64 to 120 pixels wide and 48 to 90 high, never square, with an object in each half."""
    width, height = int(random.integers(96, 121)), int(random.integers(60, 91))
    found = []
    for index in range(count):
        pixels = random.integers(90, 140, (height, width, 3)).astype(np.uint8)
        objects = []
        for half in range(2):
            label = (index + half) % 2
            w, h = (int(value) for value in random.integers(16, 30, 2))
            x = half * width // 2 + int(random.integers(2, width // 2 - w - 2))
            y = int(random.integers(2, height - h - 2))
            pixels[y : y + h, x : x + w] = COLOURS[label]
            objects.append((label, x, y, x + w, y + h))
        found.append(Scene(f"pic{first + index}", pixels, objects))
    return found


def _picture(folder: Path, scene: Scene, how: Writing) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{scene.stem}{how.ending}"
    how.image(scene).save(folder / name, **how.save)
    return name


def _boxes(scene: Scene, how: Writing) -> list[tuple[int, Box]]:
    size = how.size(scene)
    return [(how.label(label), how.corners(tuple(map(float, box)), size)) for label, *box in scene.objects] * how.repeat


def label_map(scene: Scene) -> np.ndarray:
    values = np.zeros(scene.pixels.shape[:2], dtype=np.uint8)
    for label, x1, y1, x2, y2 in scene.objects:
        values[y1:y2, x1:x2] = label + 1
    return values


def write_coco(root: Path, parts: dict[str, list[Scene]], how: Writing, segmentation: str = "") -> None:
    number = 0
    for part, found in parts.items():
        document: dict[str, list] = {"images": [], "annotations": [], "categories": []}
        document["categories"] = [{"id": how.number(3 * i + 1), "name": name} for i, name in enumerate(how.names)]
        for scene in found:
            number += 1
            name, (width, height) = _picture(root / part, scene, how), how.size(scene)
            document["images"].append({"id": how.number(number), "file_name": how.name(name), "width": width,
                                       "height": height})  # fmt: skip
            for label, box in _boxes(scene, how):
                entry = {"id": len(document["annotations"]), "image_id": how.number(number), "iscrowd": how.crowd,
                         "category_id": how.number(3 * label + 1), "bbox": how.coco_box(box, (width, height)),
                         "area": (box[2] - box[0]) * (box[3] - box[1])}  # fmt: skip
                if segmentation == "polygons":
                    entry["segmentation"] = [how.outline(box)]
                elif segmentation == "lengths":
                    mask = np.zeros((height, width), dtype=bool)
                    x1, y1, x2, y2 = np.nan_to_num(box).astype(int)
                    mask[y1:y2, x1:x2] = True
                    flat = mask.flatten(order="F")
                    edges = np.flatnonzero(np.diff(flat.astype(np.int8), prepend=0))
                    counts = np.diff([0, *edges, flat.size]).tolist()
                    entry["segmentation"] = {"size": [height, width], "counts": counts}
                document["annotations"].append(entry)
        file = root / "annotations" / f"instances_{part}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(document))


def write_voc(root: Path, parts: dict[str, list[Scene]], how: Writing) -> None:
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for part, found in parts.items():
        for scene in found:
            name, (width, height) = _picture(root / "JPEGImages", scene, how), how.size(scene)
            items = "".join(
                f"<object><name>{how.names[label]}</name><bndbox><xmin>{x1 + 1:g}</xmin><ymin>{y1 + 1:g}</ymin>"
                f"<xmax>{x2:g}</xmax><ymax>{y2:g}</ymax></bndbox></object>"
                for label, (x1, y1, x2, y2) in _boxes(scene, how)
            )
            (root / "Annotations" / f"{scene.stem}.xml").write_text(
                f"<annotation><filename>{how.name(name)}</filename><size><width>{width}</width><height>{height}"
                f"</height><depth>3</depth></size>{items}</annotation>"
            )
        lines = "".join(f"{scene.stem}\n" for scene in found)
        (root / "ImageSets/Main" / f"{part}.txt").write_text(lines)


def write_yolo(root: Path, parts: dict[str, list[Scene]], how: Writing, outlines: bool = False) -> None:
    for part, found in parts.items():
        listed = []
        (root / "labels" / part).mkdir(parents=True)
        for scene in found:
            name, (width, height) = _picture(root / "images" / part, scene, how), how.size(scene)
            listed.append(how.name(f"images/{part}/{name}"))
            lines = []
            for label, (x1, y1, x2, y2) in _boxes(scene, how):
                x1, x2, y1, y2 = x1 / width, x2 / width, y1 / height, y2 / height
                numbers = (
                    (x1, y1, x2, y1, x2, y2, x1, y2) if outlines else ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
                )
                lines.append(" ".join([str(label), *(f"{value:.6f}" for value in numbers)]))
            (root / "labels" / part / f"{scene.stem}.txt").write_text("\n".join(lines) + "\n")
        (root / f"{part}.txt").write_text("\n".join(listed) + "\n")
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(how.names))
    lists = "".join(f"{part}: {part}.txt\n" for part in parts)
    (root / "data.yaml").write_text(f"path: .\n{lists}names:\n{names}")


def write_csv_boxes(root: Path, parts: dict[str, list[Scene]], how: Writing) -> None:
    rows: list[tuple] = [("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax", "split")]
    for part, found in parts.items():
        for scene in found:
            name, size = _picture(root / "img", scene, how), how.size(scene)
            rows += [(how.name(f"img/{name}"), *size, how.names[label], *(f"{v:g}" for v in box), part)
                     for label, box in _boxes(scene, how)]  # fmt: skip
    with (root / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def write_objects(root: Path, parts: dict[str, list[Scene]], how: Writing) -> None:
    """One mask file per object; the layout has one class."""
    for part, found in parts.items():
        for scene in found:
            place = root / part / scene.stem
            _picture(place / "images", scene, how)
            (place / "masks").mkdir()
            for index, (_, x1, y1, x2, y2) in enumerate(scene.objects):
                values = np.zeros(scene.pixels.shape[:2], dtype=np.uint8)
                values[y1:y2, x1:x2] = 255
                how.mask(values, index).save(place / "masks" / f"{index}.png")


def write_pairs(root: Path, parts: dict[str, list[Scene]], how: Writing) -> None:
    for part, found in parts.items():
        (root / "masks" / part).mkdir(parents=True)
        for index, scene in enumerate(found):
            _picture(root / "images" / part, scene, how)
            how.mask(label_map(scene), index).save(root / "masks" / part / f"{scene.stem}.png")
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in ("background", *how.names)))


def write_binary(root: Path, parts: dict[str, list[Scene]], how: Writing) -> None:
    """Masks of 0 and 255, without names of classes."""
    for part, found in parts.items():
        (root / "masks" / part).mkdir(parents=True)
        for index, scene in enumerate(found):
            _picture(root / "images" / part, scene, how)
            values = ((label_map(scene) > 0) * 255).astype(np.uint8)
            how.mask(values, index).save(root / "masks" / part / f"{scene.stem}.png")


def _single(scene: Scene) -> Scene:
    """The picture with its first object alone."""
    pixels = scene.pixels.copy()
    _, x1, y1, x2, y2 = scene.objects[1]
    pixels[y1:y2, x1:x2] = 110
    return Scene(scene.stem, pixels, scene.objects[:1])


def write_folders(root: Path, parts: dict[str, list[Scene]], how: Writing) -> None:
    for part, found in parts.items():
        for scene in map(_single, found):
            _picture(root / part / how.names[scene.objects[0][0]], scene, how)


def write_table(root: Path, parts: dict[str, list[Scene]], how: Writing) -> None:
    rows = ["path,label,split"]
    for part, found in parts.items():
        for scene in map(_single, found):
            name = _picture(root / "img", scene, how)
            rows += [f"{how.name(f'img/{name}')},{how.names[how.label(scene.objects[0][0])]},{part}"] * how.repeat
    (root / "list.csv").write_text("\n".join(rows) + "\n")


@dataclass(frozen=True)
class Layout:
    write: Callable[[Path, dict[str, list[Scene]], Writing], None]
    annotation: str
    place: str = ""  # what is given as the data, below the folder
    named: bool = True  # whether objects have the two classes


LAYOUTS = {
    "coco": Layout(write_coco, "boxes"),
    "coco_polygons": Layout(lambda *a: write_coco(*a, segmentation="polygons"), "masks"),
    "coco_lengths": Layout(lambda *a: write_coco(*a, segmentation="lengths"), "masks"),
    "voc": Layout(write_voc, "boxes"),
    "yolo": Layout(write_yolo, "boxes"),
    "yolo_outlines": Layout(lambda *a: write_yolo(*a, outlines=True), "masks"),
    "csv_boxes": Layout(write_csv_boxes, "boxes"),
    "objects": Layout(write_objects, "masks", named=False),
    "pairs": Layout(write_pairs, "maps"),
    "binary": Layout(write_binary, "maps", named=False),
    "folders": Layout(write_folders, "labels"),
    "table": Layout(write_table, "labels", "list.csv"),
}

# ------------------------------------------------------------------------------------------------------------ damages

Damage = Callable[[Writing], None]
After = Callable[[Path, np.random.Generator], None]


def _resized(x: float, y: float) -> Damage:
    def change(how: Writing) -> None:
        old = how.image

        def image(scene: Scene) -> Image.Image:
            found = old(scene)
            return found.resize((round(found.width * x), round(found.height * y)), Image.Resampling.NEAREST)

        how.image = image

    return change


def _one_resized(how: Writing) -> None:
    def image(scene: Scene) -> Image.Image:
        found = Image.fromarray(scene.pixels)
        return found.resize((found.width // 2, found.height), 0) if scene.stem == "pic1" else found

    how.image = image


def _exif(tag: int) -> Damage:
    def change(how: Writing) -> None:
        exif = Image.Exif()
        exif[274] = tag
        how.ending, how.save = ".jpg", {"exif": exif, "quality": 95, "subsampling": 0}

    return change


def _soft(values: np.ndarray, index: int) -> Image.Image:
    image = Image.fromarray(values)
    small = image.resize((image.width * 5 // 4, image.height * 5 // 4), Image.Resampling.BILINEAR)
    return small.resize(image.size, Image.Resampling.BILINEAR)


def _tinted(values: np.ndarray, index: int) -> Image.Image:
    palette = np.array([(0, 0, 0), *COLOURS], dtype=np.uint8)
    return Image.fromarray(palette[np.minimum(values, 2)])


def _set(**changes: object) -> Damage:
    def change(how: Writing) -> None:
        for name, value in changes.items():
            setattr(how, name, value)

    return change


def _share(box: Box, size: tuple[int, int]) -> Box:
    return (box[0] / size[0], box[1] / size[1], box[2] / size[0], box[3] / size[1])


def _mixed(values: np.ndarray, index: int) -> Image.Image:
    return Image.fromarray(values if index % 2 else np.minimum(values, 1))


def _other_size(values: np.ndarray, index: int) -> Image.Image:
    return Image.fromarray(values).resize((values.shape[1] // 2, values.shape[0] - 7), Image.Resampling.NEAREST)


def _half_mask(values: np.ndarray, index: int) -> Image.Image:
    return Image.fromarray(values).resize((values.shape[1] // 2, values.shape[0] // 2), Image.Resampling.NEAREST)


def _bad_number(box: Box, size: tuple[int, int]) -> Box:
    return (box[0], box[1], box[2], float("nan"))


DAMAGES: dict[str, Damage] = {
    "none": lambda how: None,
    "pictures halved": _resized(0.5, 0.5),
    "pictures enlarged": _resized(1.7, 1.7),
    "pictures squeezed": _resized(1, 0.6),
    "one picture squeezed": _one_resized,
    "exif 3": _exif(3),
    "exif 6": _exif(6),
    "exif 8": _exif(8),
    "exif 5": _exif(5),
    "exif 2": _exif(2),
    "shares of one": _set(corners=_share),
    "x and y swapped": _set(corners=lambda b, size: (b[1], b[0], b[3], b[2])),
    "corners for sizes": _set(coco_box=lambda b, size: list(b)),
    "sizes for corners": _set(corners=lambda b, size: (b[0], b[1], b[2] - b[0], b[3] - b[1])),
    "point pairs": _set(outline=lambda b: [[b[0], b[1]], [b[2], b[1]], [b[2], b[3]], [b[0], b[3]]]),
    "outlines elsewhere": _set(outline=lambda b: [b[0] + 40, b[1], b[2] + 40, b[1], b[2] + 40, b[3], b[0] + 40, b[3]]),
    "below a pixel": _set(corners=lambda b, size: (b[0], b[1], b[0] + 0.3, b[1] + 0.3)),
    "no area": _set(corners=lambda b, size: (b[0], b[1], b[0], b[3])),
    "outside": _set(corners=lambda b, size: (b[0] + 500, b[1], b[2] + 500, b[3])),
    "not a number": _set(corners=_bad_number),
    "negative": _set(corners=lambda b, size: (-b[0], -b[1], -b[2], -b[3])),
    "upper case names": _set(name=str.upper),
    "backslashes": _set(name=lambda name: name.replace("/", "\\") if "/" in name else f".\\{name}"),
    "paths of another machine": _set(name=lambda name: f"C:\\Users\\me\\data\\{name}"),
    "absolute paths": _set(name=lambda name: f"/home/me/data/{name}"),
    "decomposed names": _set(name=lambda name: unicodedata.normalize("NFD", name.replace("pic", "píc"))),
    "blanks about names": _set(name=lambda name: f" {name} "),
    "another ending": _set(name=lambda name: name.replace(".png", ".jpg")),
    "crowds": _set(crowd=1),
    "text ids": _set(number=lambda number: f"{number:05d}"),
    "float ids": _set(number=float),
    "classes from one": _set(label=lambda label: label + 1, names=("red", "green", "blue")),
    "classes swapped": _set(names=("green", "green")),
    "objects doubled": _set(repeat=2),
    "soft masks": _set(mask=_soft),
    "coloured masks": _set(mask=_tinted),
    "masks of one size": _set(mask=_other_size),
    "masks halved": _set(mask=_half_mask),
    "masks mixed": _set(mask=_mixed),
    "masks in bits": _set(mask=lambda values, index: Image.fromarray(values > 0)),
    "masks with gaps": _set(mask=lambda values, index: Image.fromarray(values * 60)),
    "grey pictures": _set(image=lambda scene: Image.fromarray(scene.pixels).convert("L")),
    "sixteen bits": _set(image=lambda scene: Image.fromarray(scene.pixels[..., 0].astype(np.uint16) * 16)),
    "palettes": _set(image=lambda scene: Image.fromarray(scene.pixels).quantize(256)),
}


def _files(root: Path, *endings: str) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.suffix in endings)


def _some(files: list[Path], random: np.random.Generator) -> list[Path]:
    return [files[int(random.integers(len(files)))]] if files else []


def _pictures(root: Path) -> list[Path]:
    return [path for path in _files(root, ".png", ".jpg") if "masks" not in path.parts]


def _cut(files: list[Path], share: float = 0.6) -> None:
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * share)])


def _texts(root: Path) -> list[Path]:
    return _files(root, ".json", ".xml", ".txt", ".yaml", ".csv")


def _recode(encoding: str, end: str = "\n") -> After:
    def change(root: Path, random: np.random.Generator) -> None:
        for file in _texts(root):
            file.write_bytes(file.read_text().replace("\n", end).encode(encoding))

    return change


def _remove(files: list[Path]) -> None:
    for file in files:
        file.unlink()


def _overwrite(files: list[Path], content: bytes) -> None:
    for file in files:
        file.write_bytes(content)


AFTER: dict[str, After] = {
    "picture missing": lambda root, random: _remove(_some(_pictures(root), random)),
    "picture cut": lambda root, random: _cut(_some(_pictures(root), random)),
    "picture empty": lambda root, random: _overwrite(_some(_pictures(root), random), b""),
    "picture is text": lambda root, random: _overwrite(_some(_pictures(root), random), b"<html>not found</html>"),
    "annotation missing": lambda root, random: _remove(_some(_files(root, ".json", ".xml", ".txt", ".csv"), random)),
    "annotation cut": lambda root, random: _cut(_some(_texts(root), random)),
    "annotation empty": lambda root, random: _overwrite(_some(_texts(root), random), b""),
    "mask missing": lambda root, random: _remove(
        _some([p for p in _files(root, ".png") if "masks" in p.parts], random)
    ),
    "mask cut": lambda root, random: _cut(_some([p for p in _files(root, ".png") if "masks" in p.parts], random)),
    "byte order mark": _recode("utf-8-sig"),
    "line ends of windows": _recode("utf-8", "\r\n"),
    "utf-16": _recode("utf-16"),
    "decimal commas": lambda root, random: (
        [file.write_text(file.read_text().replace(".", ",")) for file in _files(root, ".txt") if "labels" in file.parts]
        and None
    ),
}


COCO = ("coco", "coco_polygons", "coco_lengths")
YOLO = ("yolo", "yolo_outlines")
COORDINATES = (*COCO, "voc", *YOLO, "csv_boxes")
LISTED = (*COCO, "voc", *YOLO, "csv_boxes", "table")
MASKS = ("objects", "pairs", "binary")
# What a damage changes, where that is not every layout; or where it would make another set, which nobody could know.
CONCERNED = {
    **dict.fromkeys(("shares of one", "x and y swapped", "sizes for corners", "below a pixel", "no area", "outside",
                     "not a number", "negative", "objects doubled"), COORDINATES),
    **dict.fromkeys(("corners for sizes", "crowds", "text ids", "float ids"), COCO),
    **dict.fromkeys(("point pairs", "outlines elsewhere"), ("coco_polygons",)),
    **dict.fromkeys(("upper case names", "backslashes", "paths of another machine", "absolute paths",
                     "decomposed names", "blanks about names", "another ending"), LISTED),
    **dict.fromkeys(("soft masks", "coloured masks", "masks of one size", "masks halved",
                     "masks in bits", "masks with gaps", "mask cut"), MASKS),
    "masks mixed": ("objects", "binary"),
    "mask missing": ("pairs", "binary"),
    **dict.fromkeys(("classes from one", "classes swapped"), (*COCO, *YOLO, "pairs")),
    "picture missing": (*LISTED, *MASKS),
    **dict.fromkeys(("annotation missing",), (*COORDINATES, "table")),
    **dict.fromkeys(("annotation cut", "annotation empty", "byte order mark", "line ends of windows", "utf-16"),
                    (*LISTED, "pairs")),
    "decimal commas": YOLO,
}  # fmt: skip


def concerns(damage: str, layout: str) -> bool:
    """Whether a damage changes a set of this layout."""
    return layout in CONCERNED.get(damage, LAYOUTS)


COLOURLESS = ("grey pictures", "sixteen bits")


def write(root: Path, layout: str, damage: str, seed: int) -> tuple[Path, dict[str, np.ndarray]]:
    """A set of eight training and four validation pictures in a layout, with a damage: what to give as the data, and
    for damages that take the colours away what the pictures showed, by stem, as `drawn` says it."""
    random = np.random.default_rng(seed)
    parts = {"train": scenes(random, 8), "val": scenes(random, 4, 8)}
    how = Writing(random)
    DAMAGES.get(damage, lambda how: None)(how)
    root.mkdir(parents=True, exist_ok=True)
    LAYOUTS[layout].write(root, parts, how)
    if damage in AFTER:
        AFTER[damage](root, random)
    every = [scene for found in parts.values() for scene in found]
    if LAYOUTS[layout].annotation == "labels":
        every = list(map(_single, every))
    kept = {scene.stem: label_map(scene) for scene in every} if damage in COLOURLESS else {}
    return root / LAYOUTS[layout].place, kept


def drawn(image: Image.Image) -> np.ndarray:
    """int (H, W): what a picture shows, 0 for the ground and 1 and 2 for the two classes."""
    pixels = np.asarray(image.convert("RGB")).astype(int)
    close = [np.abs(pixels - np.array(colour)).sum(-1) < 150 for colour in COLOURS]
    return np.where(close[0], 1, np.where(close[1], 2, 0))
