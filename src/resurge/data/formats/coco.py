"""COCO's JSON: images, annotations with boxes (x, y, width, height) and masks, categories with ids that have gaps.

The format is that of https://cocodataset.org/#format-data. Classes are the categories in the order of their ids.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import TypedDict, TypeGuard, cast

from resurge.data.findings import Finding, broken_annotations, finding, number_of
from resurge.data.formats.format import Format
from resurge.data.mending import Mending
from resurge.data.object_source import ObjectSource
from resurge.data.paths import PART_OF, PARTS, below, by_part, is_hidden, listed_name, read_file
from resurge.data.records import Fault, RawObject, Record
from resurge.data.regions import Polygons, RunLengths, coco_run_lengths, polygons
from resurge.errors import UserError
from resurge.untrusted import parse_json

_NOT_OBJECTS = ("captions", "person_keypoints", "stuff", "panoptic", "image_info")
_LIMIT = 10**9
_NAMES = ("annotations", "_annotations", "_annotations.coco", "instances", "coco", "result", *PART_OF)


class Coco(Format):
    """A COCO file, or a folder with one file per part."""

    name = "coco"
    annotations = ("boxes", "masks")
    expected = "COCO: a .json file, or annotations/instances_train2017.json beside train2017/"

    def recognise(self, path: Path) -> bool:
        return bool(find_coco(path))

    def read(self, path: Path) -> ObjectSource:
        files = find_coco(path)
        root = path if path.is_dir() else path.parent
        if path.is_file() and root.name.lower() == "annotations":
            root = root.parent
        parts: dict[str, tuple[Record, ...]] = {}
        categories: dict[str, dict[int, str]] = {}
        findings: list[Finding] = []
        for part, file in files.items():
            try:
                document = load_coco(file)
                categories[part] = category_names(document, file, findings)
                parts[part] = tuple(_records(document, categories[part], file, root, part, findings))
            except UserError as error:
                findings.append(broken_annotations(below(root, file), error))
        first = categories.get("train", categories.get("", next(iter(categories.values()), {})))
        things = (thing for records in parts.values() for record in records for thing in record.objects)
        how = f"the annotation file{'s' if len(files) > 1 else ''} {' and '.join(file.name for file in files.values())}"
        return ObjectSource(
            format=self.name, root=root, classes=tuple(first.values()), parts=parts, how=how, findings=tuple(findings),
            has_masks=any(thing.region is not None and not thing.crowd for thing in things),
        )  # fmt: skip

    def write(self, mending: Mending) -> None:
        """Write each file again without what cannot be used, with boxes cut and sizes corrected."""
        mending.left_out("broken-annotations", "file that cannot be read left out")
        by_file: dict[Path, list[tuple[str, Record]]] = defaultdict(list)
        for part, record, file in mending.objects():
            by_file[file].append((part, record))
        for file, records in by_file.items():
            document = load_coco(file)
            name = mending.inside(file)
            counted = mending.changes[name]
            images, annotations = [], []
            for part, record in records:
                if not mending.keeps(record, part, counted, listed=True):
                    continue
                entry = cast("dict[str, object]", document["images"][record.key])
                size = mending.data.size(record.name)
                if size is not None and record.size != size:
                    counted["image size(s) corrected"] += 1
                    entry = entry | {"width": size[0], "height": size[1]}
                images.append(entry)
                for thing in record.objects:
                    box = mending.box(thing, size, counted)
                    if box is not None:
                        kept = cast("dict[str, object]", document["annotations"][thing.key])
                        if box != thing.box:
                            kept = kept | {"bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]}
                        annotations.append(kept)
            if stray := len(document["annotations"]) - sum(len(record.objects) for _, record in records):
                counted["annotation(s) of no image removed"] += stray
            if damaged := len(document["images"]) - len(records):
                counted["damaged image entr(ies) removed"] += damaged
            text = json.dumps(document | {"images": images, "annotations": annotations})
            mending.file(name).write_bytes(text.encode("utf-8", "backslashreplace"))


def find_coco(path: Path) -> dict[str, Path]:
    """The annotation files of a data set in COCO's format by part ("" when it is not split); {} when it is in another.
    Raises UserError when there are two files for one part."""
    if path.is_file():
        return {"": path} if path.suffix.lower() == ".json" else {}
    for folder in (path / "annotations", path / "Annotations", path):
        files = [file for file in sorted(folder.glob("*.json")) if _is_objects(file, folder != path)]
        found = _by_part([file for file in files if file.stem.lower().startswith("instances")] or files)
        if found:
            return found

    def inside(name: str) -> Path | None:
        return next((file for file in sorted((path / name).glob("*.json")) if _is_objects(file, False)), None)

    return by_part(inside)


def _is_objects(file: Path, in_annotations: bool) -> bool:
    """Whether the name of a JSON file is one of annotations of objects."""
    stem = file.stem.lower()
    if is_hidden(file.name) or stem.startswith(_NOT_OBJECTS) or not file.is_file():
        return False
    return in_annotations or stem in _NAMES or stem.startswith("instances") or "coco" in stem


def _by_part(files: list[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        part = part_of(file.stem)
        if part in found:
            raise UserError(
                f"{found[part].parent} has two annotation files for {part or 'all images'}: {found[part].name} and "
                f"{file.name}. Name the one you mean as the data, or remove the other."
            )
        found[part] = file
    if "" in found and len(found) > 1:
        del found[""]
    return found


def part_of(stem: str) -> str:
    """train, val or test from a file's name such as instances_train2017; "" when it says none of them."""
    words = "".join(letter if letter.isalpha() else " " for letter in stem.lower()).split()
    return next((part for part, names in PARTS.items() if any(name in words for name in names)), "")


