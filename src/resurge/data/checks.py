"""What is wrong with a data set, file by file, and what to do about it; and figures of what is in it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

import numpy as np

from resurge.data.annotations import WORDS, Annotation, Words
from resurge.data.findings import KINDS, SHOWN, Finding, finding, number_of
from resurge.data.images import EXTENSIONS, UnreadableImage, ending
from resurge.data.mending import Examined, Facts, examine_file, examine_mask
from resurge.data.paths import Place, user_path
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
from resurge.data.sources import given_val, is_digits, make_bundle, read_source, recognise
from resurge.data.splits import IGNORE
from resurge.files import Json

SEVERITIES = ("error", "warning", "info")
SMALL, MEDIUM = 32**2, 96**2
"""Areas in pixels from which on COCO calls an object medium, and large."""

_CLASSES = 12
_HUGE_PIXELS = 50_000_000
_IMBALANCE = 10


class _Entry(NamedTuple):
    """An image in a part of the data; `label` is "" where images have no one class."""

    part: str
    label: str
    name: str


@dataclass(frozen=True)
class CheckReport:
    """All findings, worst first, and figures of the data set."""

    source: str
    findings: tuple[Finding, ...]
    stats: Json

    @property
    def ok(self) -> bool:
        """Whether there is no error (there may be warnings)."""
        return not any(finding.severity == "error" for finding in self.findings)

    def lines(self) -> list[str]:
        """The report for a terminal: figures, then each kind once with its remedy and at most five of its cases."""
        count = self.stats["num_classes"]
        lines = [f"{self.source}: {self.stats['images']:,} images, {count} class{'' if count == 1 else 'es'}"]
        lines += [f"  {name}: {count:,} images" for name, count in self.stats["splits"].items()]
        lines += self._content()
        by_kind: dict[str, list[Finding]] = defaultdict(list)
        for found in self.findings:
            by_kind[found.kind].append(found)
        for kind, group in by_kind.items():
            files = len({path for found in group for path in found.paths})
            cases = f"{len(group)} case{'s' if len(group) > 1 else ''}"
            lines.append(f"{group[0].severity}: {kind} ({files or cases})")
            for found in group[:SHOWN]:
                lines.append(f"    {found.message}")
                lines += [f"      {path}" for path in found.paths if path not in found.message][:SHOWN]
                lines += _more(found.paths, "      ")
            lines += [*_more(group, "    "), f"    remedy: {group[0].remedy}"]
        counted = Counter(found.severity for found in self.findings)
        parts = [f"{counted[name]} {name}{'s' if counted[name] > 1 else ''}" for name in SEVERITIES if counted[name]]
        return [*lines, ", ".join(parts) or "nothing wrong found"]

    def _content(self) -> list[str]:
        """What the images hold: objects and the sizes of their boxes, or pixels per class."""
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

    def to_json(self) -> Json:
        """Plain values: source, ok, findings and stats."""
        findings = [{key: value for key, value in vars(each).items() if key != "stop"} for each in self.findings]
        return {"source": self.source, "ok": self.ok, "findings": findings, "stats": self.stats}


def _report(source: str, findings: list[Finding], stats: Json) -> CheckReport:
    """The worst findings first."""
    ranked = sorted(findings, key=lambda found: (SEVERITIES.index(found.severity), found.kind, found.paths))
    return CheckReport(source, tuple(ranked), stats)


def _more(shown: Collection[object], indent: str) -> list[str]:
    return [f"{indent}and {len(shown) - SHOWN} more"] if len(shown) > SHOWN else []


def _most(counts: dict[str, int], total: int, share: bool) -> str:
    """The commonest classes with their counts, or their shares."""
    order = sorted(counts, key=lambda name: -counts[name])
    numbers = {
        name: f"{counts[name] / max(total, 1):.1%}" if share else f"{counts[name]:,}" for name in order[:_CLASSES]
    }
    more = f" and {len(order) - _CLASSES} more classes" if len(order) > _CLASSES else ""
    return ", ".join(f"{name} {number}" for name, number in numbers.items()) + more


def check_data(
    source: Place, *, annotation: Annotation | None = None, words: Words = WORDS, val: Place | None = None
) -> tuple[CheckReport, Examined | None]:
    """Read everything of a data set and report what would disturb training or falsify its figures.

    Without an `annotation` the folder decides. `source`, `val` and `words` are those of `sources.open_data`. Nothing is
    changed on disk. The second value is what `fix.mend` starts from; None for labels and for what is held in memory.

    Raises:
        UserError: there is nothing to check: the source is missing, empty, in no known format or cannot be read.
    """
    path = user_path(source)
    if annotation is None and (is_digits(source) or not path.exists() or not recognise(path)):
        annotation = "labels"
    found = read_source(source, annotation, words)
    kind = annotation or ("maps" if isinstance(found, MaskSource) else "boxes")
    held = None if val is None else given_val(found, kind, val, path, words)
    if isinstance(found, MemorySource):
        return _memory_report(found, val), None
    if held is not None:
        found = found.joined(held.moved(found.root))
    root, names = found.root, list(dict.fromkeys(record.name for record in found.records))
    with ThreadPoolExecutor(2) as pool:
        facts = dict(zip(names, pool.map(lambda name: examine_file(root, name), names), strict=True))
        masked = sorted({record.mask for record in found.records if isinstance(record, MaskRecord) and record.mask})
        masks = dict(zip(masked, pool.map(lambda name: examine_mask(root / name), masked), strict=True))
    findings = [*found.findings, *_unreadable((fact.name, fact.error) for fact in facts.values())]
    findings += _oddities(facts.values())
    entries = [_Entry(part or "train", record.label if isinstance(record, LabelRecord) else "", record.name)
               for part, records in found.parts.items() for record in records]  # fmt: skip
    readable = {entry for entry in entries if facts[entry.name].header is not None}
    findings += _duplicates((facts[entry.name].digest, entry) for entry in entries if entry in readable)
    if isinstance(found, LabelSource):
        findings += _balance(entries, readable)
        return _report(str(source), findings, _label_stats(entries) | _image_stats(facts.values())), None
    stats: Json = {
        "images": sum(found.sizes.values()), "num_classes": len(found.classes),
        "splits": {part or "all": count for part, count in found.sizes.items()}, "format": found.format,
    }  # fmt: skip
    data = Examined(found, facts, masks)
    if isinstance(found, MaskSource):
        stats |= _mask_report(data, found, findings)
    else:
        stats |= _object_report(data, found, findings, words)
    return _report(str(source), findings, stats | _image_stats(facts.values())), data


def _unreadable(errors: Iterable[tuple[str, UnreadableImage | None]]) -> list[Finding]:
    """Findings about files, by name, that cannot be read."""
    kinds = {"missing": "missing-file", "permission": "no-permission", "empty": "empty-file"}
    return [
        finding(kinds.get(error.kind, error.kind), (name,), f"{name}: {error.reason}")
        for name, error in errors
        if error
    ]


def _duplicates(images: Iterable[tuple[bytes, _Entry]]) -> list[Finding]:
    """Findings about images, by the digest of their pixels, that are there several times."""
    groups: dict[bytes, list[_Entry]] = defaultdict(list)
    for digest, entry in images:
        groups[digest].append(entry)
    findings = []
    for group in groups.values():
        paths = tuple(entry.name for entry in group)
        labels, parts = (sorted(set(values)) for values in ([e.label for e in group], [e.part for e in group]))
        shown = ", ".join(paths[:3])
        if len(labels) > 1:
            message = f"the same picture stands in the classes {', '.join(labels)}: {shown}"
            findings.append(finding("contradictory-labels", paths, message))
        if len(parts) > 1:
            findings.append(finding("overlap", paths, f"the same picture is in {' and '.join(parts)}: {shown}"))
        if len(labels) == len(parts) == 1 < len(group):
            findings.append(finding("duplicate", paths, f"{len(group)} files with the same picture: {shown}"))
    return findings


def _oddities(facts: Iterable[Facts]) -> list[Finding]:
    """Findings about formats, colours, orientation and size: one for each kind, with all its files."""
    images = [(fact.name, fact.header, min(fact.header.size)) for fact in facts if fact.header is not None]
    files: dict[str, list[str]] = defaultdict(list)
    usual = median(side for _, _, side in images) if images else 0
    for name, header, side in images:
        promised, real = EXTENSIONS.get(ending(name)), header.format
        if promised is not None and promised != ("JPEG" if real == "MPO" else real):
            files["wrong-extension"].append(name)
        if header.mode.startswith("I") or header.mode == "F":
            files["sixteen-bit"].append(name)
        elif header.mode in ("P", "PA"):
            files["palette"].append(name)
        elif header.mode in ("CMYK", "YCbCr", "LAB", "HSV") and real != "JPEG2000":
            files["cmyk"].append(name)
        if header.mode in ("1", "L", "LA"):
            files["grey"].append(name)
        if header.transparency:
            files["transparency"].append(name)
        if header.orientation not in (0, 1):
            files["exif-rotation"].append(name)
        if side < min(8, usual):
            files["tiny"].append(name)
        if header.size[0] * header.size[1] > _HUGE_PIXELS:
            files["huge"].append(name)
    if len(files["grey"]) == len(images):
        del files["grey"]
    return [
        finding(kind, names, f"{number_of(len(names), 'file', 'files')} {KINDS[kind]['message']}")
        for kind, names in files.items() if names
    ]  # fmt: skip


def _balance(entries: list[_Entry], readable: set[_Entry]) -> list[Finding]:
    """Findings about the classes: too few of them, differences between splits, imbalance."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in entries:
        counts[entry.part][entry.label] += entry in readable
    train = counts["train"]
    findings = []
    if gone := sorted(label for label, count in train.items() if count == 0):
        findings.append(finding("empty-class", gone, f"no readable training image in {', '.join(gone)}"))
    present = {label: count for label, count in train.items() if count}
    if len(present) == 1:
        findings.append(finding("single-class", (), f"all training images are of one class, {next(iter(present))}"))
    for part in ("val", "test"):
        if part not in counts:
            continue
        if unknown := sorted(counts[part].keys() - train.keys()):
            message = f"{part} has classes that training lacks: {', '.join(unknown[:SHOWN])}"
            findings.append(finding("unknown-class", unknown, message))
        if lacking := sorted(label for label in present if not counts[part][label]):
            findings.append(finding("class-missing", lacking, f"{part} has no images of {', '.join(lacking[:SHOWN])}"))
    if present and max(present.values()) >= _IMBALANCE * min(present.values()):
        few, many = min(present, key=present.__getitem__), max(present, key=present.__getitem__)
        message = f"{many} has {present[many]} training images, {few} only {present[few]}"
        findings.append(finding("imbalance", (), message))
    return findings


