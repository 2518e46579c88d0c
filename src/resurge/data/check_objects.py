"""What is wrong with the objects of a data set, and figures of them."""

from __future__ import annotations

from collections import Counter

import numpy as np

from resurge.data.annotations import Words
from resurge.data.findings import Finding, class_findings, finding
from resurge.data.mending import Examined
from resurge.data.object_review import examine
from resurge.data.object_source import ObjectSource
from resurge.data.records import Record
from resurge.files import Json
from resurge.quantities import number_of

SMALL, MEDIUM = 32**2, 96**2
"""Areas in pixels from which on COCO calls an object medium, and large."""


def object_report(data: Examined, source: ObjectSource, findings: list[Finding], words: Words) -> Json:
    sides: list[float] = []
    counts: dict[str, Counter[str]] = {}
    empty: dict[str, list[str]] = {}
    crowds = 0
    for part, records in source.parts.items():
        counted, lacking = counts.setdefault(part or "all", Counter()), empty.setdefault(part or "all", [])
        for record in records:
            good = _check_objects(record, data.size(record.name) or record.size, source, findings, words)
            counted.update(label for label, _, _ in good)
            crowds += sum(crowd for _, _, crowd in good)
            sides += [side for _, side, _ in good]
            if not good:
                lacking.append(record.name)
    findings += class_findings(counts, source.classes, "objects")
    if names := [name for lacking in empty.values() for name in lacking]:
        severity, remedy = ("error", "add objects") if len(names) == len(source.records) else ("", "")
        message = f"{number_of(len(names), 'image')} without objects"
        findings.append(finding("no-objects", names, message, severity, remedy))
    return {
        "objects": sum(counter.total() for counter in counts.values()),
        "crowds": crowds,
        "classes": {part: {name: counter[name] for name in source.classes} for part, counter in counts.items()},
        "without_objects": {part: len(names) for part, names in empty.items()},
        "masks": source.has_masks,
        "box_sizes": box_sizes(sides),
    }


def _check_objects(
    record: Record, size: tuple[int, int] | None, source: ObjectSource, findings: list[Finding], words: Words
) -> list[tuple[str, float, bool]]:
    """(class, square root of the box's area, crowd) of the objects that can be used; the rest becomes findings."""
    good: list[tuple[str, float, bool]] = []
    bare: list[str] = []
    seen: dict[tuple[object, ...], str] = {}

    def add(kind: str, where: str, what: str, remedy: str = "") -> None:
        findings.append(finding(kind, (record.name,), f"{record.name}, {where}: {what}", remedy=remedy))

    for thing in record.objects:
        box, fault = examine(thing, size)
        if fault is None and thing.label not in source.classes:
            remedy = "rename or remove it, or add training images of it"
            add("unknown-class", thing.where, f"the class {thing.label!r} does not occur in training", remedy=remedy)
            continue
        if fault is not None:
            add(fault.kind, thing.where, fault.message)
        if box is None:
            continue
        first = seen.setdefault((thing.label, thing.box, thing.region), thing.where)
        if first is not thing.where:
            add("same-object", thing.where, f"the same {thing.label} as {first}, with the same box")
        if source.has_masks and thing.region is None:
            bare.append(thing.where)
        good.append((thing.label, float(((box[2] - box[0]) * (box[3] - box[1])) ** 0.5), thing.crowd))
    if bare:
        objects = number_of(len(record.objects), "object")
        message = f"{record.name}: {len(bare)} of {objects} without a mask ({', '.join(bare[:3])})"
        remedy = f"add masks, or train with {words['boxes']}; such objects are left out of {words['masks']}"
        findings.append(finding("no-mask", (record.name,), message, remedy=remedy))
    return good


def box_sizes(sides: list[float]) -> Json:
    """Counts of small, medium and large boxes, of boxes by side (square root of the area) in powers of two, and
    quantiles of the side in pixels."""
    values = np.asarray(sides, dtype=np.float64)
    small, medium, large = (int(count) for count in np.histogram(values**2, (0, SMALL, MEDIUM, np.inf))[0])
    sizes: Json = {"small": small, "medium": medium, "large": large}
    if len(values):
        powers = np.floor(np.log2(np.maximum(values, 1))).astype(int)
        sizes["histogram"] = [
            {"from": 2**power if power else 0, "to": 2 ** (power + 1), "count": int((powers == power).sum())}
            for power in range(int(powers.min()), int(powers.max()) + 1)
        ]
        shares = (0, 5, 25, 50, 75, 95, 100)
        sizes["quantiles"] = {f"{share}%": round(float(np.percentile(values, share)), 1) for share in shares}
    return sizes