class Document(TypedDict):
    """A COCO file: lists whose entries may still be anything."""

    images: list[object]
    annotations: list[object]
    categories: list[object]


def load_coco(file: Path) -> Document:
    """The document in a COCO file. Raises UserError when it cannot be read, is cut short, or lacks one of the lists."""
    data = read_file(file)
    encoding = json.detect_encoding(data)
    text = data.decode(encoding, "surrogateescape" if encoding.startswith("utf-8") else "replace")
    try:
        document = parse_json(text, 4000)  # one object with a number beyond all others is left out by itself
    except json.JSONDecodeError as error:
        damaged = text.rstrip().endswith("}") and error.pos < len(text.rstrip())
        what = "is damaged" if damaged else "is cut short"
        raise UserError(f"{file} {what}: {error}. Copy or download it again.") from error
    except ValueError as error:
        raise UserError(f"{file} is no COCO file: {error}. Give another.") from error
    lists = [key for key, value in document.items() if isinstance(value, list)] if isinstance(document, dict) else []
    lacking = [key for key in Document.__annotations__ if key not in lists]
    if lacking:
        raise UserError(
            f"{file} is no COCO annotation file: it has no list of {' and no list of '.join(lacking)}. "
            "Expected an object with images, annotations and categories."
        )
    return cast(Document, document)


def category_names(document: Document, file: Path, findings: list[Finding]) -> dict[int, str]:
    """Class names by category id, in the order of the ids; a name that stands there twice gets its id added."""
    found: dict[int, str] = {}
    for at, entry in enumerate(document["categories"]):
        number, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if type(number) is not int or not isinstance(name, str) or number in found:
            raise UserError(
                f"{file}: entry {at} of categories ({str(entry)[:80]}) needs a name, and an id of its own as a whole "
                "number."
            )
        found[number] = name
    counted = Counter(found.values())
    twice = sorted(name for name, count in counted.items() if count > 1)
    if twice:
        message = f"{file.name}: several categories are called {', '.join(map(repr, twice))}"
        findings.append(finding("twice", (file.name,), message))
    return {number: name if counted[name] == 1 else f"{name} ({number})" for number, name in sorted(found.items())}


