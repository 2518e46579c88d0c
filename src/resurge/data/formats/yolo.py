"""YOLO's text files: one per image, one line per object, everything as a share of the image's width and height.

A line is `class cx cy w h` for a box, or `class x1 y1 x2 y2 x3 y3 …` for an outline, as Ultralytics' documentation of
the format has it; a line of a pose is a box with key points behind, which are not read. The folders are images/ and
labels/ side by side, or each text file lies beside its image, or a data.yaml or Darknet's .data says where the images
are. An image without a text file has no objects.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from resurge.data.class_names import CLASS_FILES, find_classes, yaml_names
from resurge.data.findings import Finding, finding, other_names, without_image
from resurge.data.formats.format import Format
from resurge.data.images import is_image_name
from resurge.data.mending import Mending
from resurge.data.object_source import ObjectSource, any_mask
from resurge.data.paths import (
    PARTS,
    beginning,
    below,
    by_part,
    find_images,
    folder_of,
    found_names,
    listed_name,
    read_file,
    read_lines,
    slashed,
    subfolders,
    text_of,
)
from resurge.data.pictures import read_headers
from resurge.data.records import Fault, RawObject, Record
from resurge.data.regions import Box, Polygons, polygons
from resurge.errors import UserError
from resurge.untrusted import parse_yaml

_Description = dict[str, object]
_DESCRIPTIONS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_CLASS_FOLDERS = ("", "labels", "train")
_OBB = re.compile(r"(?<![a-z])obb(?![a-z])")
_LOOKED_AT = 20  # text files that tell whether those of a folder are labels
_Lines = list[tuple[int, str]]


class Yolo(Format):
    """A data.yaml, a Darknet .data, a folder with images/ and labels/, or one of images with their text files beside.
    Lines that cannot be read are faults with which training stops."""

    name = "yolo"
    annotations = ("boxes", "masks")
    expected = "YOLO: data.yaml, or images/ with labels/*.txt"

    def recognise(self, path: Path) -> bool:
        return find_yaml(path) is not None or (path.is_dir() and bool(_label_folders(path)))

    def read(self, path: Path) -> ObjectSource:
        description, root = find_yaml(path), path if path.is_dir() else path.parent
        names: tuple[str, ...] = ()
        places: tuple[Path, ...] = ()
        document: _Description = {}
        renamed: dict[str, str] = {}
        if description is not None:
            document = _load(description)
            places = tuple(place if place.is_dir() else place.parent for _, _, place in _places(document, root))
            names = _darknet_names(description) if description.suffix.lower() == ".data" else yaml_names(description)
            images = _images_of(document, root, description, renamed)
            how = f"the parts that {description.name} names"
            if not images:
                raise UserError(
                    f"{description} names no folder with images: its train is {document.get('train')!r}, below "
                    f"{_base(root, document)}. Correct path, train and val; they are relative to the file."
                )
        else:
            folders = _label_folders(root)
            images = {part: find_images(root, folder)[0] for part, folder in folders.items()}
            whole = "the folders images/ and labels/" if folders.get("") else f"the folder {path.resolve().name}"
            how = whole if "" in folders else f"the folders {slashed(folders.values())}"
        names = names or class_file(root)
        everything = list(dict.fromkeys(name for found in images.values() for name in found))
        files = _label_files(root, everything, renamed)
        if everything and not files:
            raise UserError(
                f"none of the {len(everything)} images in {how} has a text file of labels; the first would be "
                f"{label_file(root, everything[0])}. Put the files there."
            )
        lines = {name: list(_lines_of(read_file(file))) for name, file in files.items()}
        numbers = [each for found in lines.values() for _, line in found if (each := _numbers(line))]
        findings = other_names(renamed)
        points = _points(document, numbers, findings)
        sizes = {name: header.upright_size for name, header in read_headers(root, everything).items()}
        records = {
            name: Record(name, tuple(_object(key, line, sizes.get(name), names, points) for key, line in lines[name]),
                         source=files[name], shares=True)
            if name in files else Record(name, (), shares=True)
            for name in everything
        }  # fmt: skip
        parts = {part: tuple(records[name] for name in found) for part, found in images.items()}
        named = bool(names)
        if not named:
            labels = {thing.label for record in records.values() for thing in record.objects}
            highest = max((int(label) for label in labels if label.isdigit()), default=-1)
            names = tuple(str(index) for index in range(highest + 1))
        findings += without_image("label file", _stray(root, set(files.values())))
        findings += _rotated(document, description, numbers, points)
        return ObjectSource(
            format=self.name, root=root, classes=names, named=named, parts=parts, how=how, findings=tuple(findings),
            way="centres",
            has_masks=any_mask(parts), elsewhere=places,
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
        for file in (*((description,) if description else ()), *sorted(root.glob("*.names"))):
            mending.file(mending.inside(file)).write_bytes(read_file(file))
        places = () if description is None else _places(_load(description), root)
        for file in (place for _, _, place in places if place.is_file()):
            listed = _listed(file, root, {})
            found = {line: data.images.get(name) for line, name in listed.items()}
            keep = [line for line, facts in found.items() if facts is None or facts.error is None]
            mending.write_lines(mending.inside(file), keep, list(listed))


def find_yaml(path: Path) -> Path | None:
    """The description of a YOLO data set: the file itself, or data.yaml, another YAML file with names and train, or
    Darknet's .data in a folder."""
    if path.is_file():
        return path if path.suffix.lower() in (".yaml", ".yml", ".data") else None
    usual = next((path / name for name in _DESCRIPTIONS if (path / name).is_file()), None)
    others = (file for file in sorted(path.glob("*.y*ml")) if _describes(file, (b"names", b"train")))
    return (
        usual
        or next(others, None)
        or next((f for f in sorted(path.glob("*.data")) if _describes(f, (b"train",))), None)
    )


