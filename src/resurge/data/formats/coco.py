"""COCO's JSON: images, annotations with boxes (x, y, width, height) and masks, categories with ids that have gaps.

The format is that of https://cocodataset.org/#format-data. Classes are the categories in the order of their ids.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import TypedDict, TypeGuard, cast

from resurge.data.findings import Finding, broken_annotations, number_of
from resurge.data.formats.format import Format
from resurge.data.mending import Mending
from resurge.data.paths import PART_OF, PARTS, is_hidden
from resurge.data.records import Fault, ObjectSource, RawObject, Record, below
from resurge.data.regions import Polygons, RunLengths, coco_run_lengths, polygons
from resurge.errors import UserError

_NOT_OBJECTS = ("captions", "person_keypoints", "stuff", "panoptic", "image_info")
_LIMIT = 10**9
_NAMES = ("annotations", "_annotations", "_annotations.coco", "instances", "coco", "result", *PART_OF)


def find_coco(path: Path) -> dict[str, Path]:
    """The annotation files of a data set in COCO's format by part ("" when it is not split); {} when it is in another.

    Raises:
        UserError: there are two files for one part.
    """
    if path.is_file():
        return {"": path} if path.suffix.lower() == ".json" else {}
    folders = [path / name for name in ("annotations", "Annotations", ".") if (path / name).is_dir()]
    for folder in folders:
        files = [file for file in sorted(folder.glob("*.json")) if _is_objects(file, folder != path / ".")]
        instances = [file for file in files if file.stem.lower().startswith("instances")]
        found = _by_part(instances or files)
        if found:
            return found
    inside: dict[str, Path] = {}
    for part, names in PARTS.items():
        for name in names:
            files = [file for file in sorted((path / name).glob("*.json")) if _is_objects(file, False)]
            if files and part not in inside:
                inside[part] = files[0]
    return inside


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


def read_coco(path: Path) -> ObjectSource:
    """The records of a COCO file, or of a folder with one file per part.

    Raises:
        UserError: there are two files for one part.
    """
    files = find_coco(path)
    root = path if path.is_dir() else path.parent
    if path.is_file() and root.name.lower() == "annotations":
        root = root.parent
    parts: dict[str, tuple[Record, ...]] = {}
    categories: dict[str, dict[int, str]] = {}
    findings: list[Finding] = []
    broken: list[Path] = []
    for part, file in files.items():
        try:
            document = load_coco(file)
            categories[part] = category_names(document, file, findings)
            parts[part] = tuple(_records(document, categories[part], file, root, part, findings))
        except UserError as error:
            findings.append(broken_annotations(below(root, file), error))
            broken.append(file)
    first = categories.get("train", categories.get("", next(iter(categories.values()), {})))
    has_masks = any(thing.region is not None and not thing.crowd
                    for records in parts.values() for record in records for thing in record.objects)  # fmt: skip
    how = f"the annotation file{'s' if len(files) > 1 else ''} {' and '.join(file.name for file in files.values())}"
    return ObjectSource(
        format="coco", root=root, classes=tuple(first.values()), parts=parts, how=how, findings=tuple(findings),
        has_masks=has_masks, broken=tuple(broken),
    )  # fmt: skip


class Document(TypedDict):
    """A COCO file: lists whose entries may still be anything."""

    images: list[object]
    annotations: list[object]
    categories: list[object]


def load_coco(file: Path) -> Document:
    """The document in a COCO file.

    Raises:
        UserError: it cannot be read, is cut short (the message has the byte), or lacks one of the lists.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UserError(
            f"{file} cannot be read: {error.strerror or error}. Give a COCO file that you may read."
        ) from error
    text = data.decode("utf-8-sig", "surrogateescape")
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        encoding = _other_encoding(data)
        if encoding is not None:
            raise UserError(
                f"{file} is in {encoding}, and JSON is read in UTF-8. Save it again in UTF-8, or convert it: "
                f"iconv -f {encoding} -t UTF-8."
            ) from error
        at = len(text[: error.pos].encode("utf-8", "surrogateescape")) + (3 if data[:3] == b"\xef\xbb\xbf" else 0)
        what = "is damaged" if data.rstrip().endswith(b"}") and at < len(data.rstrip()) else "is cut short"
        raise UserError(
            f"{file} {what}: {error.msg} at byte {at:,} of {len(data):,}. Copy or download it again."
        ) from error
    except RecursionError as error:
        raise UserError(f"{file} is nested too deeply to be a COCO file. Give another.") from error
    wanted = ("images", "annotations", "categories")
    lacking = (
        [key for key in wanted if not isinstance(document.get(key), list)] if isinstance(document, dict) else wanted
    )
    if lacking:
        raise UserError(
            f"{file} is no COCO annotation file: it has no list of {' and no list of '.join(lacking)}. "
            "Expected an object with images, annotations and categories."
        )
    return cast(Document, document)


