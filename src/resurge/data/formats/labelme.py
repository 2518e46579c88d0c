"""LabelMe's JSON: one file of shapes beside each image (Russell, Torralba, Murphy, Freeman 2008; Wada's labelme)."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

from resurge.data.findings import Finding, broken_annotations
from resurge.data.fit import size_of
from resurge.data.formats.format import Format
from resurge.data.formats.shapes import boxed, fields_of, outlined, read_document, shape_source
from resurge.data.object_source import ObjectSource
from resurge.data.paths import ANNOTATION_FOLDERS, PARTS, beginning, find_files, folder_of, listed_name
from resurge.data.records import Fault, RawObject, Record
from resurge.errors import UserError


class LabelMe(Format):
    """Rectangles are boxes, polygons outlines; shapes of one label and one group are one object. The image is the one
    that a file names, else that of the same name. Folders may be parts."""

    name = "labelme"
    annotations = ("boxes", "masks")
    expected = "LabelMe: a .json file beside each image"
    particular = True

    def recognise(self, path: Path) -> bool:
        return path.is_dir() and bool(_folders(path))

    def read(self, path: Path) -> ObjectSource:
        findings: list[Finding] = []
        passed: Counter[str] = Counter()
        parts: dict[str, list[Record]] = {}
        for part, folder in _folders(path).items():
            parts[part] = []
            for name in find_files(path, folder, ".json"):
                try:
                    parts[part].append(_record(path / name, passed))
                except UserError as error:
                    findings.append(broken_annotations(name, error))
        return shape_source(self.name, path, parts, "the .json files beside the images", findings, passed)


def _folders(path: Path) -> dict[str, str]:
    """Folders of JSON files by part; "" for all of them; {} when they are no LabelMe files."""
    found = {}
    for part, names in PARTS.items():
        steps = ((names,), (names, ANNOTATION_FOLDERS), (ANNOTATION_FOLDERS, names))
        found[part] = next((f for each in steps if (f := folder_of(path, each)) and _has_files(path / f)), "")
    if any(found.values()):
        return {part: folder for part, folder in found.items() if folder}
    inside = folder_of(path, (ANNOTATION_FOLDERS,))
    if inside and _has_files(path / inside):
        return {"": inside}
    return {"": ""} if _has_files(path) or any(map(_is_labelme, path.glob("*/*.json"))) else {}


def _has_files(folder: Path) -> bool:
    first = next(folder.glob("*.json"), None)
    return first is not None and _is_labelme(first)


def _is_labelme(file: Path) -> bool:
    begin = beginning(file)
    return b'"shapes"' in begin and (b'"version"' in begin or b'"imagePath"' in begin or b'"flags"' in begin)


def _record(file: Path, passed: Counter[str]) -> Record:
    document = read_document(file)
    shapes = document.get("shapes") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(shapes, list):
        raise UserError(f"{file} is no LabelMe file: it has no list of shapes. Remove it, or export it again.")
    groups: dict[object, list[tuple[int, dict[str, object]]]] = defaultdict(list)
    for key, shape in enumerate(shapes):
        entry = fields_of(shape)
        group = entry.get("group_id")
        groups[key if group is None else (str(entry.get("label")), str(group))].append((key, entry))
    objects = []
    for members in groups.values():
        thing = _object(members)
        if thing is None:
            passed.update(str(shape.get("shape_type")) for _, shape in members)
        else:
            objects.append(thing)
    size = size_of(document.get("imageWidth"), document.get("imageHeight"))
    image = listed_name(str(document.get("imagePath") or "")) or f"{file.stem}.jpg"
    return Record(Path(image).name, tuple(objects), size, None, file)


def _object(members: list[tuple[int, dict[str, object]]]) -> RawObject | None:
    """The object of the shapes of one group; None when they are no areas."""
    key, first = members[0]
    where, label = f"shape {key + 1}", str(first.get("label") or "")
    outlines = []
    for _, shape in members:
        points, kind = shape.get("points"), shape.get("shape_type") or "polygon"
        if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
            return RawObject(where, key, label, fault=Fault("bad-object", "its points are no pairs of numbers"))
        flat = [value for point in points for value in point]
        if kind == "rectangle" and len(points) == 2:
            (x1, y1), (x2, y2) = points
            if len(members) == 1 and all(isinstance(value, (int, float)) for value in flat):
                return boxed(where, key, label, (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)))
            flat = [x1, y1, x2, y1, x2, y2, x1, y2]
        elif kind not in ("polygon", "rectangle", "rotation"):
            continue
        outlines.append(flat)
    return outlined(where, key, label, outlines) if outlines else None
