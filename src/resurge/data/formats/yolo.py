"""YOLO's text files: one per image, one line per object, everything as a share of the image's width and height.

A line is `class cx cy w h` for a box, or `class x1 y1 x2 y2 x3 y3 …` for an outline, as Ultralytics' documentation of
the format has it. The folders are images/ and labels/ side by side, or a data.yaml says where the images are. An image
without a text file has no objects.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from resurge.data.findings import without_image
from resurge.data.formats.format import Format
from resurge.data.mending import Mending
from resurge.data.object_source import ObjectSource
from resurge.data.paths import PARTS, below, by_part, find_images, read_file, read_lines, slashed
from resurge.data.pictures import read_headers
from resurge.data.records import Fault, RawObject, Record
from resurge.data.regions import Box, Polygons, polygons
from resurge.errors import UserError
from resurge.untrusted import parse_yaml

_Description = dict[str, object]
_DESCRIPTIONS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_CLASSES = ("classes.txt", "obj.names", "labels/classes.txt", "labels.txt")


class Yolo(Format):
    """A data.yaml, or a folder with images/ and labels/. Lines that cannot be read are faults with which training
    stops."""

    name = "yolo"
    annotations = ("boxes", "masks")
    expected = "YOLO: data.yaml, or images/ with labels/*.txt"

    def recognise(self, path: Path) -> bool:
        return find_yaml(path) is not None or (path.is_dir() and bool(_label_folders(path)))

    def read(self, path: Path) -> ObjectSource:
        description, root = find_yaml(path), path if path.is_dir() else path.parent
        names: tuple[str, ...] = ()
        places: tuple[Path, ...] = ()
        if description is not None:
            document = _load(description)
            places = tuple(place if place.is_dir() else place.parent for _, _, place in _places(document, root))
            names = _class_names(document, description)
            images = _images_of(document, root, description)
            how = f"the parts that {description.name} names"
            if not images:
                raise UserError(
                    f"{description} names no folder with images: its train is {document.get('train')!r}, below "
                    f"{_base(root, document)}. Correct path, train and val; they are relative to the file."
                )
        else:
            folders = _label_folders(root)
            images = {part: find_images(root, folder)[0] for part, folder in folders.items()}
            how = f"the folders {'images/ and labels/' if '' in folders else slashed(folders.values())}"
        names = names or class_file(root)
        parts: dict[str, tuple[Record, ...]] = {}
        for part, found in images.items():
            sizes = {name: header.upright_size for name, header in read_headers(root, found).items()}
            parts[part] = tuple(_record(root, name, sizes.get(name), names) for name in found)
        things = [thing for records in parts.values() for record in records for thing in record.objects]
        if not names:
            highest = max((int(thing.label) for thing in things if thing.label.isdigit()), default=-1)
            names = tuple(str(index) for index in range(highest + 1))
        lost = without_image("label file", _stray(root, parts), "add the image, or remove the file; it is not used")
        return ObjectSource(
            format=self.name, root=root, classes=names, parts=parts, how=how, findings=tuple(lost), way="centres",
            has_masks=any(thing.region is not None for thing in things), elsewhere=places,
        )  # fmt: skip

    def write(self, mending: Mending) -> None:
        """Write the text files again without what cannot be used, and the lists without the images that are gone."""
        data, root = mending.data, mending.root
        done: set[Path] = set()
        for part, record, file in mending.objects():
            if file in done:
                continue
            done.add(file)
            name = mending.inside(file)
            counted, size = mending.changes[name], data.size(record.name)
            if mending.keeps(record, part, counted, listed=False) and size is not None:
                lines = _mended(mending, record, read_file(file), size, counted)
                mending.file(name).write_bytes("".join(lines).encode("utf-8"))
        mending.left_out("missing-file", "label file without an image left out")
        description = find_yaml(root)
        places = () if description is None else _places(_load(description), root)
        for file in (place for _, _, place in places if place.is_file()):
            listed = read_lines(file)
            found = [data.images.get(_listed(file, line, root)) for line in listed]
            keep = [line for line, facts in zip(listed, found, strict=True) if facts is None or facts.error is None]
            mending.write_lines(mending.inside(file), keep, listed)


def find_yaml(path: Path) -> Path | None:
    """The description of a YOLO data set: the file itself, or data.yaml in a folder."""
    if path.is_file():
        return path if path.suffix.lower() in (".yaml", ".yml") else None
    return next((path / name for name in _DESCRIPTIONS if (path / name).is_file()), None)


def _label_folders(root: Path) -> dict[str, str]:
    """Folders of images by part, where folders with text files stand in their place under labels/."""

    def inside(name: str) -> str | None:
        places = ((f"images/{name}", f"labels/{name}"), (f"{name}/images", f"{name}/labels"))
        return next((images for images, labels in places if _holds_pair(root / images, root / labels)), None)

    whole = {"": "images"} if _holds_pair(root / "images", root / "labels") else {}
    return by_part(inside) or whole


def _holds_pair(images: Path, labels: Path) -> bool:
    return images.is_dir() and any(file.name not in _CLASSES for file in labels.glob("*.txt"))


def class_file(root: Path) -> tuple[str, ...]:
    """The lines of classes.txt (or obj.names); empty when there is none."""
    files = [root / name for name in _CLASSES]
    return next((tuple(read_lines(file)) for file in files if file.is_file()), ())


def _load(file: Path) -> _Description:
    try:
        document = parse_yaml(read_file(file).decode("utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{file} is no readable YAML: {error}. Expected the keys train, val and names.") from error
    if not isinstance(document, dict) or "names" not in document:
        raise UserError(f"{file} describes no YOLO data: expected the keys train, val and names.")
    return document


def _class_names(document: _Description, file: Path) -> tuple[str, ...]:
    names = document["names"]
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise UserError(f"{file}: names must number the classes 0, 1, 2, … without gaps; it has {list(names)[:8]}.")
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{file}: names must be a list of class names, or numbers with a name each.")
    return tuple(str(name) for name in names)


def _base(root: Path, document: _Description) -> Path:
    """The folder that train and val are relative to. `path` was often written on another machine."""
    path = document.get("path")
    wanted = root / Path(str(path)).expanduser() if path else root
    return wanted if wanted.is_dir() else root


def _places(document: _Description, root: Path) -> Iterator[tuple[str, str, Path]]:
    """(part, text, file or folder) of what a description names: a folder, or a text file that lists images. A value is
    one text or a list of them. What is nowhere is below the base."""
    for part in PARTS:
        value = document.get(part, document.get("valid") if part == "val" else None)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str) and item:
                options = [_base(root, document) / item, root / item, root / item.removeprefix("../")]
                yield part, item, next((option for option in options if option.exists()), options[0])


def _images_of(document: _Description, root: Path, description: Path) -> dict[str, list[str]]:
    """The images of each part, as paths below `root`."""
    found: dict[str, list[str]] = defaultdict(list)
    for part, item, place in _places(document, root):
        if not place.exists():
            raise UserError(f"{description}: {part} is {item!r}, but there is no {place}. Correct it.")
        if place.is_dir():
            found[part] += [below(root, place / name) for name in find_images(place, "")[0]]
        else:
            found[part] += [_listed(place, line, root) for line in read_lines(place)]
    return {part: images for part, images in found.items() if images}


def _listed(file: Path, line: str, root: Path) -> str:
    """The image that a line of such a file means, as a path below `root`."""
    base = next((base for base in (file.parent, root) if (base / line).is_file()), file.parent)
    return below(root, base / line.removeprefix("./"))


def label_file(root: Path, name: str) -> Path:
    """The text file of an image: under labels/ in the place of the last images/, else beside it."""
    path = Path(name)
    parts = list(path.parts)
    if "images" in parts[:-1]:
        at = len(parts) - 2 - parts[:-1][::-1].index("images")
        parts[at] = "labels"
    return root.joinpath(*parts).with_suffix(".txt")


def _record(root: Path, name: str, size: tuple[int, int] | None, names: tuple[str, ...]) -> Record:
    file = label_file(root, name)
    if not file.is_file():
        return Record(name, (), shares=True)
    objects = tuple(_object(key, line, size, names) for key, line in _lines_of(read_file(file)))
    return Record(name, objects, source=file, shares=True)


def _lines_of(data: bytes) -> Iterator[tuple[int, str]]:
    """(number from 0, text) of the lines that are not empty."""
    for number, line in enumerate(data.split(b"\n")):
        if line.strip():
            yield number, line.decode("utf-8", "replace").strip("\ufeff \r\t")


def _object(key: int, line: str, size: tuple[int, int] | None, names: tuple[str, ...]) -> RawObject:
    where, fields = f"line {key + 1}", line.split()
    try:
        numbers = [float(field) for field in fields[1:]]
        index = int(float(fields[0]))
        if index != float(fields[0]) or not all(map(math.isfinite, numbers)):
            raise ValueError("not finite")
    except (ValueError, OverflowError):
        numbers, index = [], -1
    if len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2):
        message = f"{line[:60]!r} is neither `class cx cy w h` nor an outline of 3 points or more"
        return RawObject(where, key, "", fault=Fault("bad-object", message, stops=True))
    is_known = index >= 0 and (not names or index < len(names))
    fault = None
    if not is_known:
        message = f"the class {index} is none of the {len(names)} classes 0 to {len(names) - 1}"
        fault = Fault("unknown-category", message)
    elif size is None:
        fault = Fault("bad-object", "its image cannot be read")
    elif max(numbers) > 1.5:
        shown = f" ({', '.join(fields[1:])})" if len(numbers) == 4 else ""
        fault = Fault("bad-object", f"its numbers{shown} are no shares of the image, 0 to 1")
    label = names[index] if names and is_known else str(index)
    width, height = size or (0, 0)
    if len(numbers) == 4:
        cx, cy, w, h = numbers
        box = ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
        return RawObject(where, key, label, box, fault=fault)
    xs, ys = [x * width for x in numbers[0::2]], [y * height for y in numbers[1::2]]
    outline = [value for point in zip(xs, ys, strict=True) for value in point]
    return RawObject(where, key, label, (min(xs), min(ys), max(xs), max(ys)), region=polygons([outline]), fault=fault)


def _stray(root: Path, parts: dict[str, tuple[Record, ...]]) -> list[str]:
    """Text files that belong to no image, in the folders where others do."""
    used = {record.source for records in parts.values() for record in records if record.source is not None}
    return sorted(
        below(root, file) for folder in {file.parent for file in used} for file in folder.glob("*.txt")
        if file not in used and file.name not in _CLASSES and not file.name.startswith("README")
    )  # fmt: skip


def _mended(
    mending: Mending, record: Record, data: bytes, size: tuple[int, int], counted: Counter[str]
) -> Iterator[str]:
    things = {thing.key: thing for thing in record.objects}
    for number, line in _lines_of(data):
        thing = things[number]
        box = mending.box(thing, size, counted)
        if box is not None:
            yield f"{line if box == thing.box and not thing.changed else _line(line.split()[0], thing, box, size)}\n"


def _line(index: str, thing: RawObject, box: Box, size: tuple[int, int]) -> str:
    width, height = size
    x1, y1, x2, y2 = box
    shares = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
    if isinstance(thing.region, Polygons):
        points = np.asarray(thing.region.points()[0]).reshape(-1, 2)
        shares = np.clip(points / (width, height), 0, 1).reshape(-1).tolist()
    return " ".join([index, *(f"{value:.6g}" for value in shares)])
