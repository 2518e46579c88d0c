"""A data set as its annotations have it, and its parts as training takes them: what all kinds of `Source` share.

Training is fed from `Source.part`, which leaves out what cannot be used and says so; `checks` reports the same records.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from resurge.data.annotations import Annotation, Words
from resurge.data.class_names import given_classes, new_names
from resurge.data.coding import Known
from resurge.data.findings import KINDS, Finding, finding, other_names, some
from resurge.data.paths import below, found_names, leads_out
from resurge.data.reading import Reading
from resurge.data.records import LabelRecord, MaskRecord, Record
from resurge.data.splits import MaskSplit, ObjectSplit, Split
from resurge.errors import UserError, suggest
from resurge.files import Json
from resurge.quantities import number_of

AnnotatedSplit = Split | ObjectSplit | MaskSplit
Part = tuple[AnnotatedSplit, list[str]]
"""A part of a data set, and notes on what was left out of it."""

AnyRecord = TypeVar("AnyRecord", bound=LabelRecord | MaskRecord | Record)


@dataclass(frozen=True, kw_only=True)
class Source(ABC, Generic[AnyRecord]):
    """A data set as its annotations have it."""

    format: str  # the name of the format
    root: Path  # the folder that the names of images are relative to
    classes: tuple[str, ...]  # in the order of their indices
    parts: dict[str, tuple[AnyRecord, ...]]  # train, val and test, or "" for what is not split
    how: str  # where the parts come from
    findings: tuple[Finding, ...] = ()  # about annotation files, not about single images or objects
    unused: tuple[str, ...] = ()  # subfolders that training does not look at
    title: str = ""  # what the data set is called; the folder's name when empty
    elsewhere: tuple[Path, ...] = ()  # folders with images that its description names, beside `root`
    named: bool = True  # whether the annotations name the classes, rather than number them

    @property
    def name(self) -> str:
        return self.title or self.root.resolve().name

    @property
    def sizes(self) -> dict[str, int]:
        """Number of images by part."""
        return {part: len(records) for part, records in self.parts.items()}

    @property
    def records(self) -> tuple[AnyRecord, ...]:
        """Those of all parts."""
        return tuple(record for records in self.parts.values() for record in records)

    @abstractmethod
    def part(self, name: str, classes: Sequence[str], annotation: Annotation) -> Part:
        """The images of a part with labels that are indices into `classes`. Raises UserError when there is a class that
        `classes` lacks, or no image is left."""

    def classes_of(self, part: str) -> tuple[str, ...]:
        """Class names of a part that is looked at by itself, without a trained network."""
        return self.classes

    def default_size(self, side: int | None) -> int:
        """Side of the network's input for images with this median of their shorter sides."""
        return min(side or 800, 800)  # shorter side, of Lin et al. 2017 (arXiv:1612.03144)

    def located(self: AnySource) -> AnySource:
        """The data set with the names that the files of its images have, where the annotations have others."""
        renamed = found_names(self.root, (record.name for record in self.records))
        if not renamed:
            return self
        parts = {
            part: tuple(replace(record, name=renamed.get(record.name, record.name)) for record in records)
            for part, records in self.parts.items()
        }
        return replace(self, parts=parts, findings=(*self.findings, *other_names(renamed)))

    def with_classes(self: AnySource, reading: Reading, known: Known | None, words: Words) -> AnySource:
        """The data set with the classes that the user, or a trained network, has for it. Raises UserError when they do
        not fit."""
        # Data of a run that names its classes is matched by these names; the run's own list has them already renamed.
        given = None if known is not None and self.named else given_classes(reading.classes)
        names = self.classes if given is None else given.names
        if given is None and known is not None and not self.named:
            names = known.classes
        lacking = [name for name in self.classes if name not in names]
        if self.named and lacking:
            raise UserError(
                f"--classes leaves out {some(map(repr, lacking))} of {self.name}.{suggest(lacking[0], names)} List "
                "every class of the data; --rename old=new calls one otherwise."
            )
        if len(names) < len(self.classes):
            raise UserError(
                f"{self.name} has {len(self.classes)} classes, {', '.join(self.classes[:6])}, but --classes or the "
                f"network names {len(names)}: {', '.join(names[:6])}. Name all of them."
            )
        renamed = new_names(names, reading.new_names, strict=known is None)
        final = {was: renamed[was if self.named else name] for was, name in zip(self.classes, names, strict=False)}
        classes = tuple(dict.fromkeys(renamed.values()))
        changed = classes != self.classes or any(was != now for was, now in final.items())
        found = self._renamed(final, classes) if changed else self
        if self.named or given is not None or known is not None:
            return found
        return replace(
            found, how=f"{self.how}; classes without names are called {some(classes)} (--classes names them)"
        )

    def _renamed(self: AnySource, names: Mapping[str, str], classes: tuple[str, ...]) -> AnySource:
        """The data set whose classes are called otherwise in all records."""
        parts = {part: tuple(_relabelled(each, names) for each in records) for part, records in self.parts.items()}
        return replace(self, classes=classes, parts=parts)

    @property
    def values(self) -> Json | None:
        """The class of each value in masks, by its name; None where there are no masks of values."""
        return None

    def reviewed(self: AnySource, reading: Reading) -> AnySource:
        """The data set as training takes it: read as the user wants, and compared with its pictures. What was changed,
        and what cannot be used, is among its findings."""
        return self

    def require_sound(self) -> None:
        """Raises UserError when training must refuse the data."""
        for found in self.findings:
            if found.stop:
                raise UserError(found.stop)

    def kept_inside(self: AnySource) -> AnySource:
        """With a finding when annotations name images or masks outside the data folder: data of somebody else must not
        make a training read, and a report show, other files of this machine. A table of paths that the user wrote may
        name files anywhere, as `split.csv` of a run does."""
        strays = [
            f"{record.source.name if isinstance(record, Record) and record.source else self.name}: {name}"
            for record in self.records
            for name in ((record.name, record.mask or "") if isinstance(record, MaskRecord) else (record.name,))
            if not isinstance(record, LabelRecord) and leads_out(name, self.root, *self.elsewhere)
        ]
        if not strays:
            return self
        message = f"{number_of(len(strays), 'file')} outside {self.root}, the first: {strays[0]}"
        stop = f"{self.name} names {message}. {KINDS['outside']['remedy'].capitalize()}."
        return replace(self, findings=(*self.findings, finding("outside", strays, message, stop=stop)))

    @property
    def notes(self) -> list[str]:
        """What training has to say about the reading of the annotations, a sentence for each finding."""
        return [
            f"{found.message}: {found.remedy.removeprefix('nothing: ')}"
            for found in self.findings
            if found.severity != "info" or found.kind == "unlisted"
        ]

    def validation(self: AnySource) -> AnySource:
        """The data set that only has the part "val": what it calls validation, or all of it."""
        return replace(self, parts={"val": self.parts.get("val") or self.records})

    def moved(self: AnySource, root: Path) -> AnySource:
        """The data set with names relative to another folder, or absolute where they are not below it."""
        parts = {part: tuple(self._move(each, root) for each in records) for part, records in self.parts.items()}
        return replace(self, root=root, parts=parts)

    def _move(self, record: AnyRecord, root: Path) -> AnyRecord:
        return replace(record, name=below(root, self.root / record.name))

    def joined(self: AnySource, other: Source[Any]) -> AnySource:
        """The data set with the parts of another of its kind, which has the same root."""
        return replace(self, parts=self.parts | other.parts, findings=(*self.findings, *other.findings))


