"""The shapes that a drawing is made of, and their geometry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

INK = "#1f2933"
GREY = "#7b8794"


@dataclass(frozen=True)
class Paint:
    """Fill and outline of a box."""

    fill: str
    stroke: str


PAINTS = {
    "conv": Paint("#dce9fb", "#4f7fc4"),
    "attention": Paint("#fdeccb", "#c88a1e"),
    "pool": Paint("#dbf0e1", "#4e9a68"),
    "plain": Paint("#eef0f3", "#8a949e"),
    "data": Paint("#ffffff", "#8a949e"),
    "unknown": Paint("#ece3fa", "#8460bd"),
}


@dataclass(frozen=True)
class Rect:
    x: float
    y: float
    w: float
    h: float
    paint: Paint | None
    """None draws a dashed frame."""
    radius: float = 6.0


@dataclass(frozen=True)
class Line:
    points: tuple[tuple[float, float], ...]
    arrow: bool = False
    dashed: bool = False
    color: str = GREY


@dataclass(frozen=True)
class Text:
    x: float
    y: float
    text: str
    size: float = 13.0
    color: str = INK
    anchor: str = "middle"
    bold: bool = False


@dataclass(frozen=True)
class Sign:
    """A small circle with "+" or "×" in it, or, with neither, a dot where lines part."""

    x: float
    y: float
    sign: str
    radius: float = 10.0


Shape = Rect | Line | Text | Sign


def arrow_head(points: Sequence[tuple[float, float]], size: float = 7.0) -> list[tuple[float, float]]:
    """The triangle at the end of a path."""
    (x0, y0), (x1, y1) = points[-2], points[-1]
    length = math.hypot(x1 - x0, y1 - y0) or 1.0
    ux, uy = (x1 - x0) / length, (y1 - y0) / length
    back_x, back_y = x1 - ux * size, y1 - uy * size
    half = size * 0.5
    return [(x1, y1), (back_x - uy * half, back_y + ux * half), (back_x + uy * half, back_y - ux * half)]


def sign_strokes(sign: Sign) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """The lines of a "+" or a "×"."""
    arm = sign.radius * 0.5
    if sign.sign == "×":
        arm *= math.sqrt(0.5)
        corners = ((-arm, -arm, arm, arm), (-arm, arm, arm, -arm))
    else:
        corners = ((-arm, 0, arm, 0), (0, -arm, 0, arm))
    return [((sign.x + a, sign.y + b), (sign.x + c, sign.y + d)) for a, b, c, d in corners]