def _memory_report(found: MemorySource, val: Place | None) -> CheckReport:
    """Data sets in memory: their files were checked when they were read; duplicates and balance of labels remain."""
    bundle = make_bundle(found, found.annotation, None, val)
    if found.annotation != "labels":
        sizes = {name: len(split) for name, split in bundle.splits().items()}
        return _report(
            found.name, [], {"images": sum(sizes.values()), "num_classes": len(found.classes), "splits": sizes}
        )
    images = []
    for name, split in bundle.splits().items():
        for index, label in enumerate(split.labels):
            digest = hashlib.blake2b(split.read(index).tobytes(), digest_size=16).digest()
            images.append((digest, _Entry(name, bundle.classes[label], split.id(index))))
    entries = [entry for _, entry in images]
    return _report(found.name, _duplicates(images) + _balance(entries, set(entries)), _label_stats(entries))


def _label_stats(entries: list[_Entry]) -> Json:
    classes: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in entries:
        classes[entry.part][entry.label] += 1
    return {
        "images": len(entries),
        "num_classes": len({entry.label for entry in entries}),
        "splits": {part: counter.total() for part, counter in classes.items()},
        "classes": {part: dict(sorted(counter.items())) for part, counter in classes.items()},
    }


def _image_stats(facts: Collection[Facts]) -> Json:
    """Figures of the files: how many can be read, bytes, formats, modes, sizes; {} without files."""
    good = [fact.header for fact in facts if fact.header is not None]
    stats: Json = {}
    if facts:
        stats["readable"] = len(good)
        stats["bytes"] = sum(fact.size for fact in facts)
        stats["formats"] = dict(Counter(header.format for header in good).most_common())
        stats["modes"] = dict(Counter(header.mode for header in good).most_common())
    if good:
        for name, values in zip(("width", "height"), zip(*(header.size for header in good), strict=True), strict=True):
            stats[name] = {"min": min(values), "median": median(values), "max": max(values)}
    return stats