AnySource = TypeVar("AnySource", bound="Source[Any]")


def _relabelled(record: AnyRecord, names: Mapping[str, str]) -> AnyRecord:
    if isinstance(record, LabelRecord):
        return replace(record, label=names.get(record.label, record.label))
    if isinstance(record, Record):
        things = tuple(replace(thing, label=names.get(thing.label, thing.label)) for thing in record.objects)
        return replace(record, objects=things)
    return record


def unknown_class(where: str, label: str, classes: Sequence[str], remedy: str = "") -> UserError:
    """The error for a class that training does not have."""
    remedy = remedy or "Rename or remove it, or add training images of it."
    return UserError(
        f"{where}: the class {label!r} is not one of training's ({some(classes, 6)}).{suggest(label, classes)} {remedy}"
    )


def moved_labels(where: str, labels: Sequence[str], classes: Sequence[str], remedy: str = "") -> list[int]:
    """The indices of `labels` in `classes`. Raises UserError when one is not there."""
    for label in labels:
        if label not in classes:
            raise unknown_class(where, label, classes, remedy)
    return [classes.index(label) for label in labels]


def left_out(names: Sequence[str], one: str, many: str) -> list[str]:
    """A note on what was left out; none when there is nothing."""
    return [f"{number_of(len(names), one, many)} left out: {some(names, 3)}"] if names else []
