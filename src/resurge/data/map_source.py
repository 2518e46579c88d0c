"""Data sets of images with label maps: their classes, and which of them training takes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from resurge.data.annotations import Annotation, Words
from resurge.data.class_names import ClassTable, given_classes, new_names
from resurge.data.coding import (
    UNKNOWN,
    Coding,
    Known,
    MaskFacts,
    examine_mask,
    find_coding,
    look_like_ids,
)
from resurge.data.findings import Finding, finding, some
from resurge.data.fit import Fit
from resurge.data.images import UnreadableImage, read_mask
from resurge.data.map_fit import fitted
from resurge.data.paths import below, present
from resurge.data.reading import Reading
from resurge.data.records import MaskRecord
from resurge.data.source import Part, Source, left_out, moved_labels
from resurge.data.splits import IGNORE, FileImages, Files, MaskSplit
from resurge.errors import UserError
from resurge.files import Json
from resurge.quantities import number_of


@dataclass(frozen=True, kw_only=True)
class MaskSource(Source[MaskRecord]):
    """Images with label maps.

    table: the classes that the data set itself names. usual: those of a published data set that it looks like, which
    count where its values are of them. facts: what reading the masks gave, by absolute path. coding: what their values
    mean; codings: the same of the parts that have another.
    """

    classes: tuple[str, ...] = ()
    table: ClassTable | None = None
    usual: ClassTable | None = None
    facts: Mapping[str, MaskFacts | UnreadableImage] = field(default_factory=dict, repr=False)
    coding: Coding = Coding({})
    codings: Mapping[str, Coding] = field(default_factory=dict)

    def with_classes(self, reading: Reading, known: Known | None, words: Words) -> MaskSource:
        files = {record.mask: self._file(record) for record in self.records if record.mask}
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            read = list(pool.map(lambda file: examine_mask(Path(file), reading.threshold is not None), files.values()))
        found = replace(self, facts=dict(zip(files.values(), read, strict=True)))
        good = {name: facts for name, facts in zip(files, read, strict=True) if isinstance(facts, MaskFacts)}
        if not good:
            first = next((str(facts) for facts in read if isinstance(facts, UnreadableImage)), "there are none.")
            raise UserError(f"no mask of {self.name} can be read, the first: {first}")
        table, is_known = self._table(reading, known, good)
        if table is None and reading.threshold is None and look_like_ids([self.root / name for name in good]):
            raise UserError(
                f"the masks of {self.name} number the objects of each image from 1 on, one connected region each, so "
                f"their values are no classes. Use {words['masks']} or {words['boxes']}, which read an object for each "
                "value; if they are classes all the same, name them with --classes or in classes.txt."
            )
        classes, coding = find_coding(good, table, reading.threshold, self.name, is_known)
        if not is_known:
            renamed = new_names(classes, reading.new_names, strict=known is None)
            final = tuple(dict.fromkeys(renamed.values()))
            classes, coding = final, coding.moved([final.index(renamed[name]) for name in classes])
        findings = [*self.findings, *_strange(good, coding, table)]
        before = known.coding.indices if is_known and known is not None and known.coding is not None else coding.indices
        if recoded := any(index != IGNORE and value not in before for value, index in coding.indices.items()):
            listed = _listed(coding, classes)
            message = f"the masks of {self.name} have other values than those of the training: {listed}"
            findings.append(finding("other-values", (), message))
        how = _described(coding, classes, table, recoded)
        how = f"{self.how}; {how}" if how else self.how
        return replace(found, classes=classes, coding=coding, how=how, findings=tuple(findings))

    def _table(
        self, reading: Reading, known: Known | None, good: Mapping[str, MaskFacts]
    ) -> tuple[ClassTable | None, bool]:
        """Who says what the classes are, in this order: the user, the data set, the trained network, what the data set
        looks like; and whether it is the network."""
        trained = known is not None and known.coding is not None
        given = given_classes(reading.classes)
        if table := given if given is not None and not trained else (self.table if given is None else None):
            return table, False
        if known is not None:
            return known.table, True
        if self.usual is not None and self.usual.values is not None:
            coding = Coding(self.usual.values)
            if not any((coding.labels(facts.stored) == UNKNOWN).any() for facts in good.values()):
                return self.usual, False
        return None, False

    def _file(self, record: MaskRecord) -> str:
        return str((self.root / (record.mask or "")).absolute())

    def facts_of(self, record: MaskRecord) -> MaskFacts | UnreadableImage:
        """What reading the mask of an image gave."""
        return self.facts[self._file(record)]

    def coding_of(self, part: str) -> Coding:
        return self.codings.get(part, self.coding)

    @property
    def values(self) -> Json:
        return self.coding.to_json(self.classes)

    def _move(self, record: MaskRecord, root: Path) -> MaskRecord:
        mask = None if record.mask is None else below(root, self.root / record.mask)
        return replace(record, name=below(root, self.root / record.name), mask=mask)

    def reviewed(self, reading: Reading) -> MaskSource:
        parts, findings = fitted(self.root, self.parts, reading.exif)
        return replace(self, parts=parts, findings=(*self.findings, *findings))

    def joined(self, other: Source[Any]) -> MaskSource:
        both = super().joined(other)
        if not isinstance(other, MaskSource):
            return both
        coding = other.coding.moved(self._moved(other.classes, self.classes))
        return replace(both, facts={**self.facts, **other.facts}, codings=dict.fromkeys(other.parts, coding))

    def _moved(self, labels: Sequence[str], classes: Sequence[str]) -> list[int]:
        return moved_labels(self.name, labels, classes, "Give both the same classes.txt, or join classes by rename.")

    def part(self, name: str, classes: Sequence[str], annotation: Annotation) -> Part:
        records, coding = self.parts[name], self.coding_of(name)
        if tuple(classes) != self.classes:
            coding = coding.moved(self._moved(self.classes, classes))
        there = present(self.root, [name for record in records for name in (record.name, record.mask) if name])
        both = [record for record in records if record.name in there and record.mask in there]
        broken = [record.name for record in both if isinstance(self.facts.get(self._file(record)), UnreadableImage)]
        kept = [record for record in both if record.name not in broken]
        if not kept:
            missing = f"the first image, {records[0].name}, or its mask is missing" if records else "no image is listed"
            raise UserError(f"{self.name} has no image with a mask ({missing}). Masks are named as their images are.")
        gone = [record.name for record in records if record.name not in there]
        bare = [record.name for record in records if record.name in there and record.mask not in there]
        notes = left_out(gone, "image is not there and", "images are not there and")
        notes += left_out(bare, "image is without a mask and", "images are without a mask and")
        notes += left_out(broken, "image is without a readable mask and", "images are without readable masks and")
        pixels: Counter[int] = Counter()
        for record in kept:
            facts = self.facts.get(self._file(record))
            if isinstance(facts, MaskFacts):
                pixels.update({index: count for _, index, count in facts.coded(coding)})
        lacking = [label for index, label in enumerate(classes) if not pixels[index]]
        if lacking and name in ("", "train"):
            notes.append(f"no training pixel of {some(lacking)}")
        names = tuple(record.name for record in kept)
        fits = tuple(record.fit for record in kept)
        maps = LabelFiles(self.root, tuple(record.mask or "" for record in kept), coding, fits)
        return MaskSplit(names, FileImages(self.root, names), maps), notes


@dataclass(frozen=True)
class LabelFiles(Files):
    """Masks in files, and what their values mean. `fits[i]` says how mask i lies in its image, None where pixel by
    pixel."""

    coding: Coding
    fits: tuple[Fit | None, ...]

    def select(self, indices: Sequence[int]) -> LabelFiles:
        return replace(super().select(indices), fits=tuple(self.fits[i] for i in indices))

    def read(self, index: int) -> np.ndarray:
        """uint8 (H, W): class indices, and IGNORE. Raises UnreadableImage when the file cannot be read as a mask, or
        has a value that means nothing."""
        path = self.path(index)
        labels, fit = self.coding.labels(read_mask(path)), self.fits[index]
        if labels.min(initial=0) == UNKNOWN:
            message = f"has values that are none of {self.coding.known()}. Correct the mask."
            raise UnreadableImage("corrupt", str(path), message)
        result: np.ndarray = labels.astype(np.uint8)
        return result if fit is None else fit.array(result)


def _strange(masks: Mapping[str, MaskFacts], coding: Coding, table: ClassTable | None) -> list[Finding]:
    """The finding about values that mean nothing, with which training stops."""
    counted: Counter[str] = Counter()
    files = []
    for name, facts in masks.items():
        found = {value: count for value, index, count in facts.coded(coding) if index == UNKNOWN}
        counted.update(found)
        files += [name] if found else []
    if not counted:
        return []
    total = sum(int(facts.counts.sum()) for facts in masks.values())
    shown = ", ".join(f"{value} ({count / total:.2%})" for value, count in counted.most_common(5))
    what = "colours" if coding.colours else "class indices"
    where = "the classes" if table is None else Path(table.where).name
    message = (
        f"{number_of(len(files), 'mask has', 'masks have')} {what} that are none of {where} ({coding.known()}): {shown}"
        f"{' and others' if len(counted) > 5 else ''} of all pixels; the first is {files[0]}"
    )
    remedy = "correct the masks, or name them with --classes or in a class file"
    if table is not None and table.values is None and counted.keys() == {str(len(table.names))}:
        remedy += f"; if 0 is the background, name it too: --classes background,{','.join(table.names)}"
    remedy += "" if coding.colours else "; --threshold makes two classes of soft values, --fix has such pixels ignored"
    stop = f"{message}. {remedy[0].upper()}{remedy[1:]}."
    return [finding("index-out-of-range", files, message, remedy=remedy, stop=stop)]


def _described(coding: Coding, classes: Sequence[str], table: ClassTable | None, recoded: bool) -> str:
    """What is worth saying about the coding: where names come from, and values that are not their index."""
    if coding.threshold is not None:
        return f"values from {coding.threshold} on are {classes[1]}, others {classes[0]}"
    of_file = "" if table is None else f"classes of {Path(table.where).name}"
    if all(value == index for value, index in coding.indices.items()) and not recoded:
        return of_file
    return f"{of_file or 'values'}: {_listed(coding, classes)}"


def _listed(coding: Coding, classes: Sequence[str]) -> str:
    return some((f"{coding.shown(value)} {'ignored' if index == IGNORE else classes[index]}"
                 for value, index in coding.indices.items()), 8)  # fmt: skip
