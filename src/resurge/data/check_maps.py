"""What is wrong with the label maps of a data set, and their pixels by class."""

from __future__ import annotations

from collections import Counter

import numpy as np

from resurge.data.coding import UNKNOWN
from resurge.data.findings import Finding, class_findings, finding, unreadable
from resurge.data.images import UnreadableImage
from resurge.data.map_source import MaskSource
from resurge.data.mending import Examined
from resurge.data.records import MaskRecord
from resurge.data.splits import IGNORE
from resurge.files import Json


def mask_report(data: Examined, source: MaskSource, findings: list[Finding]) -> Json:
    pixels: dict[str, Counter[str]] = {}
    ignored: dict[str, int] = {}
    values: Counter[tuple[str, int]] = Counter()
    for part, records in source.parts.items():
        total = np.zeros(256, dtype=np.int64)
        for record in records:
            total += _check_mask(data, source, part, record, values, findings)
        pixels[part or "all"] = Counter({name: int(total[index]) for index, name in enumerate(source.classes)})
        ignored[part or "all"] = int(total[IGNORE])
    findings += class_findings(pixels, source.classes, "pixels")
    names = (*source.classes, *[""] * (IGNORE - len(source.classes)), "ignored")
    order = sorted(values, key=lambda key: (key[1], len(key[0]), key[0]))  # 2 before 10
    coded = [{"value": value, "class": names[index], "share": round(values[value, index] / values.total(), 6)}
             for value, index in order]  # fmt: skip
    return {"pixels": {part: dict(counter) for part, counter in pixels.items()}, "ignored": ignored, "values": coded}


def _check_mask(
    data: Examined, source: MaskSource, part: str, record: MaskRecord, values: Counter[tuple[str, int]],
    findings: list[Finding],
) -> np.ndarray:  # fmt: skip
    """Pixels by class, int64 (256,), IGNORE among them; zeros when the mask cannot be used. Adds to `values`, too."""
    total = np.zeros(256, dtype=np.int64)
    if record.mask is None:
        findings.append(finding("missing-mask", (record.name,), f"{record.name}: there is no mask for this image"))
        return total
    facts = source.facts_of(record)
    if isinstance(facts, UnreadableImage):
        findings += unreadable([(record.mask, facts)])
        return total

    real = data.size(record.name)
    if real is not None and record.fit is None and facts.size != real:
        return total
    coding = source.coding_of(part)
    for shown, index, count in facts.coded(coding):
        if index != UNKNOWN:
            total[index] += count
            values[shown, index] += count
    if total[IGNORE] == total.sum():
        findings.append(finding("all-ignored", (record.mask,), f"{record.mask}: every pixel is ignored"))
    return total