def _records(
    document: Document, names: dict[int, str], file: Path, root: Path, part: str, findings: list[Finding]
) -> list[Record]:
    label = below(root, file)
    strange: list[str] = []
    images: dict[int, tuple[int, str, tuple[int, int] | None]] = {}
    for key, entry in enumerate(document["images"]):
        number, name = (entry.get("id"), entry.get("file_name")) if isinstance(entry, dict) else (None, None)
        if isinstance(entry, dict) and type(number) is int and number not in images and _is_file_name(name):
            images[number] = (key, name, _size(entry))
        else:
            strange.append(f"images[{key}]")
    if strange:
        message = f"{label}: {len(strange)} images without a file_name, or without an id of their own as a whole number"
        findings.append(finding("bad-image-entry", strange, message))
    lost: list[str] = []
    by_image: dict[int, list[RawObject]] = defaultdict(list)
    for key, annotation in enumerate(document["annotations"]):
        image = annotation.get("image_id") if isinstance(annotation, dict) else None
        if isinstance(annotation, dict) and type(image) is int and image in images:
            by_image[image].append(_object(annotation, key, names, images[image][2]))
        else:
            lost.append(f"annotations[{key}]")
    if lost:
        message = f"{label}: {number_of(len(lost), 'annotation', 'annotations')} of images that are not in the file"
        findings.append(finding("stray-annotation", lost, message))
    listed = [name for _, name, _ in images.values()]
    prefix = _image_folder(root, file, part, [*listed, *map(listed_name, listed)])
    return [Record((Path(prefix) / name).as_posix(), tuple(by_image[number]), size, number, file, key)
            for number, (key, name, size) in images.items()]  # fmt: skip


def _is_file_name(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value.strip("/\0 ")) and "\0" not in value


def _size(entry: dict[str, object]) -> tuple[int, int] | None:
    width, height = entry.get("width"), entry.get("height")
    if _is_number(width) and _is_number(height) and 1 <= width < _LIMIT and 1 <= height < _LIMIT:
        return int(width), int(height)
    return None


def _object(entry: dict[str, object], key: int, names: dict[int, str], size: tuple[int, int] | None) -> RawObject:
    where = f"annotation {entry['id']}" if "id" in entry else f"annotations[{key}]"
    category = entry.get("category_id")
    label = names.get(category, "") if type(category) is int else ""
    crowd = entry.get("iscrowd") in (1, True)
    box = entry.get("bbox")
    fault = None
    if not label and (type(category) is not int or category not in names):
        fault = Fault("unknown-category", f"the category {category!r} is not in the list of categories")
    region: Polygons | RunLengths | None = None
    try:
        region = _region(entry.get("segmentation"), size)
    except ValueError as error:
        fault = fault or Fault("mask-size" if "another size" in str(error) else "bad-object", f"its mask: {error}")
    if not (isinstance(box, list) and len(box) == 4 and all(_is_number(value) for value in box)):
        fault = fault or Fault("bad-object", f"the bbox is {str(box)[:60]}; expected [x, y, width, height]")
        box = [0, 0, 0, 0]
    x, y, width, height = (float(value) for value in box)
    area = entry.get("area")
    known = float(area) if _is_number(area) and area > 0 else None
    return RawObject(where, key, label, (x, y, x + width, y + height), crowd, region, known, fault)


def _is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a finite number; none beyond 1e9 means anything in an image."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -_LIMIT <= value <= _LIMIT


def _region(value: object, size: tuple[int, int] | None) -> Polygons | RunLengths | None:
    if not value:
        return None
    if isinstance(value, dict):
        lengths = coco_run_lengths(value)
        if size is not None and (lengths.width, lengths.height) != size:
            raise ValueError(
                f"it has another size, {lengths.width} x {lengths.height}, than the image, {size[0]} x {size[1]}"
            )
        return lengths
    if isinstance(value, list) and all(isinstance(outline, list) for outline in value):
        for outline in value:
            if not all(_is_number(number) for number in outline):
                raise ValueError("an outline holds something that is no number")
        # Real files have outlines of one or two points beside good ones; they enclose nothing.
        good = [outline for outline in value if len(outline) >= 6]
        return polygons(good) if good else None
    raise ValueError(f"{str(value)[:60]} is neither a list of outlines nor run lengths")


def _image_folder(root: Path, file: Path, part: str, names: list[str]) -> str:
    """What to put before the file names so that they are found below `root`, with a slash at its end; "" for nothing:
    the first folder that has one of the first images, else the likeliest one."""
    words = file.stem.removeprefix("instances_")
    options = PARTS[part] if part else ()
    here = below(root, file.parent)
    folders = [words, f"images/{words}", *options, *(f"images/{name}" for name in options), "images", "JPEGImages",
               "data", "", here, f"{here}/images"]  # fmt: skip
    first = [name for name in names[:3] + names[-1:] if not Path(name).is_absolute()]
    full = (folder for folder in folders if any((root / folder / name).is_file() for name in first))
    likely = (folder for folder in folders if folder and (root / folder).is_dir())
    folder = next(full, None)
    folder = next(likely, "") if folder is None else folder
    return f"{folder}/" if folder not in ("", ".") else ""
