"""The records of annotated images as the readers of formats find them, before anything is left out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from resurge.data.fit import Fit
from resurge.data.regions import Box, Polygons, RunLengths


@dataclass(frozen=True)
class LabelRecord:
    """An image and its class; `line` is that of the table that names it, or 0."""

    name: str
    label: str
    line: int = 0


@dataclass(frozen=True)
class MaskRecord:
    """An image and its mask, as paths below the data folder; `mask` is None when none was found. `fit` says how the
    mask lies in the image, None where pixel by pixel."""

    name: str
    mask: str | None
    fit: Fit | None = None


@dataclass(frozen=True)
class Fault:
    """Why an object cannot be used, or not as it stands: a kind of `checks`, and a sentence. Training refuses data with
    a fault that stops."""

    kind: str
    message: str
    stops: bool = False


@dataclass(frozen=True)
class RawObject:
    """One object as the annotations have it. `where` names it ("annotation 12", "object 3", "line 4"), `key` is its
    place in the file; `label` is its class; `box` (x1, y1, x2, y2) in pixels counted from 0, the right and lower edge
    excluded, not clipped; `fault` is what the reader found wrong with it; `changed` says why box,
    region or crowd are other than the file has them, in a word or two after "object(s)"."""

    where: str
    key: int
    label: str
    box: Box = (0.0, 0.0, 0.0, 0.0)
    crowd: bool = False
    region: Polygons | RunLengths | None = None
    area: float | None = None
    fault: Fault | None = None
    changed: str = ""

    def but(self, why: str, **changes: Any) -> RawObject:
        """The object changed for one reason more."""
        return replace(self, changed=f"{self.changed} and {why}" if self.changed else why, **changes)


@dataclass(frozen=True)
class Record:
    """One image with objects as the annotations have it. `name` is its path below the data folder (or absolute),
    `number` the id that COCO gave it, else None; `size` is the (width, height) that the annotations are of, None when
    they do not say; `source` is the annotation file, None where there is none, and `key` the image's place in it.

    With `shares` the file has shares of the image's sides, which the reader multiplied by its upright size. `fault`:
    why the image cannot be used. `copies`: how many other entries of the same image were joined to this one; `twice`:
    how many objects were dropped then, as they were there already."""

    name: str
    objects: tuple[RawObject, ...]
    size: tuple[int, int] | None = None
    number: int | None = None
    source: Path | None = None
    key: int = 0
    shares: bool = False
    fault: Fault | None = None
    copies: int = 0
    twice: int = 0
