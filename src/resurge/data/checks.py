"""What is wrong with a classification data set, file by file, and what to do about it; and how findings are shown."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from resurge.data import folders, tables
from resurge.data.findings import Entry, Facts, Finding, balance, duplicates, oddities, unreadable
from resurge.data.images import MAX_PIXELS, UnreadableImage, decode, read_bytes
from resurge.data.sources import open_data, recognise

SEVERITIES = ("error", "warning", "info")

_SHOWN = 5
_CLASSES = 12


@dataclass(frozen=True)
class CheckReport:
    """All findings, worst first, and figures of the data set."""

    source: str
    findings: tuple[Finding, ...]
    stats: dict[str, Any]

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
            for finding in group[:_SHOWN]:
                lines.append(f"    {finding.message}")
                shown = [path for path in finding.paths if path not in finding.message][:_SHOWN]
                lines.extend(f"      {path}" for path in shown)
                if len(finding.paths) > _SHOWN:
                    lines.append(f"      and {len(finding.paths) - _SHOWN} more")
            if len(group) > _SHOWN:
                lines.append(f"    and {len(group) - _SHOWN} more")
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

    def to_json(self) -> dict[str, Any]:
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


def check_classification(
    source: str | os.PathLike[str],
    *,
    val: str | os.PathLike[str] | None = None,
    seed: int = 0,
    format: str = "auto",
    max_pixels: int = MAX_PIXELS,
    threads: int = 2,
) -> CheckReport:
    """Read every image of a data set and report what would disturb training or falsify its figures.

    `source`, `val`, `seed` and `format` are those of `sources.open_data`. Nothing is changed on disk.

    Raises:
        UserError: there is nothing to check: the source is missing, empty, or a table that cannot be read.
    """
    kind, _ = recognise(source, format)
    if kind not in ("folder", "csv"):
        return _check_bundle(source, val, seed, format)
    root = folders.user_path(source)
    findings: list[Finding] = []
    if kind == "folder":
        entries = _folder_entries(root, findings)
        if val is not None:
            entries += _val_entries(root, folders.user_path(val), findings)
    else:
        rows = tables.read_table(root, check_files=False)
        entries = [Entry(row.split or "train", row.label, row.path) for row in rows]
        root = root.parent
        if val is not None and str(val) != "test":
            entries += _table_entries(folders.user_path(val))
    with ThreadPoolExecutor(threads) as pool:
        facts = list(pool.map(lambda entry: examine_file(root, entry, max_pixels), entries))
    findings += unreadable(facts)
    good = [fact for fact in facts if fact.header is not None]
    findings += duplicates([(fact.digest, fact.entry) for fact in good])
    findings += oddities([(fact.entry, fact.header) for fact in facts if fact.header is not None])
    findings += balance(entries, {fact.entry for fact in good})
    return CheckReport(str(source), sorted_findings(findings), _stats(entries, facts))


def _folder_entries(root: Path, findings: list[Finding]) -> list[Entry]:
    found = folders.split_folders(root) or {"train": ""}
    entries: list[Entry] = []
    for split, below in found.items():
        entries += _listed(folders.list_classes(root, below), split, findings)
    return entries


def _val_entries(root: Path, val: Path, findings: list[Finding]) -> list[Entry]:
    if val.suffix.lower() in (".csv", ".tsv"):
        return _table_entries(val)
    if len(val.parts) == 1 and (root / val).is_dir():
        return []  # a split folder of the source itself, which is looked at anyway
    listing = folders.list_classes(val.absolute())
    entries = _listed(listing, "val", findings)
    return [Entry(entry.split, entry.label, str(listing.root / entry.name)) for entry in entries]


def _table_entries(val: Path) -> list[Entry]:
    rows = tables.read_table(val, check_files=False)
    return [Entry("val", row.label, str((val.parent / row.path).absolute())) for row in rows]


def _listed(listing: folders.Listing, split: str, findings: list[Finding]) -> list[Entry]:
    empty = tuple(name for name, files in listing.files.items() if not files)
    if empty:
        findings.append(
            Finding("empty-class", "error", empty, f"{split}: no images in the class folder {', '.join(empty)}",
                    "put images there, or remove the folder")
        )  # fmt: skip
    if listing.ignored:
        several = len(listing.ignored) > 1
        what = f"{len(listing.ignored)} files that are no images" if several else "1 file that is no image"
        findings.append(
            Finding("other-file", "info", listing.ignored, f"{split}: {what} of a class",
                    "nothing: they are ignored; move images into the folder of their class")
        )  # fmt: skip
    return [Entry(split, label, name) for label, files in listing.files.items() for name in files]


def examine_file(root: Path, entry: Entry, max_pixels: int = MAX_PIXELS) -> Facts:
    """Decode an image: its header and a digest of its pixels, or why it cannot be read."""
    size = 0
    try:
        data = read_bytes(root / entry.name)
        size = len(data)
        header, image = decode(data, entry.name, max_pixels)
    except UnreadableImage as error:
        return Facts(entry, size, error=error)
    digest = hashlib.blake2b(repr((image.mode, image.size)).encode(), digest_size=16)
    digest.update(image.tobytes())
    return Facts(entry, size, header, digest.digest())


def _check_bundle(
    source: str | os.PathLike[str], val: str | os.PathLike[str] | None, seed: int, format: str
) -> CheckReport:
    """Data sets in memory: their files were checked when they were read; duplicates and balance remain."""
    bundle = open_data(source, val=val, seed=seed, format=format)
    entries: list[Entry] = []
    images: list[tuple[bytes, Entry]] = []
    for name, split in bundle.splits().items():
        for index, label in enumerate(split.labels):
            entry = Entry(name, bundle.classes[label], split.id(index))
            entries.append(entry)
            images.append((hashlib.blake2b(split.read(index).tobytes(), digest_size=16).digest(), entry))
    findings = duplicates(images) + balance(entries, set(entries))
    return CheckReport(bundle.name, sorted_findings(findings), _stats(entries, ()))


def _stats(entries: list[Entry], facts: Iterable[Facts]) -> dict[str, Any]:
    stats: dict[str, Any] = {
        "images": len(entries),
        "num_classes": len({entry.label for entry in entries}),
        "splits": dict(Counter(entry.split for entry in entries)),
        "classes": {
            split: dict(sorted(Counter(entry.label for entry in entries if entry.split == split).items()))
            for split in dict.fromkeys(entry.split for entry in entries)
        },
    }
    return stats | image_stats(facts)


def image_stats(facts: Iterable[Facts]) -> dict[str, Any]:
    """Figures of the files: how many can be read, bytes, formats, modes, sizes; {} without files."""
    facts = list(facts)
    good = [fact.header for fact in facts if fact.header is not None]
    stats: dict[str, Any] = {}
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


def sorted_findings(findings: list[Finding]) -> tuple[Finding, ...]:
    """The worst first."""
    return tuple(sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), f.kind, f.paths)))


def _how_many(group: list[Finding]) -> str:
    files = len({path for finding in group for path in finding.paths})
    return f"{len(group)} case{'s' if len(group) > 1 else ''}" if files == 0 else f"{files}"
