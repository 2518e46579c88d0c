"""What is wrong with the label maps of a data set, and their pixels by class."""

from __future__ import annotations

from collections import Counter

import numpy as np

from resurge.data.findings import SHOWN, Finding, class_findings, finding, unreadable
from resurge.data.images import UnreadableImage
from resurge.data.map_source import MaskSource, known_range, unknown_values
from resurge.data.mending import Examined
from resurge.data.records import MaskRecord
from resurge.data.splits import IGNORE
from resurge.files import Json


def mask_report(data: Examined, source: MaskSource, findings: list[Finding]) -> Json:
    pixels: dict[str, Counter[str]] = {}
    ignored: dict[str, int] = {}
    for part, records in source.parts.items():
        total = sum((_check_mask(data, source, record, findings) for record in records), np.zeros(256, dtype=np.int64))
        pixels[part or "all"] = Counter({name: int(total[index]) for index, name in enumerate(source.classes)})
        ignored[part or "all"] = int(total[IGNORE])
    findings += class_findings(pixels, source.classes, "pixels")
    return {"pixels": {part: dict(counter) for part, counter in pixels.items()}, "ignored": ignored}


def _check_mask(data: Examined, source: MaskSource, record: MaskRecord, findings: list[Finding]) -> np.ndarray:
    """Pixels by class, int64 (256,), IGNORE among them; zeros when the mask cannot be used."""
    total = np.zeros(256, dtype=np.int64)
    if record.mask is None:
        findings.append(finding("missing-mask", (record.name,), f"{record.name}: there is no mask for this image"))
        return total
    facts = data.masks[record.mask]
    if isinstance(facts, UnreadableImage):
        findings += unreadable([(record.mask, facts)])
        return total

    def add(kind: str, what: str, remedy: str = "") -> None:
        findings.append(finding(kind, (str(record.mask),), f"{record.mask}: {what}", remedy=remedy))

    real = data.size(record.name)
    if real is not None and facts.size != real:
        return total
    strange = unknown_values(facts.counts, source.meaning)
    if strange:
        shown, known = ", ".join(map(str, strange[:SHOWN])), known_range(source.meaning)
        count = int(facts.counts[strange].sum())
        add("index-out-of-range", f"{count:,} pixels have the class index {shown}; the classes have {known}")
    for value in np.flatnonzero(facts.counts):
        if value not in strange:
            total[source.meaning[value]] += facts.counts[value]
    if total[IGNORE] == total.sum():
        add("all-ignored", "every pixel is ignored")
    return total
