"""Whether the numbers of boxes and masks mean what their format says: cheap checks over a whole part of a data set.

A convention is suspected only where the boxes do not fit their images, or their masks, as they stand, and nearly all
of them do in another one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np

from resurge.data.findings import Finding, finding, some
from resurge.data.fit import Size
from resurge.data.records import RawObject, Record
from resurge.data.regions import Box, Polygons, RunLengths
from resurge.quantities import number_of

FEWEST = 3
"""With fewer objects nothing is suspected."""
_FEWEST_BEYOND = 8  # the same, where nothing but the edges of the images speaks against what is read
_LOOKED_AT = 20_000  # masks
_SHARE = 1.5  # the largest number that is still taken for a share of one
_SMALLEST = 8  # pixels; in smaller images shares and pixels are not told apart

_NONE = (math.nan,) * 4
_SWAPPED = [1, 0, 3, 2]

Boxes = np.ndarray
"""float64 (n, 4)"""

WAYS: dict[str, tuple[str, Callable[[Boxes], Boxes], Callable[[Boxes], Boxes]]] = {
    "corners": ("corners (x1, y1, x2, y2)", lambda box: box, lambda box: box),
    "sizes": (
        "a corner and a size (x, y, width, height)",
        lambda four: np.concatenate((four[:, :2], four[:, :2] + four[:, 2:]), axis=1),
        lambda box: np.concatenate((box[:, :2], box[:, 2:] - box[:, :2]), axis=1),
    ),
    "centres": (
        "a centre and a size (x, y, width, height)",
        lambda four: np.concatenate((four[:, :2] - four[:, 2:] / 2, four[:, :2] + four[:, 2:] / 2), axis=1),
        lambda box: np.concatenate(((box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]), axis=1),
    ),
}
"""What four numbers of a box may be: in words, to (x1, y1, x2, y2), and back from it."""


@dataclass(frozen=True)
class _Objects:
    """What is known of the n objects that are looked at: sides of their frames float64 (n, 2); bounds of their masks
    float64 (n, 4), not finite where there is none; areas float64 (n,), NaN where the annotations have none."""

    boxes: Boxes
    frames: np.ndarray
    bounds: Boxes
    areas: np.ndarray

    @property
    def masked(self) -> np.ndarray:
        """bool (n,): whether there is a mask."""
        result: np.ndarray = np.isfinite(self.bounds).all(axis=1)
        return result

    def agreement(self, boxes: Boxes) -> float | None:
        """The share of boxes that are those of their masks, or else have their areas; None when there are too few."""
        if self.masked.sum() >= FEWEST:
            return float((_overlap(boxes[self.masked], self.bounds[self.masked]) > 0.8).mean())
        known = np.isfinite(self.areas)
        if known.sum() < FEWEST:
            return None
        sides = (boxes[:, 2:] - boxes[:, :2])[known]
        return float(np.isclose(sides.prod(axis=1), self.areas[known], rtol=0.01).mean())


def inside(boxes: Boxes, frames: np.ndarray, margin: float) -> float:
    """The share of boxes that have an area and stand out of their frames, (width, height) float64 (n, 2), by at most
    this share of the sides and 1.5 pixels."""
    low, high = boxes[:, :2], boxes[:, 2:]
    slack = margin * frames + 1.5
    good = (high > low) & (low >= -slack) & (high <= frames + slack)
    return float(good.all(axis=1).mean())


def _overlap(one: Boxes, other: Boxes) -> np.ndarray:
    """The intersection over union of each pair, float64 (n,)."""
    sides = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    both = np.clip(sides, 0, None).prod(axis=1)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1) for boxes in (one, other)]
    result: np.ndarray = both / np.maximum(areas[0] + areas[1] - both, 1e-9)
    return result


def questioned(
    records: Sequence[Record], frames: Sequence[Size | None], way: str, like: str = ""
) -> tuple[tuple[Record, ...], list[Finding], str]:
    """The records as another convention has them, where one is suspected; what is wrong; and the convention's name, ""
    where none is known.

    `frames` are the sizes that the annotations of each record are of, None for what is not to be looked at; `way` is
    what the numbers of the format are (`WAYS`). `like` is the convention of another part of the same data set, which
    then is suspected wherever the boxes fit their images in it.
    """
    places = [(at, key) for at, (record, frame) in enumerate(zip(records, frames, strict=True)) if frame is not None
              for key, thing in enumerate(record.objects) if _is_looked_at(thing)]  # fmt: skip
    if not places:
        return tuple(records), [], ""
    things = [records[at].objects[key] for at, key in places]
    sizes = [size for at, _ in places if (size := frames[at]) is not None]
    step = max(len(places) // _LOOKED_AT, 1)
    bounds = [_bounds(things[at], sizes[at]) if at % step == 0 else _NONE for at in range(len(places))]
    areas = [math.nan if thing.area is None else thing.area for thing in things]
    seen = _Objects(np.array([thing.box for thing in things]), np.array(sizes, float), np.array(bounds),
                    np.array(areas))  # fmt: skip
    names = list(dict.fromkeys(records[at].name for at, _ in places))
    suspected = _suspected(seen, way, any(record.shares for record in records), like)
    if suspected is None:
        suspected, names = _suspected_of_masks(seen, [records[at].name for at, _ in places])
    if suspected is None:
        return tuple(records), [], ""
    if not suspected.stops:
        return tuple(records), [finding(suspected.kind, names, suspected.what)], ""
    source = records[places[0][0]].source
    message = f"{'' if source is None else f'{source.name}: '}{suspected.what} ({some(names, 3)})"
    boxes, points = suspected.boxes, suspected.points
    is_known = boxes is not None or points is not None
    remedy = "Export the annotations again as the format wants them"
    remedy += ", or have them written so with `resurge check-data --fix`" if is_known else ""
    found = finding(
        suspected.kind, names, message, "error", f"{remedy}; training refuses them", f"{message}. {remedy}."
    )
    if is_known:
        records = _changed(records, places, sizes, seen.boxes if boxes is None else boxes, points)
    return tuple(records), [found], suspected.name


def _is_looked_at(thing: RawObject) -> bool:
    return bool(np.isfinite(thing.box).all()) and (thing.fault is None or thing.fault.kind == "empty-box")


def _bounds(thing: RawObject, frame: Size) -> Box:
    if isinstance(thing.region, Polygons):
        return thing.region.box()
    if isinstance(thing.region, RunLengths) and (thing.region.width, thing.region.height) == frame:
        box = thing.region.box()
        return box if box[2] > box[0] else _NONE
    return _NONE


class Points(Protocol):
    """Points (n, 2) of an image of a size, to what they are meant to be."""

    def __call__(self, points: np.ndarray, size: Size) -> np.ndarray: ...


@dataclass(frozen=True)
class _Suspected:
    """What is wrong with most objects; how their boxes, and the points of their outlines, are meant, where they are
    meant otherwise than they were read; `name` of the convention that other parts may have too."""

    kind: str
    what: str
    boxes: Boxes | None = None
    points: Points | None = None
    stops: bool = True
    name: str = ""


def _suspected(seen: _Objects, way: str, shares: bool, like: str) -> _Suspected | None:
    boxes, count = seen.boxes, number_of(len(seen.boxes), "box", "boxes")
    if len(boxes) < FEWEST and not like:
        return None
    if not shares and seen.frames.min() >= _SMALLEST and np.abs(boxes).max() <= _SHARE and (boxes % 1 != 0).any():
        # Readers of formats that count from 1 have taken 1 off the first corner.
        from_one = [1.0, 1.0, 0.0, 0.0] if boxes[:, :2].min() < -0.1 else [0.0] * 4
        scaled = (boxes + from_one) * np.tile(seen.frames, 2)
        bounds = seen.bounds[np.isfinite(seen.bounds)]
        what = f"all {count} are shares of one, where pixels are expected"
        return _Suspected("convention", what, scaled, _times if bounds.max(initial=0) <= _SHARE else None)
    agrees = seen.agreement(boxes) or 0.0
    is_odd = len(boxes) >= _FEWEST_BEYOND and inside(boxes, seen.frames, 0.1) < 0.9
    together = seen.masked.sum() >= FEWEST and agrees >= 0.5  # masks would be of the same convention
    options: list[tuple[str, str, Boxes, Points | None]] = [
        (other, f"the {count} are {words}, where {WAYS[way][0]} is expected", read(WAYS[way][2](boxes)), None)
        for other, (words, read, _) in WAYS.items() if other != way
    ]  # fmt: skip
    what = f"x and y of the {count} have changed places"
    options.append(("exchanged", what, boxes[:, _SWAPPED], _exchanged if together else None))
    # A convention suits when all boxes lie in their images so, and not as they stand, or fit masks and areas only so.
    suited: dict[str, tuple[float, _Suspected]] = {}
    for name, what, meant, points in options:
        agreed = seen.agreement(meant) or 0.0
        only = agreed >= 0.9 and agrees <= 0.1
        refuted = agreed < 0.5 <= agrees and points is None
        if inside(meant, seen.frames, 0.02) >= 0.99 and (only or ((is_odd or name == like) and not refuted)):
            suited[what] = agreed, _Suspected("convention", what, meant, points, name=name)
            if name == like:
                return suited[what][1]
    if not suited:
        return None
    best = max(agreed for agreed, _ in suited.values())
    likely = [suspected for agreed, suspected in suited.values() if agreed == best]
    return likely[0] if len(likely) == 1 else _Suspected("convention", ", or ".join(each.what for each in likely))


def _times(points: np.ndarray, size: Size) -> np.ndarray:
    result: np.ndarray = points * np.array(size)
    return result


def _exchanged(points: np.ndarray, size: Size) -> np.ndarray:
    return points[:, ::-1]


def _suspected_of_masks(seen: _Objects, names: list[str]) -> tuple[_Suspected | None, list[str]]:
    """The same of masks beside boxes that are as they should be, and the images that it is about."""
    sides = np.minimum(seen.boxes[:, 2:], seen.frames) - np.maximum(seen.boxes[:, :2], 0)
    masked = np.flatnonzero(seen.masked & (sides > 0).all(axis=1))
    boxes, bounds, frames = seen.boxes[masked], seen.bounds[masked], seen.frames[masked]
    # The mask of a line has no area; it lies in its box when its middle does.
    middles = (bounds[:, :2] + bounds[:, 2:]) / 2
    outside = ((middles < boxes[:, :2]) | (middles > boxes[:, 2:])).any(axis=1)
    lost = outside & (_overlap(boxes, bounds) < 0.01)
    if not lost.any():
        return None, []
    kind, concerned = "mask-elsewhere", list(dict.fromkeys(names[at] for at in masked[lost]))
    what = f"{lost.sum()} of {number_of(len(masked), 'mask lies', 'masks lie')} outside their boxes"
    if len(masked) < FEWEST or lost.mean() <= 0.5:
        return _Suspected(kind, f"{what}: {some(concerned, 3)}", stops=False), concerned
    scaled = bounds * np.tile(frames, 2)
    if bounds.max() <= _SHARE and frames.min() >= _SMALLEST and (_overlap(boxes, scaled) > 0.5).mean() >= 0.9:
        return _Suspected(kind, f"{what}: their points are shares of one", points=_times), concerned
    if (_overlap(boxes, bounds[:, _SWAPPED]) > 0.5).mean() >= 0.9:
        # Where both lie in the images, either may be the one that is right.
        beyond = (bounds[:, 2:] > frames + 1.5).any(axis=1).mean() > 0.1
        what = f"{what}: x and y of their points have changed places"
        return _Suspected(kind, what, points=_exchanged if beyond else None), concerned
    return _Suspected(kind, what), concerned


def _changed(
    records: Sequence[Record], places: Sequence[tuple[int, int]], sizes: Sequence[Size], boxes: Boxes,
    points: Points | None,
) -> tuple[Record, ...]:  # fmt: skip
    objects = [list(record.objects) for record in records]
    for (at, key), size, (x1, y1, x2, y2) in zip(places, sizes, boxes.tolist(), strict=True):
        thing = objects[at][key]
        region = thing.region
        if points is not None and isinstance(region, Polygons):
            region = region.moved(partial(points, size=size))
        fault = None if thing.fault is not None and thing.fault.kind == "empty-box" else thing.fault
        area = None if thing.area is not None and thing.area <= _SHARE else thing.area
        objects[at][key] = thing.but(
            "put in the format's convention", box=(x1, y1, x2, y2), region=region, area=area, fault=fault
        )
    return tuple(replace(record, objects=tuple(each)) for record, each in zip(records, objects, strict=True))
