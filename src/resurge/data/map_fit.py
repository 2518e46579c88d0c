"""How the label maps of a data set lie in their pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from resurge.data.findings import Finding, finding
from resurge.data.fit import Fit, Sights, find_fit, is_turned, sizes_differ
from resurge.data.images import ImageHeader
from resurge.data.pictures import read_headers
from resurge.data.records import MaskRecord

Parts = dict[str, tuple[MaskRecord, ...]]


def fitted(root: Path, parts: Parts, exif: str | None) -> tuple[Parts, list[Finding]]:
    """The records with how each mask lies in its image, and what there is to say; `exif` as in `Reading`."""
    pictures = read_headers(root, (record.name for records in parts.values() for record in records))
    masks = read_headers(root, (record.mask for records in parts.values() for record in records if record.mask))

    def fit(record: MaskRecord, exif: str | None) -> tuple[Fit | None, bool]:
        return find_fit(masks[record.mask or ""].size, pictures[record.name], exif, array=True)

    def is_known(record: MaskRecord) -> bool:
        return record.name in pictures and record.mask in masks

    sights, wrong = Sights("label maps", exif), []
    exif = sights.settled(fit(record, None) for records in parts.values() for record in records
                          if is_known(record) and is_turned(pictures[record.name]))  # fmt: skip
    found = {}
    for part, records in parts.items():
        placed = []
        for record in records:
            if is_known(record):
                lies, guessed = fit(record, exif)
                if lies is None:
                    wrong.append(_wrong(record, masks[record.mask or ""], pictures[record.name]))
                else:
                    sights.see(record.name, lies, guessed)
                    record = replace(record, fit=lies if lies.changes else None)
            placed.append(record)
        found[part] = tuple(placed)
    return found, [*wrong, *sights.findings()]


def _wrong(record: MaskRecord, mask: ImageHeader, picture: ImageHeader) -> Finding:
    message = f"{record.mask}: the mask of {record.name} has {sizes_differ(mask.size, picture)}"
    remedy = "make the mask again at the image's size, or remove both; --fix leaves it out"
    return finding("mask-size", (record.mask or "",), message, remedy=remedy, stop=f"{message}. {remedy.capitalize()}.")