def _describes(file: Path, keys: tuple[bytes, ...]) -> bool:
    """Whether lines of a file begin with all these keys."""
    begins = {line.replace(b"=", b":").split(b":")[0].strip() for line in beginning(file).split(b"\n")}
    return begins >= set(keys)


def _label_folders(root: Path) -> dict[str, str]:
    """Folders of images by part, where folders with text files stand in their place under labels/, or the text files
    beside the images."""

    def inside(name: str) -> str | None:
        places = ((("images",), (name,)), ((name,), ("images",)))
        pairs = (folder_of(root, steps) for steps in places)
        found = next((images for images in pairs if images and _holds_labels(root, images)), None)
        beside = folder_of(root, ((name,),)) if found is None else ""
        return beside if beside and _has_labels_beside(root / beside) else found

    if parts := by_part(inside):
        return parts
    images = folder_of(root, (("images",),))
    if images and _holds_labels(root, images):
        return {"": images}
    if _has_labels_beside(root) or any(_has_labels_beside(root / name) for name in subfolders(root)):
        return {"": ""}
    return {}


def _holds_labels(root: Path, images: str) -> bool:
    labels = label_file(root, f"{images}/x.png").parent
    return any(map(_is_of_image, _texts(labels)))


def _is_of_image(file: Path) -> bool:
    return file.name not in CLASS_FILES


def _texts(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if file.suffix.lower() == ".txt"] if folder.is_dir() else []


def _has_labels_beside(folder: Path) -> bool:
    """Whether text files beside the images directly in a folder are YOLO's, by the first ones."""
    names = [item.name for item in os.scandir(folder)]
    texts = sorted(name for name in names if name.lower().endswith(".txt"))
    stems = {Path(name).stem for name in names if is_image_name(name)} if texts else set()
    files = [folder / name for name in texts if Path(name).stem in stems]
    lines = [line for file in files[:_LOOKED_AT] for _, line in _lines_of(beginning(file))]
    return bool(lines) and all(_numbers(line) is not None for line in lines)


def class_file(root: Path) -> tuple[str, ...]:
    """The names in a class file; empty when there is none. Raises UserError when one is there twice."""
    table = find_classes(root / folder for folder in _CLASS_FOLDERS)
    return () if table is None else table.names


def _load(file: Path) -> _Description:
    if file.suffix.lower() == ".data":
        return _load_darknet(file)
    try:
        document = parse_yaml(text_of(read_file(file)))
    except ValueError as error:
        raise UserError(f"{file} is no readable YAML: {error}. Expected the keys train, val and names.") from error
    if not isinstance(document, dict) or "names" not in document:
        raise UserError(f"{file} describes no YOLO data: expected the keys train, val and names.")
    return document


