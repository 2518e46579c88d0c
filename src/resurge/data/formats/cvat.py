"""The XML of CVAT: one file for all images, with boxes, outlines and masks ("CVAT for images 1.1")."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

import numpy as np

from resurge.data.findings import Finding, broken_annotations
from resurge.data.fit import Size, size_of
from resurge.data.formats.format import Format
from resurge.data.formats.shapes import boxed, masked, outlined, shape_source
from resurge.data.object_source import ObjectSource
from resurge.data.paths import PART_OF, beginning, listed_name, read_file
from resurge.data.records import Record
from resurge.data.regions import RunLengths, run_lengths_of
from resurge.errors import UserError
from resurge.untrusted import parse_xml

FILE = "annotations.xml"


class Cvat(Format):
    """annotations.xml, with the images beside it or in images/. Rotated boxes are outlines of four corners."""

    name = "cvat"
    annotations = ("boxes", "masks")
    expected = "CVAT for images: annotations.xml with images/"

    def recognise(self, path: Path) -> bool:
        file = path / FILE if path.is_dir() else path
        return file.suffix.lower() == ".xml" and b"<annotations" in beginning(file)

    def read(self, path: Path) -> ObjectSource:
        file, findings = path / FILE if path.is_dir() else path, list[Finding]()
        parts: dict[str, list[Record]] = defaultdict(list)
        passed: Counter[str] = Counter()
        try:
            document = _load(file)
            for key, image in enumerate(document.iterfind("image")):
                parts[PART_OF.get(image.get("subset", "").lower(), "")].append(_record(image, key, file, passed))
        except UserError as error:
            findings.append(broken_annotations(file.name, error))
        if set(passed) == {"tag"} and not any(record.objects for records in parts.values() for record in records):
            raise UserError(
                f"{file} has tags but no shapes: classes of whole images. Export them as ImageNet 1.0, and train a "
                "classifier."
            )
        return shape_source(self.name, file.parent, parts, f"the images of {file.name}", findings, passed)


def _load(file: Path) -> ElementTree.Element:
    try:
        document = parse_xml(read_file(file))
    except ValueError as error:
        raise UserError(f"{file} is damaged or cut short: {error}. Export it again.") from error
    if document.find("track") is not None:
        raise UserError(
            f"{file} has the tracks of a video (CVAT for video), whose frames have no names. Export it as CVAT for "
            "images 1.1 or COCO 1.0, with its images."
        )
    return document


def _record(image: ElementTree.Element, key: int, file: Path, passed: Counter[str]) -> Record:
    size = size_of(image.get("width"), image.get("height"))
    objects = []
    for number, shape in enumerate(image):
        where, label = f"{shape.tag} {number + 1}", shape.get("label", "")
        if shape.tag == "box":
            box = [shape.get(name, "") for name in ("xtl", "ytl", "xbr", "ybr")]
            objects.append(boxed(where, number, label, box, shape.get("rotation")))
        elif shape.tag == "polygon":
            points = shape.get("points", "").replace(";", ",").split(",")
            objects.append(outlined(where, number, label, [points]))
        elif shape.tag == "mask":
            objects.append(masked(where, number, label, partial(_region, shape, size)))
        else:
            passed[shape.tag] += 1
    return Record(listed_name(image.get("name", "")), tuple(objects), size, None, file, key)


def _region(shape: ElementTree.Element, size: Size | None) -> RunLengths:
    """A mask: run lengths along the rows of its box, beginning with the length outside the object."""
    left, top, width, height = (int(float(shape.attrib[name])) for name in ("left", "top", "width", "height"))
    lengths = [int(length) for length in shape.attrib["rle"].split(",")]
    if size is None:
        raise ValueError("the size of its image is not given")
    if min(left, top) < 0 or left + width > size[0] or top + height > size[1]:
        raise ValueError(f"its box lies outside the image of {size[0]} x {size[1]}")
    if min(lengths) < 0 or min(width, height) < 1 or sum(lengths) != width * height:
        raise ValueError(f"its run lengths do not add up to {width} x {height}")
    pixels = np.zeros((size[1], size[0]), dtype=bool)
    inside = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    pixels[top : top + height, left : left + width] = inside.reshape(height, width)
    return run_lengths_of(pixels)