def _object_report(data: Examined, source: ObjectSource, findings: list[Finding], words: Words) -> Json:
    sides: list[float] = []
    counts: dict[str, Counter[str]] = {}
    empty: dict[str, list[str]] = {}
    crowds = 0
    for part, records in source.parts.items():
        counted, lacking = counts.setdefault(part or "all", Counter()), empty.setdefault(part or "all", [])
        for record in records:
            real, stated = data.size(record.name), record.size
            if real is not None and stated is not None and real != stated:
                sizes = f"{stated[0]} x {stated[1]} pixels, the image has {real[0]} x {real[1]}"
                message = f"{record.name}: the annotations say {sizes}"
                findings.append(finding("wrong-size", (record.name,), message))
            good = _check_objects(record, real or stated, source, findings, words)
            counted.update(label for label, _, _ in good)
            crowds += sum(crowd for _, _, crowd in good)
            sides += [side for _, side, _ in good]
            if not good:
                lacking.append(record.name)
    findings += _class_findings(counts, source.classes, "objects")
    if names := [name for lacking in empty.values() for name in lacking]:
        severity, remedy = ("error", "add objects") if len(names) == len(source.records) else ("", "")
        message = f"{number_of(len(names), 'image', 'images')} without objects"
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
        message = f"{record.name}: {len(bare)} of {len(record.objects)} objects have no mask ({', '.join(bare[:3])})"
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