def _load_darknet(file: Path) -> _Description:
    pairs = (line.partition("=") for line in read_lines(file))
    document: _Description = {key.strip(): value.strip() for key, separator, value in pairs if separator}
    return document | {"names": document.get("names", "obj.names")}


def _darknet_names(file: Path) -> tuple[str, ...]:
    names = _ending(file.parent, str(_load_darknet(file)["names"]))
    return tuple(read_lines(names)) if names.is_file() else class_file(file.parent)


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
                options = [_base(root, document) / item, root / item, _ending(root, item)]
                yield part, item, next((option for option in options if option.exists()), options[0])


def _ending(root: Path, name: str) -> Path:
    """The file or folder below `root` in which a path ends, whatever stands before."""
    steps = [step for step in listed_name(name).split("/") if step not in ("", ".", "..")]
    options = (root.joinpath(*steps[at:]) for at in range(len(steps)))
    return next((option for option in options if option.exists()), root / name)


def _images_of(document: _Description, root: Path, description: Path, renamed: dict[str, str]) -> dict[str, list[str]]:
    """The images of each part, as paths below `root`; those that are listed under other names are added to
    `renamed`."""
    found: dict[str, list[str]] = defaultdict(list)
    for part, item, place in _places(document, root):
        if not place.exists():
            raise UserError(f"{description}: {part} is {item!r}, but there is no {place}. Correct it.")
        if place.is_dir():
            found[part] += [below(root, place / name) for name in find_images(place, "")[0]]
        else:
            found[part] += _listed(place, root, renamed).values()
    return {part: images for part, images in found.items() if images}


def _listed(file: Path, root: Path, renamed: dict[str, str]) -> dict[str, str]:
    """The image that each line of a list means, as a path below `root`."""
    found = {}
    for line in read_lines(file):
        base = next((base for base in (file.parent, root) if (base / line).is_file()), None)
        found[line] = line if base is None else below(root, Path(os.path.normpath(base / line)))
    others = found_names(root, found.values())
    renamed.update(others)
    return {line: others.get(name, name) for line, name in found.items()}


def label_file(root: Path, name: str) -> Path:
    """The text file of an image: under labels/ in the place of the last images/, else beside it."""
    path = Path(name)
    steps = [step.lower() for step in path.parts[:-1]]
    if "images" in steps:
        at = len(steps) - 1 - steps[::-1].index("images")
        above = root.joinpath(*path.parts[:at])
        labels = "labels" if (above / "labels").is_dir() else folder_of(above, (("labels",),)) if above.is_dir() else ""
        if labels or not (root / path).with_suffix(".txt").is_file():
            return (above / (labels or "labels")).joinpath(*path.parts[at + 1 :]).with_suffix(".txt")
    return (root / path).with_suffix(".txt")


def _label_files(root: Path, images: Sequence[str], renamed: dict[str, str]) -> dict[str, Path]:
    """The text files of images that have one; those whose names differ in case are added to `renamed`."""
    found: dict[str, Path] = {}
    folded: dict[Path, dict[str, Path]] = {}
    for name in images:
        file = label_file(root, name)
        if not file.is_file():
            if file.parent not in folded:
                folded[file.parent] = {each.name.casefold(): each for each in _texts(file.parent)}
            other = folded[file.parent].get(file.name.casefold())
            if other is None or label_file(root, name.replace(Path(name).stem, other.stem)) in found.values():
                continue
            renamed[below(root, file)] = below(root, other)
            file = other
        found[name] = file
    return found


def _lines_of(data: bytes) -> Iterator[tuple[int, str]]:
    """(number from 0, text) of the lines that are not empty."""
    for number, line in enumerate(text_of(data).split("\n")):
        if line.strip():
            yield number, line.strip("\ufeff \r\t")


def _numbers(line: str) -> list[float] | None:
    """The class and the numbers of a line: a box, an outline, or a box with key points; None when it is none."""
    try:
        numbers = [float(field) for field in line.split()]
        is_good = len(numbers) >= 5 and int(numbers[0]) == numbers[0] and all(map(math.isfinite, numbers))
    except (ValueError, OverflowError):
        return None
    return numbers if is_good else None


