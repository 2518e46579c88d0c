"""What can be wrong with images and classes, and reading the images to find it.

`findings.csv` has the severity and the remedy of each kind of finding; what an oddity of files is; and how objects that
are left out of training, or changed in a mended copy, are counted.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

from resurge.data.images import EXTENSIONS, ImageHeader, UnreadableImage, decode, ending, read_bytes

_HUGE_PIXELS = 50_000_000
_IMBALANCE = 10
SHOWN = 5

with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as _file:
    KINDS = {row["kind"]: row for row in csv.DictReader(_file)}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    kind: in a word. severity: "error" spoils training or its figures, or is a file that is skipped; "warning" may;
    "info" is handled. paths: the files concerned, below the data folder; may be none. message: a sentence. remedy:
    what to do. stop: with which message training refuses the data; empty when it goes on.
    """

    kind: str
    severity: str
    paths: tuple[str, ...]
    message: str
    remedy: str
    stop: str = ""


def finding(
    kind: str, paths: Iterable[str], message: str, severity: str = "", remedy: str = "", stop: str = ""
) -> Finding:
    """A finding with the severity and remedy of its kind, unless others are given."""
    known = KINDS[kind]
    return Finding(kind, severity or known["severity"], tuple(paths), message, remedy or known["remedy"], stop)


def broken_annotations(name: str, error: Exception) -> Finding:
    """The finding for an annotation file that cannot be read."""
    return finding("broken-annotations", (name,), str(error), stop=str(error))


def without_image(what: str, lost: Sequence[str], remedy: str) -> list[Finding]:
    """The finding for annotation files that belong to no image; none when there are none."""
    message = f"{number_of(len(lost), what, what + 's')} without an image: {', '.join(lost[:3])}"
    return [finding("missing-file", lost, message, remedy=remedy)] if lost else []


class Entry(NamedTuple):
    """An image in a part of the data; `label` is "" where images have no one class."""

    part: str
    label: str
    name: str


@dataclass(frozen=True)
class Facts:
    """What reading an image file gave: its size in bytes, a header and a digest of its pixels, or the error."""

    name: str
    size: int
    header: ImageHeader | None = None
    digest: bytes = b""
    error: UnreadableImage | None = None


def examine_file(root: Path, name: str) -> Facts:
    """Decode an image: its header and a digest of its pixels, or why it cannot be read."""
    size = 0
    try:
        data = read_bytes(root / name)
        size = len(data)
        header, image = decode(data, name)
    except UnreadableImage as error:
        return Facts(name, size, error=error)
    digest = hashlib.blake2b(repr((image.mode, image.size)).encode(), digest_size=16)
    digest.update(image.tobytes())
    return Facts(name, size, header, digest.digest())


def some(names: Iterable[str], limit: int = SHOWN) -> str:
    """The first names, each once, and … when there are more."""
    shown = list(dict.fromkeys(names))
    return f"{', '.join(shown[:limit])}{', …' if len(shown) > limit else ''}"


def number_of(count: int, one: str, many: str) -> str:
    """ "1 image is", "3 images are"."""
    return f"{count} {one if count == 1 else many}"


def unreadable(errors: Iterable[tuple[str, UnreadableImage | None]]) -> list[Finding]:
    """Findings about files, by name, that cannot be read."""
    kinds = {"missing": "missing-file", "permission": "no-permission", "empty": "empty-file"}
    return [
        finding(kinds.get(error.kind, error.kind), (name,), f"{name}: {error.reason}")
        for name, error in errors
        if error
    ]


def duplicates(images: Iterable[tuple[bytes, Entry]]) -> list[Finding]:
    """Findings about images, by the digest of their pixels, that are there several times."""
    groups: dict[bytes, list[Entry]] = defaultdict(list)
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


def oddities(facts: Iterable[Facts]) -> list[Finding]:
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


def balance(entries: list[Entry], readable: set[Entry]) -> list[Finding]:
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
