"""How what was annotated lies in a picture of another size, or in one that EXIF turns upright.

A point (x, y) is in pixels, counted from the upper left corner of the upper left pixel. Boxes, outlines and arrays are
turned exactly; arrays are scaled to the nearest pixel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from resurge.data.findings import KINDS, Finding, finding, some
from resurge.data.images import ImageHeader
from resurge.data.regions import Box, Polygons, RunLengths, nearest, run_lengths_of
from resurge.quantities import number_of

Size = tuple[int, int]
"""(width, height) in pixels."""


def size_of(width: object, height: object) -> Size | None:
    """(width, height) where both are numbers from 1 on, or the text of such."""
    sides = [str(side).strip() for side in (width, height) if not isinstance(side, bool)]
    try:
        found = [int(float(side)) for side in sides]
    except (ValueError, OverflowError):
        return None
    return (found[0], found[1]) if len(found) == 2 and 1 <= min(found) <= max(found) < 10**9 else None


@dataclass(frozen=True)
class Fit:
    """From a frame of `frame` pixels to the upright picture of `size`: scaled, then turned by the EXIF `orientation`
    (1 to 8)."""

    frame: Size
    size: Size
    orientation: int = 1

    @property
    def changes(self) -> bool:
        return self.turns or self.scales

    @property
    def turns(self) -> bool:
        return self.orientation != 1

    @property
    def scales(self) -> bool:
        return self.frame != self._lying

    @property
    def _lying(self) -> Size:
        """The picture's size before it is turned."""
        return self.size[::-1] if self.orientation >= 5 else self.size

    @property
    def enlargement(self) -> float:
        """What an area is multiplied by."""
        return self.size[0] * self.size[1] / (self.frame[0] * self.frame[1])

    @property
    def _mirrored(self) -> tuple[bool, bool]:
        """Whether x and y count from the other end, before they change places."""
        return self.orientation in (2, 3, 7, 8), self.orientation in (3, 4, 6, 7)

    def points(self, values: np.ndarray) -> np.ndarray:
        """Points (n, 2) of the frame as points of the picture."""
        sides, mirrored = np.array(self._lying), np.array(self._mirrored)
        values = values * (sides / self.frame)
        values = np.where(mirrored, sides - values, values)
        return values if self.orientation < 5 else values[:, ::-1]

    def box(self, box: Box) -> Box:
        """(x1, y1, x2, y2); what is empty stays so."""
        corners = self.points(np.array(box).reshape(2, 2))
        mirrored = self._mirrored if self.orientation < 5 else self._mirrored[::-1]
        (x1, y1), (x2, y2) = np.where(mirrored, corners[::-1], corners).tolist()
        return (x1, y1, x2, y2)

    def array(self, values: np.ndarray) -> np.ndarray:
        """(frame's height, width) to (picture's height, width)."""
        width, height = self._lying
        values = nearest(values, height, width)
        across, down = self._mirrored
        values = values[:: -1 if down else 1, :: -1 if across else 1]
        return np.ascontiguousarray(values if self.orientation < 5 else values.T)

    def region(self, region: Polygons | RunLengths) -> Polygons | RunLengths:
        if isinstance(region, RunLengths):
            return run_lengths_of(self.array(region.decode(*self.frame[::-1])))
        return region.moved(self.points)


def find_fit(
    frame: Size | None, header: ImageHeader, exif: str | None, *, array: bool = False, shares: bool = False
) -> tuple[Fit | None, bool]:
    """(how annotations of a frame of this size, None when they do not say, lie in a picture, or None when no scaling
    makes one of the other; whether that is a guess, since the sizes leave it open what EXIF turns).

    `exif` is the user's word as in `Reading`. It goes before sizes that were written for the pixels as stored, or as
    shown; but an `array` is what its size says. `shares` as in `Record`.
    """
    upright, stored = header.upright_size, header.size
    if not is_turned(header):
        return (Fit(frame or upright, upright) if frame is None or same_shape(frame, upright) else None), False
    possible = {"pictures": upright, "annotations": stored}
    if frame is not None:
        if stored != upright and frame in (stored, upright):  # of a picture that is nearly square
            possible = {way: size for way, size in possible.items() if size == frame}
        possible = {way: size for way, size in possible.items() if same_shape(frame, size)}
    if not possible:
        return None, False
    way = exif or next(iter(possible))
    if way not in possible:
        if array:
            way = next(iter(possible))
        elif frame is not None:  # the sides are written as they are stored, or shown; all else is as the user says
            frame = frame[::-1]
    frame = frame or (upright if shares or way == "pictures" else stored)
    return Fit(frame, upright, header.orientation if way == "annotations" else 1), exif is None and len(possible) > 1


def is_turned(header: ImageHeader) -> bool:
    """Whether EXIF turns or mirrors the picture."""
    return 2 <= header.orientation <= 8


def same_shape(one: Size, other: Size) -> bool:
    """Whether one is the other times a number, but for a pixel of rounding on each side of the smaller; where that is a
    large part of a side, for a twentieth of it."""
    if abs(one[0] * other[1] / (one[1] * other[0]) - 1) > 0.05:
        return False
    small, big = sorted((one, other), key=lambda size: size[0] * size[1])
    low, high = (max((side - 1) / of for side, of in zip(small, big, strict=True)),
                 min((side + 1) / of for side, of in zip(small, big, strict=True)))  # fmt: skip
    return low <= high


def sizes_differ(frame: Size, header: ImageHeader) -> str:
    """ "40 x 30 pixels, the image has 50 x 30": for messages."""
    text = f"{frame[0]} x {frame[1]} pixels, the image has {header.upright_size[0]} x {header.upright_size[1]}"
    if same_shape(frame, header.upright_size):
        return text
    if same_shape(frame[::-1], header.upright_size):
        return f"{text}: width and height have changed places"
    return f"{text}, which is no scaling of it"


class Sights:
    """What is seen while annotations (`what`) are fitted to their pictures; `exif` is the user's word."""

    def __init__(self, what: str, exif: str | None) -> None:
        self.what, self.exif = what, exif
        self.names: dict[str, dict[str, str]] = {"scaled": {}, "turned": {}, "exif-unclear": {}}

    def settled(self, fits: Iterable[tuple[Fit | None, bool]]) -> str | None:
        """The user's word; else what all the sizes say that do not leave it open, from `find_fit` of the pictures that
        EXIF turns, which then holds for the others too."""
        ways = {fit.turns for fit, guessed in fits if fit is not None and not guessed}
        return "annotations" if self.exif is None and ways == {True} else self.exif

    def see(self, name: str, fit: Fit, guessed: bool) -> None:
        """Note how what is annotated in a picture lies in it."""
        kinds = {"scaled": fit.scales, "turned": fit.turns, "exif-unclear": guessed}
        for kind in (kind for kind, is_so in kinds.items() if is_so):
            self.names[kind].setdefault(name, f"{fit.frame[0]} x {fit.frame[1]} for {fit.size[0]} x {fit.size[1]}")

    def findings(self) -> list[Finding]:
        found = []
        for kind, sizes in self.names.items():
            if sizes:
                pictures = number_of(len(sizes), "picture")
                shown = (
                    f"{some(sizes, 3)}; the first: {next(iter(sizes.values()))}" if kind == "scaled" else some(sizes, 3)
                )
                message = KINDS[kind]["message"].format(what=self.what, pictures=pictures)
                asked = kind == "turned" and self.exif == "annotations"
                found.append(finding(kind, sizes, f"{message} ({shown})", severity="info" if asked else ""))
        return found
