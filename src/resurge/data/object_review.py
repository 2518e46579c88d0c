"""Objects as training takes them: compared with the pictures they lie in, and with each other.

What is changed on the way, and what cannot be used, becomes a finding. Nothing here depends on the format.
"""

from __future__ import annotations

import math
import posixpath
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from resurge.data.conventions import FEWEST, inside, questioned
from resurge.data.findings import SHOWN, Finding, finding, some
from resurge.data.fit import Fit, Sights, Size, find_fit, is_turned, sizes_differ
from resurge.data.images import ImageHeader
from resurge.data.pictures import read_headers
from resurge.data.records import Fault, RawObject, Record
from resurge.data.regions import Box, Polygons, RunLengths
from resurge.quantities import number_of

Parts = dict[str, tuple[Record, ...]]

BEYOND = 1.5
"""Pixels that a box may stand out of its image without a word: rounding, and VOC's counting from 1 taken for 0."""
_MANY_CROWDS = 0.1  # of all objects; COCO has 0.012


def review(root: Path, parts: Parts, way: str, exif: str | None) -> tuple[Parts, list[Finding]]:
    """The records of each part as training takes them, and what there is to say. `way`: what the numbers of a box are
    in the files, as in `conventions.WAYS`; `exif`: as in `Reading`."""
    headers = read_headers(root, (record.name for records in parts.values() for record in records))
    sights = Sights("objects", exif)
    findings: list[Finding] = []
    found: Parts = {}
    frames = {part: [_frame(record, headers.get(record.name), exif) for record in records]
              for part, records in parts.items()}  # fmt: skip
    asked = {part: questioned(records, frames[part], way) for part, records in parts.items()}
    # A part may fit its pictures either way; it is written as the part that does not.
    others = {name for _, _, name in asked.values() if name}
    for part, records in parts.items():
        found[part], strange, name = asked[part]
        if len(others) == 1 and not name:
            found[part], strange, _ = questioned(records, frames[part], way, *others)
        if not strange:
            found[part], strange = _with_their_sizes(found[part], headers)
        findings += strange
    turned = {name: header for name, header in headers.items() if is_turned(header)}
    exif = sights.settled(_fit(record, turned[record.name], None) for records in found.values() for record in records
                          if record.name in turned)  # fmt: skip
    for part, records in found.items():
        placed = [_placed(record, headers.get(record.name), exif, sights, findings) for record in records]
        found[part] = _joined(placed, findings)
    found = _single_objects(found, findings)
    return found, [*findings, *sights.findings(), *_crowds(found), *_below_a_pixel(found)]


def examine(thing: RawObject, size: Size | None) -> tuple[Box | None, Fault | None]:
    """The box to train with, inside the image, or None; and what is wrong with the object, or None."""
    if thing.fault is not None:
        return None, thing.fault
    x1, y1, x2, y2 = thing.box
    shown = f"{x1:g}, {y1:g} to {x2:g}, {y2:g}"
    if not all(math.isfinite(value) for value in thing.box):
        return None, Fault("bad-object", f"the box is no box ({shown})")
    if x2 <= x1 or y2 <= y1:
        return None, Fault("empty-box", f"the box has no area ({shown})")
    if size is None:
        return thing.box, None
    width, height = size
    clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        return None, Fault("box-outside", f"the box ({shown}) lies outside the image of {width} x {height}")
    if max(abs(a - b) for a, b in zip(clipped, thing.box, strict=True)) > BEYOND:
        return clipped, Fault("box-beyond", f"the box ({shown}) stands out of the image of {width} x {height}")
    return clipped, None


def _fit(record: Record, header: ImageHeader, exif: str | None) -> tuple[Fit | None, bool]:
    """`find_fit` of a record: by the size it states, else by that of its first mask of run lengths."""
    if record.size is None and not record.shares:
        arrays = (thing.region for thing in record.objects if isinstance(thing.region, RunLengths))
        if (first := next(arrays, None)) is not None:
            fit, guessed = find_fit((first.width, first.height), header, exif, array=True)
            if fit is not None:
                return fit, guessed
    return find_fit(record.size, header, exif, shares=record.shares)


def _frame(record: Record, header: ImageHeader | None, exif: str | None) -> Size | None:
    """The size that the coordinates of a record are of; None when it is unknown, or not the picture's in any way."""
    if header is None:
        return record.size
    fit, _ = _fit(record, header, exif)
    return None if fit is None else fit.frame