def _points(document: _Description, lines: list[list[float]], findings: list[Finding]) -> int:
    """How many numbers of key points follow each box; 0 for lines of boxes and outlines alone. Each of `lines` is a
    class and its numbers.

    The description says it as `kpt_shape`. Without one, lines of one length tell: the numbers behind the first four are
    triples whose third is 0, 1 or 2 (Ultralytics' visibility), or pairs in a box in the image that cannot be points of
    an outline, as the second is far from all others in most lines.
    """
    shape = document.get("kpt_shape")
    if isinstance(shape, list) and len(shape) == 2 and all(isinstance(number, int) for number in shape):
        length, how = int(shape[0] * shape[1]), f"as kpt_shape {shape} says"
    else:
        longer = [each[1:] for each in lines if len(each) > 5]
        if len({len(each) for each in longer}) != 1:
            return 0
        rows = np.asarray(longer)
        length, how = len(longer[0]) - 4, "as their numbers tell; write kpt_shape into data.yaml to be sure"
        if not (length % 3 == 0 and np.isin(rows[:, 6::3], (0, 1, 2)).all()) and not _are_pairs_in_boxes(rows):
            return 0
    if length:
        message = f"the {length} numbers behind each box are key points, {how}"
        findings.append(finding("points-ignored", (), message))
    return length


def _are_pairs_in_boxes(rows: np.ndarray) -> bool:
    """Whether rows (N, 4 + 2 K) are boxes with K points inside rather than outlines of 2 + K points."""
    if rows.shape[1] < 6 or rows.shape[1] % 2:
        return False
    center, side, points = rows[:, None, :2], rows[:, None, 2:4], rows[:, 4:].reshape(len(rows), -1, 2)
    is_box = (center - side / 2 > -0.01).all() and (center + side / 2 < 1.01).all() and (side > 0).all()
    is_inside = (abs(points - center) < side / 2 + 0.01) | (points == 0).all(2, keepdims=True)
    others = np.concatenate((center, points), axis=1)
    low, high = others.min(1), others.max(1)
    is_far = (np.maximum(low - side[:, 0], side[:, 0] - high) > high - low).any(1)
    return bool(is_box and is_inside.all() and len(rows) > 2 and is_far.mean() > 0.5)


def _rotated(document: _Description, description: Path | None, lines: list[list[float]], points: int) -> list[Finding]:
    """The finding for rotated boxes, four corners each, which are read as outlines: where the description calls them
    so."""
    named = "" if description is None else f"{description.absolute().parent.name} {description.stem}"
    said = _OBB.search(f"{named} {document.get('task')}".lower()) or document.get("obb")
    if points or not said or {len(each) for each in lines} != {9}:
        return []
    message = f"the {len(lines)} objects are four corners each, as of rotated boxes"
    return [finding("four-corners", (), message)]


def _object(key: int, line: str, size: tuple[int, int] | None, names: tuple[str, ...], points: int) -> RawObject:
    where, fields = f"line {key + 1}", line.split()
    found = _numbers(line) or [-1]
    index, numbers = int(found[0]), found[1:]
    if points and len(numbers) == 4 + points:
        numbers = numbers[:4]
    if len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2 or points):
        message = f"{line[:60]!r} is neither `class cx cy w h` nor an outline of 3 points or more"
        if points:
            message = f"{line[:60]!r} is not `class cx cy w h`, with or without {points} numbers of key points"
        return RawObject(where, key, "", fault=Fault("bad-object", message, stops=True))
    is_known = index >= 0 and (not names or index < len(names))
    fault = None
    if not is_known:
        message = f"the class {index} is none of the {len(names)} classes 0 to {len(names) - 1}"
        fault = Fault("unknown-category", message)
    elif size is None:
        fault = Fault("bad-object", "its image cannot be read")
    elif max(numbers) > 1.5:
        shown = f" ({', '.join(fields[1:5])})" if len(numbers) == 4 else ""
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


def _stray(root: Path, used: set[Path]) -> list[str]:
    """Text files that belong to no image, in the folders where others do."""
    files = (file for folder in {file.parent for file in used} for file in _texts(folder))
    return sorted(
        below(root, file) for file in files
        if file not in used and _is_of_image(file) and not file.name.startswith("README")
        and all(_numbers(line) for _, line in _lines_of(read_file(file)))  # else it lists images, or is a note
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