def _other_encoding(data: bytes) -> str | None:
    """UTF-16 or UTF-32, with the order of its bytes, if that is what makes JSON of these bytes; else None."""
    found = json.detect_encoding(data)
    if found.startswith("utf-8"):
        return None
    return found.upper() if data.decode(found, "replace").lstrip("\ufeff \t\r\n")[:1] in ("{", "[") else None


def category_names(document: Document, file: Path, findings: list[Finding]) -> dict[int, str]:
    """Class names by category id, in the order of the ids; a name that stands there twice gets its id added.

    Raises:
        UserError: a category has no whole number as its id, or no name, or an id stands there twice.
    """
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
        findings.append(Finding("twice", "warning", (file.name,), message, "give each its own name; the id is added"))
    return {number: name if counted[name] == 1 else f"{name} ({number})" for number, name in sorted(found.items())}


def _records(
    document: Document, names: dict[int, str], file: Path, root: Path, part: str, findings: list[Finding]
) -> list[Record]:
    label = below(root, file)
    by_image: dict[int, list[RawObject]] = defaultdict(list)
    strange: list[str] = []
    ids: set[int] = set()
    images: list[tuple[int, int, str, tuple[int, int] | None]] = []
    for key, entry in enumerate(document["images"]):
        number, name = (entry.get("id"), entry.get("file_name")) if isinstance(entry, dict) else (None, None)
        if not isinstance(entry, dict) or type(number) is not int or number in ids or not _is_file_name(name):
            strange.append(f"images[{key}]")
            continue
        ids.add(number)
        images.append((key, number, name, _size(entry)))
    if strange:
        message = f"{label}: {len(strange)} images without a file_name, or without an id of their own as a whole number"
        remedy = "correct the entries; they are left out"
        findings.append(Finding("bad-image-entry", "error", tuple(strange), message, remedy))
    lost: list[str] = []
    sizes = {number: size for _, number, _, size in images}
    for key, annotation in enumerate(document["annotations"]):
        image = annotation.get("image_id") if isinstance(annotation, dict) else None
        if not isinstance(annotation, dict) or type(image) is not int or image not in ids:
            lost.append(f"annotations[{key}]")
            continue
        by_image[image].append(_object(annotation, key, names, sizes[image]))
    if lost:
        message = f"{label}: {number_of(len(lost), 'annotation', 'annotations')} of images that are not in the file"
        findings.append(Finding("stray-annotation", "error", tuple(lost), message, "remove them; they are left out"))
    prefix = _image_folder(root, file, part, [name for _, _, name, _ in images])
    return [Record(prefix + name, tuple(by_image[number]), size, number, file, key)
            for key, number, name, size in images]  # fmt: skip


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
    """What to put before the file names so that they are found below `root`, with a slash at its end; "" for nothing.

    The first folder that has one of the first images is taken; if there is none, the likeliest one.
    """
    words = file.stem.removeprefix("instances_")
    options = PARTS[part] if part else ()
    here = below(root, file.parent)
    folders = [words, f"images/{words}", *options, *(f"images/{name}" for name in options), "images", "JPEGImages",
               "data", "", here, f"{here}/images"]  # fmt: skip
    first = names[:3] + names[-1:]
    for folder in folders:
        if any((root / folder / name).is_file() for name in first):
            return f"{folder}/" if folder not in ("", ".") else ""
    likely = next((folder for folder in folders if folder and (root / folder).is_dir()), "")
    return f"{likely}/" if likely not in ("", ".") else ""


def write_coco(mending: Mending) -> None:
    """Write each file again without what cannot be used, with boxes cut and sizes corrected."""
    mending.broken()
    for part, found in mending.look.source.parts.items():
        records = [record for record in found if isinstance(record, Record)]
        origin = next((record.source for record in records if record.source is not None), None)
        if origin is None:
            continue
        document, counted = load_coco(origin), Counter[str]()
        images, annotations = [], []
        for record in records:
            if not mending.keeps(record, part, counted, listed=True):
                continue
            entry = cast("dict[str, object]", document["images"][record.key])
            size = mending.look.size(record.name)
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
        stray = len(document["annotations"]) - sum(len(record.objects) for record in records)
        if stray:
            counted["annotation(s) of no image removed"] += stray
        if len(document["images"]) > len(records):
            counted["damaged image entr(ies) removed"] += len(document["images"]) - len(records)
        name = mending.inside(origin)
        text = json.dumps(document | {"images": images, "annotations": annotations})
        mending.file(name).write_bytes(text.encode("utf-8", "backslashreplace"))
        mending.changes[name] += counted


FORMAT = Format(
    name="coco",
    annotations=("boxes", "masks"),
    expected="COCO: a .json file, or annotations/instances_train2017.json beside train2017/",
    recognise=lambda path: bool(find_coco(path)),
    read=read_coco,
    write=write_coco,
)