def _with_their_sizes(
    records: Sequence[Record], headers: Mapping[str, ImageHeader]
) -> tuple[tuple[Record, ...], list[Finding]]:
    """The records with the sizes of their pictures where the sizes alone are wrong: boxes stand out of those that are
    stated, and lie in the pictures as they are. Tools write sizes with sides exchanged, or the same for all."""
    wrong = [record for record in records if record.size is not None and record.name in headers
             and not is_turned(headers[record.name]) and record.size != headers[record.name].upright_size]  # fmt: skip
    pairs = list(_things(wrong))
    if len(pairs) < FEWEST:
        return tuple(records), []
    boxes = np.array([thing.box for _, thing in pairs])
    stated = np.array([record.size for record, _ in pairs], dtype=np.float64)
    real = np.array([headers[record.name].upright_size for record, _ in pairs], dtype=np.float64)
    if inside(boxes, stated, 0.1) >= 0.9 or inside(boxes, real, 0.02) < 0.99:
        return tuple(records), []
    names = {record.name for record in wrong}
    message = (
        f"the sizes of {number_of(len(names), 'picture is', 'pictures are')} wrong in the annotations, not the boxes"
    )
    first = f"the first: {wrong[0].name}, {sizes_differ(wrong[0].size or (0, 0), headers[wrong[0].name])}"
    return (
        tuple(replace(record, size=headers[record.name].upright_size) if record.name in names else record
              for record in records),
        [finding("size-alone", names, f"{message} ({first})")],
    )  # fmt: skip


def _placed(
    record: Record, header: ImageHeader | None, exif: str | None, sights: Sights, findings: list[Finding]
) -> Record:
    """The record with its objects where they lie in the picture."""
    if header is None:
        return record
    fit, guessed = _fit(record, header, exif)
    if fit is None:
        assert record.size is not None
        message = f"{record.name}: the annotations {'' if record.source is None else f'in {record.source.name} '}say "
        message += sizes_differ(record.size, header)
        stop = (
            f"{message}. Give back the picture that was annotated, or annotate this one; if the boxes are right and "
            "only the size is wrong, correct or remove the size. `resurge check-data --fix` leaves the image out."
        )
        findings.append(finding("wrong-size", (record.name,), message, stop=stop))
        return replace(record, fault=Fault("wrong-size", message))
    things = tuple(_moved(thing, record, fit, header, sights) for thing in record.objects)
    if things:
        sights.see(record.name, fit, guessed)
    return replace(record, objects=things, size=fit.size)


def _moved(thing: RawObject, record: Record, fit: Fit, header: ImageHeader, sights: Sights) -> RawObject:
    region, own = thing.region, fit
    if isinstance(region, RunLengths):
        way = "annotations" if fit.turns else "pictures"
        found, _ = find_fit((region.width, region.height), header, way, array=True)
        if found is None:
            message = f"the mask has {sizes_differ((region.width, region.height), header)}"
            return replace(thing, region=None, fault=thing.fault or Fault("mask-size", message))
        own = found
        sights.see(record.name, own, False)
        fit = own if record.size is None else fit
    if not (fit.changes or own.changes):
        return replace(thing, region=_seen(region))
    area = None if thing.area is None else thing.area * fit.enlargement
    moved = _seen(own.region(region) if own.changes and region is not None else region)
    why = "scaled" if fit.scales or own.scales else ""
    why += f"{' and ' if why else ''}turned" if fit.turns or own.turns else ""
    return thing.but(why, box=fit.box(thing.box), region=moved, area=area)


def _seen(region: Polygons | RunLengths | None) -> Polygons | RunLengths | None:
    """A mask without a pixel is none."""
    return None if isinstance(region, RunLengths) and not region.area() else region


