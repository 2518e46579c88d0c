"""What is wrong with a data set of objects or of label maps, and figures of what is in it."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from resurge.data import folders
from resurge.data.checks import CheckReport, check_classification, examine_file, image_stats, sorted_findings
from resurge.data.findings import Entry, Facts, Finding, duplicates, oddities, unreadable
from resurge.data.images import MAX_PIXELS, UnreadableImage
from resurge.data.index_images import read_indices
from resurge.data.label_maps import MaskRecord, MaskSource, known_range, unknown_values
from resurge.data.records import ObjectSource, Record, examine
from resurge.data.scene_sources import (
    SceneSource,
    given_val,
    is_digits,
    read_scenes,
    recognise_scenes,
    require_task,
    to_validate,
)
from resurge.data.scenes import IGNORE

SMALL, MEDIUM = 32**2, 96**2
"""Areas in pixels from which on COCO calls an object medium, and large."""

_SHOWN = 5

_OBJECT_FAULTS = {
    "empty-box": ("error", "draw the box again or remove it; it is left out of training, and --fix removes it"),
    "box-outside": ("error", "correct or remove the box; it is left out of training, and --fix removes it"),
    "box-beyond": ("warning", "nothing: it is cut to the image in training; --fix writes it so"),
    "unknown-category": ("error", "add the category or correct the object; it is left out, and --fix removes it"),
    "bad-object": ("error", "correct or remove the object; it is left out, and --fix removes it"),
    "mask-size": ("error", "make the mask again at the image's size; it is left out, and --fix removes it"),
}


@dataclass(frozen=True)
class MaskFacts:
    """What reading a mask gave: pixels by value (length 65536 at most), its size (width, height), or the reason why
    not."""

    size: tuple[int, int] = (0, 0)
    counts: np.ndarray | None = None
    error: UnreadableImage | None = None


@dataclass(frozen=True)
class Look:
    """A data set with what reading all its images (and masks) gave, by name."""

    source: SceneSource
    images: dict[str, Facts]
    masks: dict[str, MaskFacts]

    def size(self, name: str) -> tuple[int, int] | None:
        """(width, height) of an image, upright; None when it cannot be read."""
        header = self.images[name].header
        if header is None:
            return None
        return header.size[::-1] if header.orientation >= 5 else header.size

    def readable(self, name: str) -> bool:
        return self.images[name].header is not None


def check_data(
    source: str | os.PathLike[str],
    *,
    task: str | None = None,
    val: str | os.PathLike[str] | None = None,
    format: str = "auto",
    max_pixels: int = MAX_PIXELS,
    threads: int = 2,
) -> tuple[CheckReport, Look | None]:
    """Read everything of a data set and report what would disturb training or falsify its figures.

    Without a `task` the folder decides. The second value is what `scene_fix.mend` starts from; None for
    classification and for what is held in memory.

    Raises:
        UserError: there is nothing to check: the source is missing, or in no known format.
    """
    if task is not None:
        require_task(task)
    if is_digits(source, format) and task not in (None, "classify"):
        from resurge.data.sources import open_data

        bundle = open_data(source, task=task, val=val)
        sizes = {name: len(split) for name, split in bundle.splits().items()}
        stats = {"images": sum(sizes.values()), "num_classes": bundle.num_classes, "splits": sizes}
        return CheckReport(str(source), (), stats), None
    if task == "classify" or (task is None and (format != "auto" or not _is_scenes(source))):
        return check_classification(source, val=val, format=format, max_pixels=max_pixels, threads=threads), None
    path = folders.user_path(source)
    found = read_scenes(path, task, format, lenient=True)
    if val is not None:
        found = _with_val(found, val, path)
    look = look_at(found, max_pixels, threads)
    return report(look, str(source)), look


def _with_val(found: SceneSource, val: str | os.PathLike[str], path: Path) -> SceneSource:
    """The data set with the validation part that `val` names."""
    held = given_val(found, "segment" if isinstance(found, MaskSource) else "detect", val, path)

    def moved(name: str) -> str:
        return "" if held is None else (held.root / name).absolute().as_posix()

    if isinstance(found, MaskSource) and isinstance(held, MaskSource):
        maps = tuple(MaskRecord(moved(record.name), moved(record.mask) if record.mask else None)
                     for record in to_validate(held.parts))  # fmt: skip
        return replace(found, parts=found.parts | {"val": maps})
    if isinstance(found, ObjectSource) and isinstance(held, ObjectSource):
        records = tuple(replace(record, name=moved(record.name)) for record in to_validate(held.parts))
        return replace(found, parts=found.parts | {"val": records}, findings=(*found.findings, *held.findings))
    return found


def _is_scenes(source: str | os.PathLike[str]) -> bool:
    path = folders.user_path(source)
    return path.exists() and recognise_scenes(path) is not None


def look_at(source: SceneSource, max_pixels: int = MAX_PIXELS, threads: int = 2) -> Look:
    """Read all images, and all label maps, of a data set."""
    entries = {
        record.name: Entry(part, "", record.name) for part, records in source.parts.items() for record in records
    }
    masks: list[str] = []
    if isinstance(source, MaskSource):
        masks = sorted({record.mask for records in source.parts.values() for record in records if record.mask})
    with ThreadPoolExecutor(threads) as pool:
        facts = dict(zip(entries, pool.map(lambda entry: examine_file(source.root, entry, max_pixels),
                                           entries.values()), strict=True))  # fmt: skip
        read = dict(zip(masks, pool.map(lambda name: _mask_facts(source.root, name, max_pixels), masks), strict=True))
    return Look(source, facts, read)


def _mask_facts(root: Path, name: str, max_pixels: int) -> MaskFacts:
    try:
        values = read_indices(root / name, max_pixels)
    except UnreadableImage as error:
        return MaskFacts(error=UnreadableImage(error.kind, name, str(error).removeprefix(f"{error.name}: ")))
    return MaskFacts((values.shape[1], values.shape[0]), np.bincount(values.reshape(-1)))


def report(look: Look, name: str) -> CheckReport:
    """All findings about a data set, and its figures."""
    source = look.source
    facts = look.images
    findings = [*source.findings, *unreadable(facts.values())]
    parts = ((part or "train", record) for part, records in source.parts.items() for record in records)
    images = [(facts[record.name].digest, Entry(part, "", record.name)) for part, record in parts
              if look.readable(record.name)]  # fmt: skip
    findings += duplicates(images)
    findings += oddities([(fact.entry, fact.header) for fact in facts.values() if fact.header is not None])
    stats: dict[str, Any] = {
        "images": sum(len(records) for records in source.parts.values()),
        "num_classes": len(source.classes),
        "splits": {part or "all": len(records) for part, records in source.parts.items()},
        "format": source.format,
    }
    if isinstance(source, MaskSource):
        stats |= _mask_report(look, source, findings)
    else:
        stats |= _object_report(look, source, findings)
    return CheckReport(name, sorted_findings(findings), stats | image_stats(facts.values()))


# --------------------------------------------------------------------------------------------------------- objects


def _object_report(look: Look, source: ObjectSource, findings: list[Finding]) -> dict[str, Any]:
    sides: list[float] = []
    counts: dict[str, Counter[str]] = {}
    empty: dict[str, list[str]] = {}
    crowds = 0
    for part, records in source.parts.items():
        counts[part or "all"] = Counter()
        empty[part or "all"] = []
        for record in records:
            real = look.size(record.name)
            if real is not None and record.size is not None and real != record.size:
                findings.append(_wrong_size(record, real))
            good = _check_objects(record, real or record.size, source, findings)
            counts[part or "all"].update(label for label, _, _ in good)
            crowds += sum(crowd for _, _, crowd in good)
            sides += [side for _, side, _ in good]
            if not good:
                empty[part or "all"].append(record.name)
    findings += _class_findings(counts, source.classes, "objects")
    lacking = [name for names in empty.values() for name in names]
    if lacking:
        many = len(lacking) == sum(len(records) for records in source.parts.values())
        severity, remedy = (
            ("error", "add objects") if many else ("info", "nothing: such images teach what is no object")
        )
        message = f"{len(lacking)} image{'s' if len(lacking) > 1 else ''} without objects"
        findings.append(Finding("no-objects", severity, tuple(lacking), message, remedy))
    return {
        "objects": sum(sum(counter.values()) for counter in counts.values()),
        "crowds": crowds,
        "classes": {part: {name: counter[name] for name in source.classes} for part, counter in counts.items()},
        "without_objects": {part: len(names) for part, names in empty.items()},
        "masks": source.has_masks,
        "box_sizes": box_sizes(sides),
    }


def _wrong_size(record: Record, real: tuple[int, int]) -> Finding:
    said = record.size or (0, 0)
    message = f"{record.name}: the annotations say {said[0]} x {said[1]} pixels, the image has {real[0]} x {real[1]}"
    remedy = "see that the boxes fit this image; --fix corrects the size and cuts the boxes to it"
    return Finding("wrong-size", "error", (record.name,), message, remedy)


def _check_objects(
    record: Record, size: tuple[int, int] | None, source: ObjectSource, findings: list[Finding]
) -> list[tuple[str, float, bool]]:
    """(class, square root of the box's area, crowd) of the objects that can be used; the rest becomes findings."""
    good: list[tuple[str, float, bool]] = []
    bare: list[str] = []
    seen: dict[tuple[object, ...], str] = {}
    for thing in record.objects:
        box, fault = examine(thing, size)
        if fault is None and thing.label not in source.classes:
            kind, message = "unknown-class", f"the class {thing.label!r} does not occur in training"
            findings.append(_object_finding(record, thing.where, kind, "error", message,
                                            "rename or remove it, or add training images of it"))  # fmt: skip
            continue
        if fault is not None:
            severity, remedy = _OBJECT_FAULTS[fault.kind]
            findings.append(_object_finding(record, thing.where, fault.kind, severity, fault.message, remedy))
        if box is None:
            continue
        key = (thing.label, thing.box, thing.region)
        if key in seen:
            message = f"the same {thing.label} as {seen[key]}, with the same box"
            findings.append(
                _object_finding(record, thing.where, "same-object", "warning", message, "remove one of them")
            )
        seen.setdefault(key, thing.where)
        if source.has_masks and thing.region is None:
            bare.append(thing.where)
        good.append((thing.label, float(((box[2] - box[0]) * (box[3] - box[1])) ** 0.5), thing.crowd))
    if bare:
        message = f"{record.name}: {len(bare)} of {len(record.objects)} objects have no mask ({', '.join(bare[:3])})"
        remedy = "add masks, or train with --task detect; such objects are left out of --task instances"
        findings.append(Finding("no-mask", "warning", (record.name,), message, remedy))
    return good


def _object_finding(record: Record, where: str, kind: str, severity: str, what: str, remedy: str) -> Finding:
    return Finding(kind, severity, (record.name,), f"{record.name}, {where}: {what}", remedy)


def box_sizes(sides: list[float]) -> dict[str, Any]:
    """Counts of small, medium and large boxes, of boxes by side (square root of the area) in powers of two, and
    quantiles of the side in pixels."""
    values = np.asarray(sides, dtype=np.float64)
    areas = values**2
    sizes: dict[str, Any] = {
        "small": int((areas < SMALL).sum()),
        "medium": int(((areas >= SMALL) & (areas < MEDIUM)).sum()),
        "large": int((areas >= MEDIUM).sum()),
    }
    if len(values):
        powers = np.floor(np.log2(np.maximum(values, 1))).astype(int)
        bins = range(int(powers.min()), int(powers.max()) + 1)
        sizes["histogram"] = [
            {"from": 2**power if power else 0, "to": 2 ** (power + 1), "count": int((powers == power).sum())}
            for power in bins
        ]
        shares = (0, 5, 25, 50, 75, 95, 100)
        sizes["quantiles"] = {f"{share}%": round(float(np.percentile(values, share)), 1) for share in shares}
    return sizes


def _class_findings(counts: dict[str, Counter[str]], classes: tuple[str, ...], what: str) -> list[Finding]:
    findings = []
    for part, counter in counts.items():
        lacking = tuple(name for name in classes if not counter[name])
        if lacking and len(lacking) < len(classes):
            shown = (
                f"{', '.join(lacking[:_SHOWN])}{f' and {len(lacking) - _SHOWN} more' if len(lacking) > _SHOWN else ''}"
            )
            trains = part in ("train", "all")
            kind, so = ("empty-class", "is not learnt") if trains else ("class-missing", "is not measured")
            message = f"{part} has no {what} of {shown}"
            findings.append(Finding(kind, "warning", lacking, message, f"add some: the class {so} without"))
    return findings


# ---------------------------------------------------------------------------------------------------------- masks


def _mask_report(look: Look, source: MaskSource, findings: list[Finding]) -> dict[str, Any]:
    pixels: dict[str, Counter[str]] = {}
    ignored: Counter[str] = Counter()
    for part, records in source.parts.items():
        total = np.zeros(256, dtype=np.int64)
        for record in records:
            counts = _check_mask(look, source, record, findings)
            if counts is not None:
                total += counts
        pixels[part or "all"] = Counter({name: int(total[index]) for index, name in enumerate(source.classes)})
        ignored[part or "all"] = int(total[IGNORE])
    findings += _class_findings(pixels, source.classes, "pixels")
    return {
        "pixels": {part: dict(counter) for part, counter in pixels.items()},
        "ignored": {part: ignored[part] for part in pixels},
    }


def _check_mask(look: Look, source: MaskSource, record: MaskRecord, findings: list[Finding]) -> np.ndarray | None:
    """Pixels by class, int64 (256,), IGNORE among them; None when the mask cannot be used."""
    if record.mask is None:
        message = f"{record.name}: there is no mask for this image"
        remedy = "add the mask, or remove the image; it is left out of training"
        findings.append(Finding("missing-mask", "error", (record.name,), message, remedy))
        return None
    facts = look.masks[record.mask]
    if facts.error is not None or facts.counts is None:
        findings += unreadable([Facts(Entry("", "", record.mask), 0, error=facts.error)])
        return None
    real = look.size(record.name)
    if real is not None and facts.size != real:
        message = (f"{record.mask}: the mask has {facts.size[0]} x {facts.size[1]} pixels, its image {record.name} "
                   f"{real[0]} x {real[1]}")  # fmt: skip
        remedy = "make the mask again at the image's size; --fix leaves it out"
        findings.append(Finding("mask-size", "error", (record.mask,), message, remedy))
        return None
    strange = unknown_values(facts.counts, source.meaning)
    if strange:
        count = int(facts.counts[strange].sum())
        message = (f"{record.mask}: {count:,} pixels have the class index {', '.join(map(str, strange[:_SHOWN]))}; the "
                   f"classes have {known_range(source.meaning)}")  # fmt: skip
        remedy = "correct the mask, or name the class in classes.txt; --fix has such pixels ignored"
        findings.append(Finding("index-out-of-range", "error", (record.mask,), message, remedy))
    total = np.zeros(256, dtype=np.int64)
    for value in np.flatnonzero(facts.counts):
        if value not in strange:
            total[source.meaning[value]] += facts.counts[value]
    if total[IGNORE] == total.sum():
        message = f"{record.mask}: every pixel is ignored"
        findings.append(Finding("all-ignored", "warning", (record.mask,), message, "label it, or remove the image"))
    return total
