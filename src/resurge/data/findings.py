"""What can be wrong with images, annotations and classes.

`findings.csv` has the severity and the remedy of each kind of finding; what an oddity of files is; and how objects that
are left out of training, or changed in a mended copy, are counted.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from resurge.data.images import UnreadableImage
from resurge.quantities import number_of

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


def without_image(what: str, lost: Sequence[str]) -> list[Finding]:
    """The finding for annotation files that belong to no image; none when there are none."""
    message = f"{number_of(len(lost), what)} without an image: {', '.join(lost[:3])}"
    remedy = f"add the image, or remove the {what.split()[-1]}; it is not used"
    return [finding("missing-file", lost, message, remedy=remedy)] if lost else []


def other_names(found: Mapping[str, str]) -> list[Finding]:
    """The finding for images that are listed under other names than their files have, by those names."""
    if not found:
        return []
    one, other = next(iter(found.items()))
    are = number_of(len(found), "image is", "images are")
    message = f"{are} listed under another name than the file has: {one!r} is {other}"
    return [finding("other-name", found.values(), message)]


def some(names: Iterable[str], limit: int = SHOWN) -> str:
    """The first names, each once, and … when there are more."""
    shown = list(dict.fromkeys(names))
    return f"{', '.join(shown[:limit])}{', …' if len(shown) > limit else ''}"


def unreadable(errors: Iterable[tuple[str, UnreadableImage | None]]) -> list[Finding]:
    """Findings about files, by name, that cannot be read."""
    kinds = {"missing": "missing-file", "permission": "no-permission", "empty": "empty-file"}
    return [
        finding(kinds.get(error.kind, error.kind), (name,), f"{name}: {error.reason}")
        for name, error in errors
        if error
    ]


def class_findings(counts: dict[str, Counter[str]], classes: tuple[str, ...], what: str) -> list[Finding]:
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