def _joined(records: Sequence[Record], findings: list[Finding]) -> tuple[Record, ...]:
    """One record per picture of an annotation file."""
    groups: dict[object, list[Record]] = defaultdict(list)
    for record in records:
        groups[posixpath.normpath(record.name), record.source, record.fault is None].append(record)
    names = [group[0].name for group in groups.values() if len(group) > 1]
    if not names:
        return tuple(records)
    joined = []
    for first, *others in groups.values():
        seen = {(thing.label, thing.box, thing.region) for thing in first.objects}
        added = [thing for other in others for thing in other.objects]
        new = [thing for thing in added if (thing.label, thing.box, thing.region) not in seen]
        twice = len(added) - len(new)
        joined.append(replace(first, objects=(*first.objects, *new), copies=len(others), twice=twice))
    twice = sum(record.twice for record in joined)
    message = f"{number_of(len(names), 'picture is', 'pictures are')} entered more than once ({some(names, 3)})"
    message += f"; {number_of(twice, 'object was', 'objects were')} there twice" if twice else ""
    findings.append(finding("same-picture", names, message))
    return tuple(joined)


def _things(records: Sequence[Record]) -> Iterator[tuple[Record, RawObject]]:
    """The objects without a fault."""
    return ((record, thing) for record in records if record.fault is None
            for thing in record.objects if thing.fault is None)  # fmt: skip


def learned(parts: Parts) -> list[Record]:
    """The records that are trained on, or all when none is."""
    return [record for part, records in parts.items() if part in ("train", "") for record in records] or [
        record for records in parts.values() for record in records
    ]


def _single_objects(parts: Parts, findings: list[Finding]) -> Parts:
    """With no crowds in parts that have nothing else, where there is nothing else to train on."""
    crowds = [thing.crowd for _, thing in _things(learned(parts))]
    if not crowds or not all(crowds):
        return parts
    message = f"every one of the {number_of(len(crowds), 'object')} to train on is marked as a crowd"
    stop = (
        f"{message} (iscrowd in COCO, difficult in VOC), of which training takes none. Tools that export masks as run "
        "lengths often set the mark on single objects: clear it, or have it cleared with `resurge check-data --fix`."
    )
    findings.append(finding("all-crowds", (), message, stop=stop))
    why = "no longer marked as a crowd"
    return {
        part: tuple(
            replace(record, objects=tuple(thing.but(why, crowd=False) for thing in record.objects))
            for record in records
        ) if all(thing.crowd for _, thing in _things(records)) else records
        for part, records in parts.items()
    }  # fmt: skip


def _crowds(parts: Parts) -> list[Finding]:
    """What there is to say of crowds among other objects."""
    things = [thing for records in parts.values() for _, thing in _things(records)]
    names = list(dict.fromkeys(
        record.name for records in parts.values() for record, thing in _things(records) if thing.crowd
    ))  # fmt: skip
    if not names:
        return []
    crowds = [thing for thing in things if thing.crowd]
    masks = sum(isinstance(thing.region, RunLengths) for thing in crowds)
    message = f"{number_of(len(crowds), 'object is a crowd', 'objects are crowds')}, which training leaves out"
    severity = "warning" if masks > _MANY_CROWDS * len(things) else ""
    remedy = "clear the mark of single objects, which some tools set on all run lengths" if severity else ""
    findings = [finding("crowds", names, message, severity, remedy)]
    others = {thing.label for _, thing in _things(learned(parts)) if not thing.crowd}
    lost = sorted({thing.label for _, thing in _things(learned(parts))} - others)
    if lost:
        message = f"all objects of {', '.join(lost[:SHOWN])} are crowds: nothing of it is learnt"
        findings.append(finding("crowd-class", lost, message))
    return findings


def _below_a_pixel(parts: Parts) -> list[Finding]:
    """What there is to say of objects that no training can see."""
    small: list[str] = []
    count, everything = 0, False
    for records in parts.values():
        boxes = [(record.name, examine(thing, record.size)[0]) for record, thing in _things(records)]
        sides = [(name, min(box[2] - box[0], box[3] - box[1])) for name, box in boxes if box is not None]
        names = [name for name, side in sides if side < 1]
        everything |= FEWEST <= len(names) == len(sides)
        small += names
        count += len(sides)
    if not small:
        return []
    everything |= len(small) == count
    message = f"{len(small)} of {number_of(count, 'object is', 'objects are')} smaller than a pixel ({some(small, 3)})"
    stop = f"{message}: nothing can be learnt of them. Are they in another unit? Expected pixels of the image."
    return [finding("below-a-pixel", dict.fromkeys(small), message, "error" if everything else "",
                    stop=stop if everything else "")]  # fmt: skip
