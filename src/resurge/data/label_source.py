"""Data sets of images with one class each: in files, or in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from resurge.data.annotations import Annotation
from resurge.data.paths import present
from resurge.data.records import LabelRecord
from resurge.data.source import AnnotatedSplit, Part, Source, moved_labels, unknown_class
from resurge.data.splits import FileImages, Split
from resurge.errors import UserError


@dataclass(frozen=True, kw_only=True)
class LabelSource(Source[LabelRecord]):
    """Images with one class each. `table` is the CSV file that lists them, None for folders; `part_classes` are the
    classes of each part, those without images included."""

    table: Path | None = None
    part_classes: dict[str, tuple[str, ...]]

    def classes_of(self, part: str) -> tuple[str, ...]:
        return self.part_classes[part]

    def default_size(self, side: int | None) -> int:
        return 224 if side is None or side >= 192 else max(32, side // 32 * 32)

    def validation(self) -> LabelSource:
        # A table that is named for validation counts with all its lines, whatever its split column says; and validation
        # may lack a class.
        found = super().validation() if self.table is None else replace(self, parts={"val": self.records})
        findings = tuple(replace(each, stop="") if each.kind == "empty-class" else each for each in self.findings)
        return replace(found, findings=findings)

    def whole(self) -> LabelSource:
        """The same with all images in the part ""."""
        names = tuple(dict.fromkeys(name for names in self.part_classes.values() for name in names))
        return replace(self, parts={"": self.records}, part_classes={"": names})

    def _renamed(self, names: Mapping[str, str], classes: tuple[str, ...]) -> LabelSource:
        of_parts = {
            part: tuple(dict.fromkeys(names.get(name, name) for name in each))
            for part, each in self.part_classes.items()
        }
        return replace(super()._renamed(names, classes), part_classes=of_parts)

    def part(self, name: str, classes: Sequence[str], annotation: Annotation) -> Part:
        records = self.parts[name]
        index = {name: i for i, name in enumerate(classes)}
        if self.table is not None:
            _require_files(self.root, records, self.table)
        for record in records:
            if record.label not in index:
                where = record.name if self.table is None else f"{self.table}, line {record.line}"
                raise unknown_class(where, record.label, classes)
        if self.table is None:
            records = tuple(sorted(records, key=lambda record: index[record.label]))
        names = tuple(record.name for record in records)
        labels = tuple(index[record.label] for record in records)
        return Split(names, FileImages(self.root, names), labels), []


def _require_files(root: Path, records: Sequence[LabelRecord], table: Path) -> None:
    there = present(root, [record.name for record in records])
    missing = [record for record in records if record.name not in there]
    if missing:
        raise UserError(
            f"{table}, line {missing[0].line}: there is no file {root / missing[0].name} ({len(missing)} of "
            f"{len(records)} listed files are missing). Paths are relative to the folder of the table."
        )


@dataclass(frozen=True, kw_only=True)
class MemorySource(Source[LabelRecord]):
    """A data set in memory, whose files were checked when they were read. `side` is that of the network's input."""

    parts: dict[str, tuple[LabelRecord, ...]] = field(default_factory=dict)
    splits: Mapping[str, AnnotatedSplit]
    annotation: Annotation = "labels"
    side: int

    @property
    def sizes(self) -> dict[str, int]:
        return {name: len(split) for name, split in self.splits.items()}

    def default_size(self, side: int | None) -> int:
        return self.side

    def _renamed(self, names: Mapping[str, str], classes: tuple[str, ...]) -> MemorySource:
        moved = [classes.index(names[name]) for name in self.classes]
        splits = {part: _moved(split, moved, self.title) for part, split in self.splits.items()}
        return replace(self, classes=classes, splits=splits)

    def part(self, name: str, classes: Sequence[str], annotation: Annotation) -> Part:
        split = self.splits[name]
        if tuple(classes) == self.classes:
            return split, []
        if not isinstance(split, Split):
            raise UserError(f"the network was trained on {', '.join(classes[:6])}, …; {self.name!r} has other classes.")
        return _moved(split, moved_labels(self.name, self.classes, classes), self.name), []


def _moved(split: AnnotatedSplit, to: Sequence[int], name: str) -> AnnotatedSplit:
    """The split whose class i is `to[i]`."""
    if isinstance(split, Split):
        return replace(split, labels=tuple(to[label] for label in split.labels))
    if list(to) != list(range(len(to))):
        raise UserError(
            f"the classes of {name!r} can be called otherwise, but not be joined or put into another order."
        )
    return split
