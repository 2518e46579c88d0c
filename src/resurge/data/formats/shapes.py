"""What the formats of annotation tools share: shapes as objects, and the data set that they make."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from resurge.data.findings import Finding, finding
from resurge.data.object_source import ObjectSource, any_mask, counted_classes
from resurge.data.paths import below, read_file, usual_folder
from resurge.data.records import Fault, RawObject, Record
from resurge.data.regions import RunLengths, polygons
from resurge.errors import UserError
from resurge.untrusted import parse_json


def boxed(where: str, key: int, label: str, box: Sequence[object], degrees: object = 0, pivot: str = "") -> RawObject:
    """A box (x1, y1, x2, y2), turned clockwise by an angle about its centre, or its upper left corner for the pivot
    "corner": with its four corners as the outline, then."""
    try:
        x1, y1, x2, y2, angle = (float(str(value)) for value in (*box, degrees or 0))
    except ValueError:
        return RawObject(where, key, label, fault=Fault("bad-object", f"its box is {str(box)[:60]}; expected numbers"))
    if not angle:
        return RawObject(where, key, label, (x1, y1, x2, y2), fault=_no_label(label))
    turn = math.radians(angle)
    x0, y0 = (x1, y1) if pivot == "corner" else ((x1 + x2) / 2, (y1 + y2) / 2)
    corners = [(x - x0, y - y0) for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))]
    turned = [
        (x0 + x * math.cos(turn) - y * math.sin(turn), y0 + x * math.sin(turn) + y * math.cos(turn)) for x, y in corners
    ]
    return outlined(where, key, label, [[value for point in turned for value in point]])


def outlined(where: str, key: int, label: str, outlines: Sequence[Sequence[object]]) -> RawObject:
    """An object within outlines, each x, y, x, y, …"""
    try:
        numbers = [[float(str(value)) for value in outline] for outline in outlines]
        region = polygons(numbers)
    except ValueError as error:
        return RawObject(where, key, label, fault=Fault("bad-object", f"its outline: {error}"))
    xs, ys = ([value for outline in numbers for value in outline[at::2]] for at in (0, 1))
    return RawObject(where, key, label, (min(xs), min(ys), max(xs), max(ys)), region=region, fault=_no_label(label))


def masked(where: str, key: int, label: str, read: Callable[[], RunLengths]) -> RawObject:
    """An object that is a mask, which `read` gives; it raises ValueError or KeyError for a damaged one."""
    try:
        region = read()
    except (ValueError, KeyError) as error:
        return RawObject(where, key, label, fault=Fault("bad-object", f"its mask: {error}"))
    return RawObject(where, key, label, region.box(), region=region, fault=_no_label(label))


def _no_label(label: str) -> Fault | None:
    return None if label else Fault("unknown-category", "it has no label")


def fields_of(value: object) -> dict[str, object]:
    """An object of JSON; what is another value has no fields."""
    return value if isinstance(value, dict) else {}


def list_of(value: object) -> list[object]:
    """A list of JSON; what is another value is an empty one."""
    return value if isinstance(value, list) else []


def read_document(file: Path) -> object:
    """What a JSON file holds. Raises UserError when it cannot be read, or is cut short."""
    try:
        return parse_json(read_file(file))
    except ValueError as error:
        raise UserError(f"{file} is no readable JSON: {error}. Copy or export it again.") from error


def shape_source(
    format: str, root: Path, records: Mapping[str, Sequence[Record]], how: str, findings: list[Finding],
    passed: Counter[str], classes: tuple[str, ...] = (),
) -> ObjectSource:  # fmt: skip
    """The data set with images by part, whose names are below the folder of their annotation file or in one of the
    usual folders. `passed` counts shapes that are no objects to learn."""
    parts: dict[str, tuple[Record, ...]] = {}
    is_mixed = "" in records and len(records) > 1  # then what belongs to no part is trained on
    for part in dict.fromkeys(part or ("train" if is_mixed else "") for part in records):
        found = [*records.get(part, ()), *(records[""] if is_mixed and part == "train" else ())]
        by_file: dict[Path, list[str]] = defaultdict(list)
        for record in found:
            by_file[record.source or root].append(record.name)
        bases = {file: usual_folder(root, file.parent, part, names) or file.parent for file, names in by_file.items()}
        parts[part] = tuple(replace(each, name=below(root, bases[each.source or root] / each.name)) for each in found)
    if passed:
        shapes = ", ".join(f"{count} {kind}" for kind, count in passed.most_common())
        findings = [*findings, finding("shapes-ignored", (), f"shapes that are no boxes, outlines or masks: {shapes}")]
    return ObjectSource(
        format=format, root=root, classes=classes or counted_classes(parts), parts=parts, how=how,
        findings=tuple(findings), has_masks=any_mask(parts),
    )  # fmt: skip
