"""What is wrong with a data set, file by file, and what to do about it; and figures of what is in it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import NamedTuple

from resurge.data.annotations import WORDS, Annotation, Words
from resurge.data.bands import OtherBands, is_plain, same_bands
from resurge.data.check_maps import mask_report
from resurge.data.check_objects import object_report
from resurge.data.check_report import CheckReport, ranked
from resurge.data.findings import KINDS, SHOWN, Finding, finding, unreadable
from resurge.data.formats.format import AnySource
from resurge.data.images import EXTENSIONS, ending
from resurge.data.label_source import LabelSource, MemorySource
from resurge.data.map_source import MaskSource
from resurge.data.mending import Examined, Facts, examine_file
from resurge.data.paths import Place, user_path
from resurge.data.preprocessing import usual_values, value_notes
from resurge.data.reading import AS_IT_IS, Reading
from resurge.data.records import LabelRecord
from resurge.data.sources import (
    given_val,
    is_digits,
    make_bundle,
    purposes,
    read_source,
    recognise,
    strange_annotations,
)
from resurge.errors import UserError
from resurge.files import Json
from resurge.quantities import number_of

_HUGE_PIXELS = 50_000_000
_IMBALANCE = 10


class _Entry(NamedTuple):
    """An image in a part of the data; `label` is "" where images have no one class."""

    part: str
    label: str
    name: str


def check_data(
    source: Place,
    *,
    annotation: Annotation | None = None,
    words: Words = WORDS,
    val: Place | None = None,
    reading: Reading = AS_IT_IS,
) -> tuple[CheckReport, Examined | None]:
    """Read everything of a data set and report what would disturb training or falsify its figures.

    Without an `annotation` the folder decides. `source`, `val`, `words` and `reading` are those of `sources.open_data`.
    Nothing is changed on disk. The second value is what `fix.mend` starts from; None for labels and for what is held in
    memory.

    Raises:
        UserError: there is nothing to check: the source is missing, empty, in no known format or cannot be read.
    """
    path, is_guessed = user_path(source), annotation is None
    if annotation is None and (is_digits(source) or not path.exists() or not recognise(path)):
        annotation = "labels"
    try:
        found = read_source(source, annotation, words, reading)
    except UserError as error:
        more = strange_annotations(path) if is_guessed and annotation == "labels" else ""
        raise UserError(f"{error}{more}") from error
    kind = annotation or ("maps" if isinstance(found, MaskSource) else "boxes")
    held = None if val is None else given_val(found, kind, val, path, words, reading)
    notes, refusal = _training(found, kind, held, val)
    purpose, others = purposes(path, found, words) if is_guessed else ("", [])
    if refusal and is_guessed and annotation == "labels":
        refusal += strange_annotations(path)
    training = [*(f"the folder also {other}" for other in others), *notes], refusal, kind, purpose
    if isinstance(found, MemorySource):
        return _memory_report(found, val), None
    if held is not None:
        found = found.joined(held.moved(found.root))
    root, names = found.root, list(dict.fromkeys(record.name for record in found.records))
    with ThreadPoolExecutor(2) as pool:
        facts = dict(zip(names, pool.map(lambda name: examine_file(root, name), names), strict=True))
    findings = [*found.findings, *unreadable((fact.name, fact.error) for fact in facts.values())]
    findings += _oddities(facts.values())
    entries = [_Entry(part or "train", record.label if isinstance(record, LabelRecord) else "", record.name)
               for part, records in found.parts.items() for record in records]  # fmt: skip
    readable = {entry for entry in entries if facts[entry.name].header is not None}
    findings += _duplicates((facts[entry.name].digest, entry) for entry in entries if entry in readable)
    if isinstance(found, LabelSource):
        findings += _balance(entries, readable)
        return ranked(str(source), findings, _label_stats(entries) | _image_stats(facts.values()), *training), None
    stats: Json = {
        "images": sum(found.sizes.values()), "num_classes": len(found.classes),
        "splits": {part or "all": count for part, count in found.sizes.items()}, "format": found.format,
    }  # fmt: skip
    data = Examined(found, facts)
    if isinstance(found, MaskSource):
        stats |= mask_report(data, found, findings)
    else:
        stats |= object_report(data, found, findings, words)
    return ranked(str(source), findings, stats | _image_stats(facts.values()), *training), data


def _training(
    found: AnySource, annotation: Annotation, held: AnySource | None, val: Place | None
) -> tuple[list[str], str]:
    """What training says about the data beside its findings, and with which message it refuses it."""
    try:
        bundle = make_bundle(found, annotation, held, val)
        notes = [*bundle.notes, *value_notes(usual_values(bundle))]
    except UserError as error:
        return [], str(error)
    said = {note for each in (found, held) if each is not None for note in each.notes}
    return [note for note in notes if note not in said], ""


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
            remedy = "" if labels != [""] else "keep one of them, with what is annotated in any of them"
            message = f"{len(group)} files with the same picture: {shown}"
            findings.append(finding("duplicate", paths, message, remedy=remedy))
    return findings


def _oddities(facts: Collection[Facts]) -> list[Finding]:
    """Findings about formats, colours, orientation and size: one for each kind, with all its files."""
    images = [(fact.name, fact.header, min(fact.header.size)) for fact in facts if fact.header is not None]
    several = {fact.name for fact in facts if fact.pages > 1}
    files: dict[str, list[str]] = defaultdict(list)
    usual = median(side for _, _, side in images) if images else 0
    for name, header, side in images:
        promised, real = EXTENSIONS.get(ending(name)), header.format
        if promised is not None and promised != ("JPEG" if real == "MPO" else real):
            files["wrong-extension"].append(name)
        if header.depth != "8-bit":
            files["sixteen-bit"].append(name)
        elif not is_plain(header.bands, header.depth):
            files["many-bands"].append(name)
        elif header.mode in ("P", "PA"):
            files["palette"].append(name)
        elif header.mode in ("CMYK", "YCbCr", "LAB", "HSV") and real != "JPEG2000":
            files["cmyk"].append(name)
        if header.mode in ("1", "L", "LA") and header.depth == "8-bit":
            files["grey"].append(name)
        if name in several:
            files["pages"].append(name)
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
    found = [
        finding(kind, names, f"{number_of(len(names), 'file')} {KINDS[kind]['message']}")
        for kind, names in files.items() if names
    ]  # fmt: skip
    found_bands = {name: (header.bands, header.depth) for name, header, _ in images}
    try:
        same_bands(found_bands)
    except OtherBands as error:
        kinds = {name: None if is_plain(*kind) else kind for name, kind in found_bands.items()}
        (usual_kind, _), *_ = Counter(kinds.values()).most_common(1)
        others = [name for name, kind in kinds.items() if kind != usual_kind]
        found.append(finding("mixed-bands", others, str(error), stop=str(error)))
    return found


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
        return ranked(
            found.name, [], {"images": sum(sizes.values()), "num_classes": len(found.classes), "splits": sizes}
        )
    images = []
    for name, split in bundle.splits().items():
        for index, label in enumerate(split.labels):
            digest = hashlib.blake2b(split.read(index).tobytes(), digest_size=16).digest()
            images.append((digest, _Entry(name, bundle.classes[label], split.id(index))))
    entries = [entry for _, entry in images]
    return ranked(found.name, _duplicates(images) + _balance(entries, set(entries)), _label_stats(entries))


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
