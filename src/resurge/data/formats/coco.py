"""COCO's JSON: images, annotations with boxes (x, y, width, height) and masks, categories with ids that have gaps.

The format is that of https://cocodataset.org/#format-data. Classes are the categories in the order of their ids.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TypedDict, TypeGuard, TypeVar, cast

from resurge.data.findings import Finding, broken_annotations, finding
from resurge.data.fit import Size, size_of
from resurge.data.formats.format import Format
from resurge.data.mending import Mending
from resurge.data.object_source import ObjectSource
from resurge.data.paths import (
    PART_OF,
    PARTS,
    below,
    by_part,
    is_hidden,
    listed_name,
    one_for_each_part,
    read_file,
    text_of,
    usual_folder,
)
from resurge.data.records import Fault, RawObject, Record
from resurge.data.regions import Box, Polygons, RunLengths, coco_run_lengths, polygons
from resurge.errors import UserError
from resurge.quantities import number_of
from resurge.untrusted import parse_json

_NOT_OBJECTS = ("captions", "person_keypoints", "stuff", "panoptic", "image_info")
_LIMIT = 10**9
T = TypeVar("T")
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
        categories: dict[str, _Ids[str]] = {}
        findings: list[Finding] = []
        for part, file in files.items():
            try:
                document = load_coco(file)
                categories[part] = category_names(document, file, findings)
                parts[part] = tuple(_records(document, categories[part], file, root, part, findings))
            except UserError as error:
                findings.append(broken_annotations(below(root, file), error))
        first = categories.get("train", categories.get("", next(iter(categories.values()), _Ids[str]())))
        things = [thing for records in parts.values() for record in records for thing in record.objects]
        crowds = [thing.crowd for thing in things if thing.region is not None]
        how = f"the annotation file{'s' if len(files) > 1 else ''} {' and '.join(file.name for file in files.values())}"
        return ObjectSource(
            format=self.name, root=root, classes=tuple(first.values()), parts=parts, how=how, findings=tuple(findings),
            has_masks=not all(crowds) or (bool(crowds) and all(thing.crowd for thing in things)),
            way="sizes",
        )  # fmt: skip

    def write(self, mending: Mending) -> None:
        """Write each file again without what cannot be used, with boxes cut and sizes corrected."""
        mending.left_out("broken-annotations", "file that cannot be read left out")
        for file, records in mending.by_file().items():
            document = load_coco(file)
            name = mending.inside(file)
            counted = mending.changes[name]
            images, annotations = [], []
            for part, record in records:
                if not mending.keeps(record, part, counted, listed=True):
                    continue
                entry = cast("dict[str, object]", document["images"][record.key])
                size = mending.data.size(record.name)
                if size is not None and _size(entry) != size:
                    counted["image size(s) corrected"] += 1
                    entry = entry | {"width": size[0], "height": size[1]}
                images.append(entry)
                for thing in record.objects:
                    box = mending.box(thing, size, counted)
                    if box is not None:
                        kept = cast("dict[str, object]", document["annotations"][thing.key])
                        annotations.append(_written(kept, thing, box, entry["id"]))
            copies = sum(record.copies for _, record in records)
            twice = sum(record.twice for _, record in records)
            counted["further entr(ies) of an image joined to its first"] += copies
            counted["object(s) removed that were there twice"] += twice
            things = sum(len(record.objects) for _, record in records) + twice
            counted["annotation(s) of no image removed"] += len(document["annotations"]) - things
            counted["damaged image entr(ies) removed"] += len(document["images"]) - len(records) - copies
            text = json.dumps(document | {"images": images, "annotations": annotations})
            mending.file(name).write_bytes(text.encode("utf-8", "backslashreplace"))


def find_coco(path: Path) -> dict[str, Path]:
    """The annotation files of a data set in COCO's format by part ("" when it is not split); {} when it is in another.
    Raises UserError when there are two files for one part."""
    if path.is_file():
        return {"": path} if path.suffix.lower() == ".json" else {}
    for folder in (path / "annotations", path / "Annotations", path):
        files = [file for file in sorted(folder.glob("*.json")) if _is_objects(file, folder != path)]
        named = [file for file in files if file.stem.lower().startswith("instances")] or files
        found = one_for_each_part(named, "annotation files")
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


class Document(TypedDict):
    """A COCO file: lists whose entries may still be anything."""

    images: list[object]
    annotations: list[object]
    categories: list[object]


def load_coco(file: Path) -> Document:
    """The document in a COCO file. Raises UserError when it cannot be read, is cut short, or lacks one of the lists."""
    text = text_of(read_file(file))
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


Id = int | float | str


def _is_id(value: object) -> TypeGuard[Id]:
    """Whether a value may be an id: a number, or text, as some tools write."""
    is_whole = isinstance(value, (str, int)) and not isinstance(value, bool)
    return is_whole or (isinstance(value, float) and math.isfinite(value))


def _number(value: Id) -> int | None:
    """The whole number that an id is, or spells ("000123")."""
    if isinstance(value, str):
        return int(value) if len(value) < 20 and value.strip().isdecimal() else None
    return int(value) if value == int(value) else None


class _Ids(dict[Id, T]):
    """Values by id. An id that is not there is that of the same whole number in another spelling, if one alone is."""

    def find(self, value: object) -> T | None:
        if not _is_id(value):
            return None
        if value in self:
            return self[value]
        number = _number(value)
        if number is not None and not self._spelt:
            for known in self:
                self._spelt.setdefault(_number(known), []).append(known)
        spelt = self._spelt.get(number, []) if number is not None else []
        return self[spelt[0]] if len(spelt) == 1 else None

    def __init__(self) -> None:
        super().__init__()
        self._spelt: dict[int | None, list[Id]] = {}


def category_names(document: Document, file: Path, findings: list[Finding]) -> _Ids[str]:
    """Class names by category id, in the order of the ids; a name that stands there twice gets its id added."""
    found: dict[Id, str] = {}
    for at, entry in enumerate(document["categories"]):
        number, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if not _is_id(number) or not isinstance(name, str) or number in found:
            raise UserError(f"{file}: entry {at} of categories ({str(entry)[:80]}) needs a name, and an id of its own.")
        found[number] = name
    counted = Counter(found.values())
    twice = sorted(name for name, count in counted.items() if count > 1)
    if twice:
        message = f"{file.name}: several categories are called {', '.join(map(repr, twice))}"
        findings.append(finding("twice", (file.name,), message))
    names = _Ids[str]()
    for number in sorted(found, key=lambda number: (_number(number) is None, _number(number) or 0, str(number))):
        name = found[number]
        names[number] = name if counted[name] == 1 else f"{name} ({number})"
    return names


def _records(
    document: Document, names: _Ids[str], file: Path, root: Path, part: str, findings: list[Finding]
) -> list[Record]:
    label = below(root, file)
    strange: list[str] = []
    images = _Ids[Record]()
    for key, entry in enumerate(document["images"]):
        number, name = (entry.get("id"), entry.get("file_name")) if isinstance(entry, dict) else (None, None)
        if isinstance(entry, dict) and _is_id(number) and number not in images and _is_file_name(name):
            images[number] = Record(name.replace("\\", "/"), (), _size(entry), _number(number), file, key)
        else:
            strange.append(f"images[{key}]")
    if strange:
        message = f"{label}: {number_of(len(strange), 'image')} without a file_name, or without an id of its own"
        findings.append(finding("bad-image-entry", strange, message))
    lost: list[str] = []
    by_image: dict[int, list[RawObject]] = defaultdict(list)
    for key, annotation in enumerate(document["annotations"]):
        image = images.find(annotation.get("image_id")) if isinstance(annotation, dict) else None
        if isinstance(annotation, dict) and image is not None:
            by_image[image.key].append(_object(annotation, key, names))
        else:
            lost.append(f"annotations[{key}]")
    if lost:
        message = f"{label}: {number_of(len(lost), 'annotation')} of images that are not in the file"
        findings.append(finding("stray-annotation", lost, message))
    pairs = sum(bool(thing.changed) for things in by_image.values() for thing in things)
    if pairs:
        message = f"{label}: {number_of(pairs, 'mask is', 'masks are')} not written as COCO's outlines are"
        findings.append(finding("point-pairs", (label,), message))
    listed = [record.name for record in images.values()]
    prefix = _image_folder(root, file, part, [*listed, *map(listed_name, listed)])
    return [replace(record, name=(Path(prefix) / record.name).as_posix(), objects=tuple(by_image[record.key]))
            for record in images.values()]  # fmt: skip


def _is_file_name(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value.strip("/\0 ")) and "\0" not in value


def _size(entry: dict[str, object]) -> Size | None:
    return size_of(entry.get("width"), entry.get("height"))


def _object(entry: dict[str, object], key: int, names: _Ids[str]) -> RawObject:
    where = f"annotation {entry['id']}" if "id" in entry else f"annotations[{key}]"
    category = entry.get("category_id")
    label = names.find(category)
    crowd = entry.get("iscrowd") in (1, True)
    box = entry.get("bbox")
    fault = None
    if label is None:
        fault = Fault("unknown-category", f"the category {category!r} is not in the list of categories")
    region: Polygons | RunLengths | None = None
    pairs = False
    try:
        region, pairs = _region(entry.get("segmentation"))
    except ValueError as error:
        fault = fault or Fault("bad-object", f"its mask: {error}")
    if not (isinstance(box, list) and len(box) == 4 and all(_is_number(value) for value in box)):
        fault = fault or Fault("bad-object", f"the bbox is {str(box)[:60]}; expected [x, y, width, height]")
        box = [0, 0, 0, 0]
    x, y, width, height = (float(value) for value in box)
    area = entry.get("area")
    known = float(area) if _is_number(area) and area > 0 else None
    changed = "with outlines as COCO has them" if pairs else ""
    return RawObject(where, key, label or "", (x, y, x + width, y + height), crowd, region, known, fault, changed)


def _written(entry: dict[str, object], thing: RawObject, box: Box, image: object) -> dict[str, object]:
    """An annotation as it is read."""
    x1, y1, x2, y2 = box
    changed: dict[str, object] = {}
    if box != thing.box or thing.changed:
        changed["bbox"] = [round(value, 4) for value in (x1, y1, x2 - x1, y2 - y1)]
    if thing.changed:
        changed["iscrowd"] = int(thing.crowd)
        if thing.region is not None:
            changed["segmentation"] = _segmentation(thing.region)
        if "area" in entry:
            changed["area"] = round((x2 - x1) * (y2 - y1) if thing.area is None else thing.area, 4)
    number = entry.get("image_id")
    if number != image and not (_is_id(number) and _is_id(image) and _number(number) == _number(image)):
        changed["image_id"] = image
    return entry | changed


def _segmentation(region: Polygons | RunLengths) -> object:
    if isinstance(region, RunLengths):
        coco = region.to_coco()
        return {"size": coco["size"], "counts": coco["counts"].decode("ascii")}
    return [[round(value, 4) for value in outline] for outline in region.points()]


def _is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a finite number; none beyond 1e9 means anything in an image."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -_LIMIT <= value <= _LIMIT


def _region(value: object) -> tuple[Polygons | RunLengths | None, bool]:
    """The mask, and whether it is written otherwise than COCO's are."""
    if not value:
        return None, False
    if isinstance(value, dict):
        return coco_run_lengths(value), False
    if not isinstance(value, list):
        raise ValueError(f"{str(value)[:60]} is neither a list of outlines nor run lengths")
    outlines, is_usual = _outlines(value)
    # Real files have outlines of one or two points beside good ones; they enclose nothing.
    good = [outline for outline in outlines if len(outline) >= 6]
    return (polygons(good), not is_usual) if good else (None, False)


