"""Datumaro's JSON: annotations/<subset>.json, with the images in images/<subset>/, as CVAT exports it too."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

from resurge.data.findings import Finding, broken_annotations
from resurge.data.fit import size_of
from resurge.data.formats.format import Format
from resurge.data.formats.shapes import boxed, fields_of, list_of, masked, outlined, read_document, shape_source
from resurge.data.object_source import ObjectSource
from resurge.data.paths import beginning, below, listed_name, part_of
from resurge.data.records import RawObject, Record
from resurge.data.regions import coco_run_lengths
from resurge.errors import UserError

_BEGINS = re.compile(rb'"categories"\s*:\s*\{|"items"\s*:\s*\[\s*\{\s*"id"')


class Datumaro(Format):
    """Classes are the labels in the order of their numbers. Items that have neither a path nor an ending in their names
    are found by their names."""

    name = "datumaro"
    annotations = ("boxes", "masks")
    expected = "Datumaro: annotations/default.json with images/default/"
    particular = True

    def recognise(self, path: Path) -> bool:
        return bool(_files(path))

    def read(self, path: Path) -> ObjectSource:
        files, findings = _files(path), list[Finding]()
        root = path if path.is_dir() else path.parent.parent if path.parent.name == "annotations" else path.parent
        passed: Counter[str] = Counter()
        parts: dict[str, list[Record]] = defaultdict(list)
        classes: list[str] = []
        for file in files:
            try:
                document = read_document(file)
                labels = _labels(document, file)
                classes += [label for label in labels if label not in classes]
                items = document["items"] if isinstance(document, dict) else []
                parts[part_of(file.stem)] += [
                    _record(item, key, labels, file, passed) for key, item in enumerate(items)
                ]
            except UserError as error:
                findings.append(broken_annotations(below(root, file), error))
        how = f"the annotation files {' and '.join(file.name for file in files)}"
        return shape_source(self.name, root, parts, how, findings, passed, tuple(classes))


def _files(path: Path) -> list[Path]:
    files = sorted((path / "annotations").glob("*.json")) if path.is_dir() else [path]
    return [file for file in files if file.suffix.lower() == ".json" and _is_datumaro(beginning(file))]


def _is_datumaro(begin: bytes) -> bool:
    found, images = _BEGINS.search(begin), begin.find(b'"images"')
    return found is not None and not 0 <= images < found.start()


def _labels(document: object, file: Path) -> list[str]:
    entries = fields_of(fields_of(fields_of(document).get("categories")).get("label")).get("labels")
    if not isinstance(document, dict) or not isinstance(document.get("items"), list) or not isinstance(entries, list):
        raise UserError(f"{file} is no Datumaro file: expected categories with labels, and a list of items.")
    return [str(entry.get("name")) if isinstance(entry, dict) else str(entry) for entry in entries]


def _record(item: object, key: int, labels: list[str], file: Path, passed: Counter[str]) -> Record:
    entry = fields_of(item)
    image = fields_of(entry.get("image"))
    name = str(image.get("path") or entry.get("id") or f"items[{key}]")
    height, width = [*list_of(image.get("size")), None, None][:2]
    objects = []
    for number, shape in enumerate(map(fields_of, list_of(entry.get("annotations")))):
        thing = _object(shape, f"annotation {shape.get('id', number)}", number, labels)
        if thing is None:
            passed[str(shape.get("type"))] += 1
        else:
            objects.append(thing)
    return Record(listed_name(name), tuple(objects), size_of(width, height), None, file, key)


def _object(shape: dict[str, object], where: str, key: int, labels: list[str]) -> RawObject | None:
    """An object, or None for a shape of another kind."""
    kind, number = shape.get("type"), shape.get("label_id")
    label = labels[number] if isinstance(number, int) and 0 <= number < len(labels) else ""
    if kind == "bbox":
        x, y, w, h = (list_of(shape.get("bbox")) + [""] * 4)[:4]
        try:
            corners: tuple[object, ...] = (x, y, float(str(x)) + float(str(w)), float(str(y)) + float(str(h)))
        except ValueError:
            corners = (x, y, w, h)
        return boxed(where, key, label, corners, fields_of(shape.get("attributes")).get("rotation"))
    if kind == "polygon":
        return outlined(where, key, label, [list_of(shape.get("points"))])
    if kind == "mask":
        return masked(where, key, label, partial(coco_run_lengths, fields_of(shape.get("rle"))))
    return None
