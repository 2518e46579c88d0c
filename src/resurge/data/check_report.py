"""What checking a data set found, as text for a terminal and as JSON."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from resurge.data.annotations import Annotation
from resurge.data.findings import SHOWN, Finding
from resurge.files import Json
from resurge.quantities import number_of

SEVERITIES = ("error", "warning", "info")
_CLASSES = 12


@dataclass(frozen=True)
class CheckReport:
    """All findings, worst first, and figures of the data set.

    notes: what training says about the data beside the findings. refusal: with which message training refuses the data;
    empty when it goes on. annotation: what the data were checked for. purpose: what they were found to be,
    as the end of a sentence; empty when the user said what they are for.
    """

    source: str
    findings: tuple[Finding, ...]
    stats: Json
    notes: tuple[str, ...] = ()
    refusal: str = ""
    annotation: Annotation = "labels"
    purpose: str = ""

    @property
    def ok(self) -> bool:
        """Whether there is no error, and training goes on (there may be warnings)."""
        return not self.refusal and not any(finding.severity == "error" for finding in self.findings)

    def lines(self) -> list[str]:
        """The report for a terminal: figures, then each kind once with its remedy and at most five of its cases."""
        images, classes = self.stats["images"], self.stats["num_classes"]
        lines = [f"{self.source}: {number_of(images, 'image')}, {number_of(classes, 'class', 'classes')}"]
        lines += [f"  {name}: {number_of(count, 'image')}" for name, count in self.stats["splits"].items()]
        lines += [f"  found {self.purpose}"] if self.purpose else []
        lines += self._content()
        by_kind: dict[str, list[Finding]] = defaultdict(list)
        for found in self.findings:
            by_kind[found.kind].append(found)
        for kind, group in by_kind.items():
            files = len({path for found in group for path in found.paths})
            lines.append(f"{group[0].severity}: {kind} ({files or number_of(len(group), 'case')})")
            for found in group[:SHOWN]:
                lines.append(f"    {found.message}")
                lines += [f"      {path}" for path in found.paths if path not in found.message][:SHOWN]
                lines += _more(found.paths, "      ")
            lines += [*_more(group, "    "), f"    remedy: {group[0].remedy}"]
        counted = Counter(found.severity for found in self.findings)
        parts = [f"{counted[name]} {name}{'s' if counted[name] > 1 else ''}" for name in SEVERITIES if counted[name]]
        lines += [f"in training: {note}" for note in self.notes]
        if self.refusal and self.refusal not in {found.stop for found in self.findings}:
            lines.append(f"training refuses this data: {self.refusal}")
        clean = "nothing wrong found" if not self.notes and not self.refusal else "no errors found"
        return [*lines, ", ".join(parts) or (clean if self.ok else "1 error")]

    def _content(self) -> list[str]:
        """What the images hold: objects and the sizes of their boxes, or pixels per class."""
        stats, lines = self.stats, []
        if "objects" in stats:
            crowds = f", {stats['crowds']:,} of them crowds" if stats["crowds"] else ""
            kind = "boxes and masks" if stats["masks"] else "boxes"
            lines.append(f"  {number_of(stats['objects'], 'object')} with {kind}{crowds}")
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
        if coded := stats.get("values"):
            shown = ", ".join(f"{each['value']} = {each['class']} {each['share']:.1%}" for each in coded[:_CLASSES])
            lines.append(f"  values in masks: {shown}{', …' if len(coded) > _CLASSES else ''}")
        return lines

    def to_json(self) -> Json:
        """Plain values: source, annotation, ok, findings, notes, refusal and stats."""
        findings = [{key: value for key, value in vars(each).items() if key != "stop"} for each in self.findings]
        return {"source": self.source, "annotation": self.annotation, "ok": self.ok, "findings": findings,
                "notes": list(self.notes), "refusal": self.refusal, "stats": self.stats}  # fmt: skip


def ranked(
    source: str, findings: list[Finding], stats: Json, notes: Iterable[str] = (), refusal: str = "",
    annotation: Annotation = "labels", purpose: str = "",
) -> CheckReport:  # fmt: skip
    """The report with the worst findings first."""
    order = sorted(findings, key=lambda found: (SEVERITIES.index(found.severity), found.kind, found.paths))
    return CheckReport(source, tuple(order), stats, tuple(notes), refusal, annotation, purpose)


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
