"""What is wrong with a data set, file by file, and what to do about it; and figures of what is in it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from resurge.data.annotations import WORDS, Annotation, Words
from resurge.data.findings import (
    SHOWN,
    Entry,
    Facts,
    Finding,
    balance,
    duplicates,
    examine_file,
    number_of,
    oddities,
    unreadable,
)
from resurge.data.formats.format import AnySource
from resurge.data.images import MAX_PIXELS, UnreadableImage
from resurge.data.index_images import read_indices
from resurge.data.mending import Look, MaskFacts
from resurge.data.paths import user_path
from resurge.data.records import (
    LabelRecord,
    LabelSource,
    MaskRecord,
    MaskSource,
    MemorySource,
    ObjectSource,
    Record,
    examine,
    known_range,
    unknown_values,
)
from resurge.data.sources import Place, given_val, is_digits, make_bundle, read_source, recognise
from resurge.data.splits import IGNORE

Stats = dict[str, Any]
"""Figures of a data set, ready for JSON."""

SEVERITIES = ("error", "warning", "info")
SMALL, MEDIUM = 32**2, 96**2
"""Areas in pixels from which on COCO calls an object medium, and large."""

_CLASSES = 12


@dataclass(frozen=True)
class CheckReport:
    """All findings, worst first, and figures of the data set."""

    source: str
    findings: tuple[Finding, ...]
    stats: Stats

    @property
    def ok(self) -> bool:
        """Whether there is no error (there may be warnings)."""
        return not any(finding.severity == "error" for finding in self.findings)

    def kinds(self) -> set[str]:
        """The kinds of all findings."""
        return {finding.kind for finding in self.findings}

    def lines(self) -> list[str]:
        """The report for a terminal: figures, then each kind once with its remedy and at most five of its cases."""
        count = self.stats["num_classes"]
        lines = [f"{self.source}: {self.stats['images']:,} images, {count} class{'' if count == 1 else 'es'}"]
        lines += [f"  {name}: {count:,} images" for name, count in self.stats["splits"].items()]
        lines += self._content()
        by_kind: dict[str, list[Finding]] = defaultdict(list)
        for finding in self.findings:
            by_kind[finding.kind].append(finding)
        for kind, group in by_kind.items():
            lines.append(f"{group[0].severity}: {kind} ({_how_many(group)})")
            for finding in group[:SHOWN]:
                lines.append(f"    {finding.message}")
                shown = [path for path in finding.paths if path not in finding.message][:SHOWN]
                lines.extend(f"      {path}" for path in shown)
                if len(finding.paths) > SHOWN:
                    lines.append(f"      and {len(finding.paths) - SHOWN} more")
            if len(group) > SHOWN:
                lines.append(f"    and {len(group) - SHOWN} more")
            lines.append(f"    remedy: {group[0].remedy}")
        counted = Counter(finding.severity for finding in self.findings)
        parts = [f"{counted[name]} {name}{'s' if counted[name] > 1 else ''}" for name in SEVERITIES if counted[name]]
        lines.append(", ".join(parts) if parts else "nothing wrong found")
        return lines

    def _content(self) -> list[str]:
        """What the images hold: objects and the sizes of their boxes, or pixels a class."""
        stats, lines = self.stats, []
        if "objects" in stats:
            crowds = f", {stats['crowds']:,} of them crowds" if stats["crowds"] else ""
            kind = "boxes and masks" if stats["masks"] else "boxes"
            lines.append(f"  {stats['objects']:,} objects with {kind}{crowds}")
            lines += [f"  objects in {part}: {_most(counts, sum(counts.values()), False)}"
                      for part, counts in stats["classes"].items()]  # fmt: skip
            sizes = stats["box_sizes"]
            lines.append(f"  boxes: {sizes['small']:,} small (below 32 x 32 pixels), {sizes['medium']:,} medium, "
                         f"{sizes['large']:,} large (from 96 x 96 on)")  # fmt: skip
            if "quantiles" in sizes:
                spread = ", ".join(f"{share} {side:g}" for share, side in sizes["quantiles"].items())
                lines.append(f"  side of a box, square root of its area, in pixels: {spread}")
        for part, counts in stats.get("pixels", {}).items():
            total = sum(counts.values())
            ignored = stats["ignored"][part] / max(total + stats["ignored"][part], 1)
            lines.append(f"  pixels in {part}: {_most(counts, total, True)}; {ignored:.1%} ignored")
        return lines

    def to_json(self) -> dict[str, object]:
        """Plain values: source, ok, findings and stats."""
        findings = [
            {"kind": f.kind, "severity": f.severity, "paths": list(f.paths), "message": f.message, "remedy": f.remedy}
            for f in self.findings
        ]
        return {"source": self.source, "ok": self.ok, "findings": findings, "stats": self.stats}


def _most(counts: dict[str, int], total: int, share: bool) -> str:
    """The commonest classes with their counts, or their shares."""
    order = sorted(counts, key=lambda name: -counts[name])
    shown = [
        f"{name} {counts[name] / max(total, 1):.1%}" if share else f"{name} {counts[name]:,}"
        for name in order[:_CLASSES]
    ]
    return ", ".join(shown) + (f" and {len(order) - _CLASSES} more classes" if len(order) > _CLASSES else "")


def check_data(
    source: Place, *, annotation: Annotation | None = None, words: Words = WORDS, val: Place | None = None,
    format: str = "auto", max_pixels: int = MAX_PIXELS, threads: int = 2,
) -> tuple[CheckReport, Look | None]:  # fmt: skip
    """Read everything of a data set and report what would disturb training or falsify its figures.

    Without an `annotation` the folder decides. `source`, `val`, `words` and `format` are those of `sources.open_data`.
    Nothing is changed on disk. The second value is what `fix.mend` starts from; None for labels and for what is held
    in memory.

    Raises:
        UserError: there is nothing to check: the source is missing, empty, in no known format or cannot be read.
    """
    if annotation is None and (format != "auto" or is_digits(source, format) or not _is_annotated(source)):
        annotation = "labels"
    path, title = user_path(source), str(source)
    found = read_source(source, annotation, format, words)
    held = None if val is None else given_val(found, annotation or _kind(found), val, path, words)
    if isinstance(found, MemorySource):
        return _memory_report(found, val), None
    if held is not None:
        moved = held.moved(found.root)
        found = found.joined(moved)
    names = {record.name: None for records in found.parts.values() for record in records}
    with ThreadPoolExecutor(threads) as pool:
        facts = dict(zip(names, pool.map(lambda name: examine_file(found.root, name, max_pixels), names), strict=True))
        masks = _read_masks(found, pool, max_pixels)
    findings = [*found.findings, *unreadable(facts.values()), *oddities(facts.values())]
    entries = [Entry(part or "train", record.label if isinstance(record, LabelRecord) else "", record.name)
               for part, records in found.parts.items() for record in records]  # fmt: skip
    readable = {entry for entry in entries if facts[entry.name].header is not None}
    findings += duplicates((facts[entry.name].digest, entry) for entry in entries if entry in readable)
    if isinstance(found, LabelSource):
        findings += balance(entries, readable)
        stats = _label_stats(entries) | image_stats(facts.values())
        return CheckReport(title, _sorted(findings), stats), None
    stats = {
        "images": sum(found.sizes.values()),
        "num_classes": len(found.classes),
        "splits": {part or "all": count for part, count in found.sizes.items()},
        "format": found.format,
    }
    look = Look(found, facts, masks)
    if isinstance(found, MaskSource):
        stats |= _mask_report(look, found, findings)
    else:
        stats |= _object_report(look, found, findings, words)
    return CheckReport(title, _sorted(findings), stats | image_stats(facts.values())), look


def _is_annotated(source: Place) -> bool:
    path = user_path(source)
    return path.exists() and recognise(path) is not None


def _kind(found: AnySource) -> Annotation:
    return "maps" if isinstance(found, MaskSource) else "boxes" if isinstance(found, ObjectSource) else "labels"


def _read_masks(found: AnySource, pool: ThreadPoolExecutor, max_pixels: int) -> dict[str, MaskFacts]:
    if not isinstance(found, MaskSource):
        return {}
    names = sorted({record.mask for records in found.parts.values() for record in records if record.mask})

    def read(name: str) -> MaskFacts:
        try:
            values = read_indices(found.root / name, max_pixels)
        except UnreadableImage as error:
            return MaskFacts(error=UnreadableImage(error.kind, name, str(error).removeprefix(f"{error.name}: ")))
        return MaskFacts((values.shape[1], values.shape[0]), np.bincount(values.reshape(-1)))

    return dict(zip(names, pool.map(read, names), strict=True))


def _memory_report(found: MemorySource, val: Place | None) -> CheckReport:
    """Data sets in memory: their files were checked when they were read; duplicates and balance of labels remain."""
    bundle = make_bundle(found, found.annotation, None, val)
    sizes = {name: len(split) for name, split in bundle.splits().items()}
    if found.annotation != "labels":
        stats: Stats = {"images": sum(sizes.values()), "num_classes": bundle.num_classes, "splits": sizes}
        return CheckReport(found.name, (), stats)
    entries: list[Entry] = []
    images: list[tuple[bytes, Entry]] = []
    for name, split in bundle.splits().items():
        for index, label in enumerate(split.labels):
            entry = Entry(name, bundle.classes[label], split.id(index))
            entries.append(entry)
            images.append((hashlib.blake2b(split.read(index).tobytes(), digest_size=16).digest(), entry))
    findings = duplicates(images) + balance(entries, set(entries))
    return CheckReport(found.name, _sorted(findings), _label_stats(entries))


def _label_stats(entries: list[Entry]) -> Stats:
    return {
        "images": len(entries),
        "num_classes": len({entry.label for entry in entries}),
        "splits": dict(Counter(entry.part for entry in entries)),
        "classes": {
            part: dict(sorted(Counter(entry.label for entry in entries if entry.part == part).items()))
            for part in dict.fromkeys(entry.part for entry in entries)
        },
    }


def image_stats(facts: Iterable[Facts]) -> Stats:
    """Figures of the files: how many can be read, bytes, formats, modes, sizes; {} without files."""
    facts = list(facts)
    good = [fact.header for fact in facts if fact.header is not None]
    stats: Stats = {}
    if facts:
        stats["readable"] = len(good)
        stats["bytes"] = sum(fact.size for fact in facts)
        stats["formats"] = dict(Counter(header.format for header in good).most_common())
        stats["modes"] = dict(Counter(header.mode for header in good).most_common())
    if good:
        for name, at in (("width", 0), ("height", 1)):
            values = [header.size[at] for header in good]
            stats[name] = {"min": min(values), "median": median(values), "max": max(values)}
    return stats


def _sorted(findings: list[Finding]) -> tuple[Finding, ...]:
    """The worst first."""
    return tuple(sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), f.kind, f.paths)))


def _how_many(group: list[Finding]) -> str:
    files = len({path for finding in group for path in finding.paths})
    return f"{len(group)} case{'s' if len(group) > 1 else ''}" if files == 0 else f"{files}"


_OBJECT_FAULTS = {
    "empty-box": ("error", "draw the box again or remove it; it is left out of training, and --fix removes it"),
    "box-outside": ("error", "correct or remove the box; it is left out of training, and --fix removes it"),
    "box-beyond": ("warning", "nothing: it is cut to the image in training; --fix writes it so"),
    "unknown-category": ("error", "add the category or correct the object; it is left out, and --fix removes it"),
    "bad-object": ("error", "correct or remove the object; it is left out, and --fix removes it"),
    "mask-size": ("error", "make the mask again at the image's size; it is left out, and --fix removes it"),
}


def _object_report(look: Look, source: ObjectSource, findings: list[Finding], words: Words) -> Stats:
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
            good = _check_objects(record, real or record.size, source, findings, words)
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
        message = f"{number_of(len(lacking), 'image', 'images')} without objects"
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
    record: Record, size: tuple[int, int] | None, source: ObjectSource, findings: list[Finding], words: Words
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
        remedy = f"add masks, or train with {words['boxes']}; such objects are left out of {words['masks']}"
        findings.append(Finding("no-mask", "warning", (record.name,), message, remedy))
    return good


def _object_finding(record: Record, where: str, kind: str, severity: str, what: str, remedy: str) -> Finding:
    return Finding(kind, severity, (record.name,), f"{record.name}, {where}: {what}", remedy)


def box_sizes(sides: list[float]) -> Stats:
    """Counts of small, medium and large boxes, of boxes by side (square root of the area) in powers of two, and
    quantiles of the side in pixels."""
    values = np.asarray(sides, dtype=np.float64)
    areas = values**2
    sizes: Stats = {
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
            shown = f"{', '.join(lacking[:SHOWN])}{f' and {len(lacking) - SHOWN} more' if len(lacking) > SHOWN else ''}"
            trains = part in ("train", "all")
            kind, so = ("empty-class", "is not learnt") if trains else ("class-missing", "is not measured")
            message = f"{part} has no {what} of {shown}"
            findings.append(Finding(kind, "warning", lacking, message, f"add some: the class {so} without"))
    return findings


def _mask_report(look: Look, source: MaskSource, findings: list[Finding]) -> Stats:
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
        findings += unreadable([Facts(record.mask, 0, error=facts.error)])
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
        message = (f"{record.mask}: {count:,} pixels have the class index {', '.join(map(str, strange[:SHOWN]))}; the "
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
