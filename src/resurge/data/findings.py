"""What can be wrong with images and classes, and reading the images to find it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

from resurge.data.images import EXTENSIONS, ImageHeader, UnreadableImage, decode, ending, read_bytes

_HUGE_PIXELS = 50_000_000
_IMBALANCE = 10
SHOWN = 5


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


def examine_file(root: Path, name: str, max_pixels: int) -> Facts:
    """Decode an image: its header and a digest of its pixels, or why it cannot be read."""
    size = 0
    try:
        data = read_bytes(root / name)
        size = len(data)
        header, image = decode(data, name, max_pixels)
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


_UNREADABLE = {
    "missing": ("missing-file", "correct the path, or remove the entry"),
    "permission": ("no-permission", "allow reading (chmod +r), or remove the file"),
    "empty": ("empty-file", "copy the file again, or remove it; training skips it"),
    "not-an-image": ("not-an-image", "remove the file or replace it by the image it should be; training skips it"),
    "truncated": ("truncated", "copy or download the file again, or remove it; training skips it"),
    "too-large": ("too-large", "save it smaller, or raise max_pixels if you trust it; training skips it"),
    "corrupt": ("corrupt", "copy or download the file again, or remove it; training skips it"),
}


def unreadable(facts: Iterable[Facts]) -> list[Finding]:
    findings = []
    for fact in facts:
        if fact.error is not None:
            kind, remedy = _UNREADABLE[fact.error.kind]
            name = fact.name
            reason = str(fact.error).removeprefix(f"{fact.error.name}: ")
            findings.append(Finding(kind, "error", (name,), f"{name}: {reason}", remedy))
    return findings


def duplicates(images: Iterable[tuple[bytes, Entry]]) -> list[Finding]:
    groups: dict[bytes, list[Entry]] = defaultdict(list)
    for digest, entry in images:
        groups[digest].append(entry)
    findings = []
    for group in groups.values():
        if len(group) < 2:
            continue
        paths = tuple(entry.name for entry in group)
        labels = sorted({entry.label for entry in group})
        splits = sorted({entry.part for entry in group})
        if len(labels) > 1:
            message = f"the same picture stands in the classes {', '.join(labels)}: {', '.join(paths[:3])}"
            remedy = "decide which class is right and remove the other copies"
            findings.append(Finding("contradictory-labels", "error", paths, message, remedy))
        if len(splits) > 1:
            message = f"the same picture is in {' and '.join(splits)}: {', '.join(paths[:3])}"
            remedy = "keep it in one split only; what is measured on pictures seen in training says too much"
            findings.append(Finding("overlap", "error", paths, message, remedy))
        if len(labels) == len(splits) == 1:
            message = f"{len(group)} files with the same picture: {', '.join(paths[:3])}"
            remedy = "keep one of them; copies weigh more in training, and a random split puts them on both sides"
            findings.append(Finding("duplicate", "warning", paths, message, remedy))
    return findings


def oddities(facts: Iterable[Facts]) -> list[Finding]:
    """Findings about formats, colours, orientation and size: one for each kind, with all its files."""
    images = [(fact.name, fact.header) for fact in facts if fact.header is not None]
    if not images:
        return []
    files: dict[str, list[str]] = defaultdict(list)
    grey: list[str] = []
    shorter = [min(header.size) for _, header in images]
    usual = median(shorter)
    for (name, header), side in zip(images, shorter, strict=True):
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
            grey.append(name)
        if header.transparency:
            files["transparency"].append(name)
        if header.orientation not in (0, 1):
            files["exif-rotation"].append(name)
        if side < min(8, usual):
            files["tiny"].append(name)
        if header.size[0] * header.size[1] > _HUGE_PIXELS:
            files["huge"].append(name)
    if 0 < len(grey) < len(images):
        files["grey"] = grey
    return [
        Finding(kind, severity, tuple(files[kind]), f"{number_of(len(files[kind]), 'file', 'files')} {message}", remedy)
        for kind, (severity, message, remedy) in _ODD.items() if files[kind]
    ]  # fmt: skip


_ODD = {
    "wrong-extension": ("warning", "with a name that promises another format than the content has",
                        "rename to the real format; reading goes by the content and works"),
    "sixteen-bit": ("warning", "with more than 8 bits a pixel",
                    "nothing if the values use the whole range; else rescale them to 8 bits yourself"),
    "cmyk": ("warning", "in printing or video colours (CMYK and the like)",
             "save as RGB with a colour profile if colours matter; they are converted without one"),
    "tiny": ("warning", "far smaller than the others (a side below 8 pixels)",
             "remove what cannot be recognised; such an image is enlarged to a blur"),
    "huge": ("warning", f"with more than {_HUGE_PIXELS // 1_000_000} million pixels",
             "save smaller: decoding them slows training down"),
    "palette": ("info", "with a colour palette", "nothing: converted to RGB"),
    "transparency": ("info", "with transparency", "nothing: laid over white; flatten them yourself for another colour"),
    "exif-rotation": ("info", "turned by their EXIF orientation",
                      "nothing: turned upright when read; other programs may show them lying"),
    "grey": ("info", "that are grey among coloured ones",
             "nothing: converted to RGB; see that grey does not give a class away"),
}  # fmt: skip


def balance(entries: list[Entry], readable: set[Entry]) -> list[Finding]:
    """Findings about the classes: too few of them, differences between splits, imbalance."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in entries:
        counts[entry.part][entry.label] += entry in readable
    train = counts["train"]
    findings = []
    gone = tuple(sorted(label for label, count in train.items() if count == 0))
    if gone:
        message = f"no readable training image in {', '.join(gone)}"
        remedy = "put readable images there, or remove the class"
        findings.append(Finding("empty-class", "error", gone, message, remedy))
    present = {label: count for label, count in train.items() if count}
    if len(present) == 1:
        message = f"all training images are of one class, {next(iter(present))}"
        findings.append(Finding("single-class", "error", (), message, "add at least one other class"))
    for split in ("val", "test"):
        if split not in counts:
            continue
        unknown = tuple(sorted(counts[split].keys() - train.keys()))
        if unknown:
            message = f"{split} has classes that training lacks: {', '.join(unknown[:SHOWN])}"
            remedy = "rename or remove them, or add training images"
            findings.append(Finding("unknown-class", "error", unknown, message, remedy))
        lacking = tuple(sorted(label for label in present if not counts[split][label]))
        if lacking:
            message = f"{split} has no images of {', '.join(lacking[:SHOWN])}"
            findings.append(
                Finding("class-missing", "warning", lacking, message, "add some: the class is not measured without")
            )
    if present and max(present.values()) >= _IMBALANCE * min(present.values()):
        few, many = min(present, key=present.__getitem__), max(present, key=present.__getitem__)
        message = f"{many} has {present[many]} training images, {few} only {present[few]}"
        remedy = "collect more of the rare classes, or train with class weights or balanced sampling"
        findings.append(Finding("imbalance", "warning", (), message, remedy))
    return findings


def broken_annotations(name: str, error: Exception) -> Finding:
    """The finding for an annotation file that cannot be read."""
    remedy = "copy or download the file again; training refuses it as it is, and --fix goes on without it"
    return Finding("broken-annotations", "error", (name,), str(error), remedy, stop=str(error))