def _outlines(value: list[object], depth: int = 0) -> tuple[list[list[float]], bool]:
    """The outlines in a list of numbers x, y, x, y, …, of points [x, y], or of such lists; and whether it is a list of
    lists of numbers, as COCO has it."""
    numbers = [item for item in value if _is_number(item)]
    if len(numbers) == len(value):
        return [list(numbers)], depth == 1
    lists = [item for item in value if isinstance(item, list)]
    if len(lists) < len(value) or depth > 2:
        raise ValueError("an outline holds something that is no number")
    if len(lists) > 2 and all(len(item) == 2 and all(map(_is_number, item)) for item in lists):
        return [[number for point in lists for number in point]], False
    found = [_outlines(item, depth + 1) for item in lists]
    return [outline for outlines, _ in found for outline in outlines], all(is_usual for _, is_usual in found)


def _image_folder(root: Path, file: Path, part: str, names: list[str]) -> str:
    """What to put before the file names so that they are found below `root`: a usual folder that has one of the first
    images, else the likeliest one, or ""."""
    also = (file.stem.removeprefix("instances_"),)
    found = usual_folder(root, file.parent, part, [name for name in names if not Path(name).is_absolute()], also)
    known = (*also, *PARTS.get(part, ()))
    likely = (root / folder for name in known for folder in (name, f"images/{name}"))
    others = (root / name for name in ("images", "JPEGImages", "data"))
    return below(root, found or next((folder for folder in (*likely, *others) if folder.is_dir()), root))