def _class_findings(counts: dict[str, Counter[str]], classes: tuple[str, ...], what: str) -> list[Finding]:
    findings = []
    for part, counter in counts.items():
        lacking = [name for name in classes if not counter[name]]
        if lacking and len(lacking) < len(classes):
            more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
            message = f"{part} has no {what} of {', '.join(lacking[:SHOWN])}{more}"
            if part in ("train", "all"):
                remedy = "add some: the class is not learnt without"
                findings.append(finding("empty-class", lacking, message, severity="warning", remedy=remedy))
            else:
                findings.append(finding("class-missing", lacking, message))
    return findings


def _mask_report(data: Examined, source: MaskSource, findings: list[Finding]) -> Json:
    pixels: dict[str, Counter[str]] = {}
    ignored: dict[str, int] = {}
    for part, records in source.parts.items():
        total = sum((_check_mask(data, source, record, findings) for record in records), np.zeros(256, dtype=np.int64))
        pixels[part or "all"] = Counter({name: int(total[index]) for index, name in enumerate(source.classes)})
        ignored[part or "all"] = int(total[IGNORE])
    findings += _class_findings(pixels, source.classes, "pixels")
    return {"pixels": {part: dict(counter) for part, counter in pixels.items()}, "ignored": ignored}


def _check_mask(data: Examined, source: MaskSource, record: MaskRecord, findings: list[Finding]) -> np.ndarray:
    """Pixels by class, int64 (256,), IGNORE among them; zeros when the mask cannot be used."""
    total = np.zeros(256, dtype=np.int64)
    if record.mask is None:
        findings.append(finding("missing-mask", (record.name,), f"{record.name}: there is no mask for this image"))
        return total
    facts = data.masks[record.mask]
    if isinstance(facts, UnreadableImage):
        findings += _unreadable([(record.mask, facts)])
        return total

    def add(kind: str, what: str, remedy: str = "") -> None:
        findings.append(finding(kind, (str(record.mask),), f"{record.mask}: {what}", remedy=remedy))

    real = data.size(record.name)
    if real is not None and facts.size != real:
        sizes = f"{facts.size[0]} x {facts.size[1]} pixels, its image {record.name} {real[0]} x {real[1]}"
        add("mask-size", f"the mask has {sizes}", remedy="make the mask again at the image's size; --fix leaves it out")
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
