"""A drawing as a list of shapes, written as SVG or, from the same list, as PNG.

Colours are chosen to stand on a light and on a dark page: what stands outside a filled box is a middle grey, what
stands inside brings its own background.
"""

from __future__ import annotations

import functools
import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from resurge.errors import UserError
from resurge.explain.heat import save_image
from resurge.files import MARK, atomic_write_text

INK, GREY = "#1f2933", "#7b8794"
FONTS = "Helvetica, Arial, 'Liberation Sans', sans-serif"
RADIUS = 6.0  # of the corners of a box
FILL_AND_OUTLINE = {
    "conv": ("#dce9fb", "#4f7fc4"),
    "attention": ("#fdeccb", "#c88a1e"),
    "pool": ("#dbf0e1", "#4e9a68"),
    "plain": ("#eef0f3", "#8a949e"),
    "data": ("#ffffff", "#8a949e"),
    "unknown": ("#ece3fa", "#8460bd"),
}

Point = tuple[float, float]


class Rect(NamedTuple):
    """A box; without `paint`, a key of `FILL_AND_OUTLINE`, a dashed frame."""

    x: float
    y: float
    w: float
    h: float
    paint: str | None


class Line(NamedTuple):
    points: tuple[Point, ...]
    arrow: bool = False
    dashed: bool = False
    color: str = GREY
    width: float = 1.5

    def head(self, size: float = 7.0) -> list[Point]:
        """The triangle at the end of an arrow."""
        (x0, y0), (x1, y1) = self.points[-2:]
        length = math.hypot(x1 - x0, y1 - y0) or 1.0
        ux, uy = (x1 - x0) / length, (y1 - y0) / length
        back_x, back_y, half = x1 - ux * size, y1 - uy * size, size * 0.5
        return [(x1, y1), (back_x - uy * half, back_y + ux * half), (back_x + uy * half, back_y - ux * half)]


class Text(NamedTuple):
    """Text whose baseline is at y."""

    x: float
    y: float
    text: str
    size: float = 13.0
    color: str = INK
    anchor: str = "middle"
    bold: bool = False


class Sign(NamedTuple):
    """A small circle with "+" or "×" in it, or, with neither, a dot where lines part."""

    x: float
    y: float
    sign: str = ""
    radius: float = 10.0

    def strokes(self) -> list[Line]:
        """The lines of the sign."""
        arm = self.radius * (0.5 * math.sqrt(0.5) if self.sign == "×" else 0.5)
        ends = {"×": ((arm, arm), (arm, -arm)), "+": ((arm, 0.0), (0.0, arm)), "": ()}[self.sign]
        x, y = self.x, self.y
        return [Line(((x - dx, y - dy), (x + dx, y + dy)), color=INK, width=1.6) for dx, dy in ends]


Shape = Rect | Line | Text | Sign


def moved(shape: Shape, dx: float, dy: float) -> Shape:
    if isinstance(shape, Line):
        return shape._replace(points=tuple((x + dx, y + dy) for x, y in shape.points))
    return shape._replace(x=shape.x + dx, y=shape.y + dy)


def text_width(text: str, size: float = 13.0, bold: bool = False) -> float:
    """A generous estimate, in units: readers' fonts differ, and text must not run out of its box."""
    narrow = sum(c in "iljtf.,:;'()[]| ·1" for c in text)
    wide = sum(c in "mwMWGOQ→×" for c in text)
    return size * (0.33 * narrow + 0.86 * wide + 0.565 * (len(text) - narrow - wide)) * (1.06 if bold else 1.0)


@dataclass(frozen=True)
class Scene:
    """Shapes in the order they are painted. `title` names the drawing for readers who cannot see it."""

    title: str
    width: float
    height: float
    shapes: Sequence[Shape]

    def to_svg(self) -> str:
        """The drawing as one SVG element, without styles, scripts or references to anything outside."""
        w, h = math.ceil(self.width), math.ceil(self.height)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" '
            f'font-family="{FONTS}" role="img">',
            f"<!-- {MARK} -->",
            f"<title>{html.escape(self.title)}</title>",
            *map(_svg, self.shapes),
            "</svg>",
        ]
        return "\n".join(parts) + "\n"

    def to_image(self, scale: float = 2.0) -> Image.Image:
        """The drawing as a PIL image of `scale` pixels per unit."""
        # Painted twice as large and reduced: PIL has no smooth edges of its own.
        size = (math.ceil(self.width * scale) * 2, math.ceil(self.height * scale) * 2)
        image = Image.new("RGB", size, "#ffffff")
        pen = ImageDraw.Draw(image)
        for shape in self.shapes:
            _paint(pen, shape, scale * 2)
        return image.resize((size[0] // 2, size[1] // 2), Image.Resampling.BOX)

    def save(self, path: str | Path) -> Path:
        """Write SVG or PNG, by the suffix of `path`.

        Raises:
            UserError: another suffix, or the file cannot be written.
        """
        target = Path(path)
        suffix = target.suffix.lower()
        if suffix == ".png":
            return save_image(self.to_image(), target)
        if suffix != ".svg":
            raise UserError(
                f"a diagram is written as .svg or .png, got {target.name!r}. Give a name with one of these."
            )
        atomic_write_text(target, self.to_svg())
        return target


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _points(points: Sequence[Point]) -> str:
    return " ".join(f"{_n(x)},{_n(y)}" for x, y in points)


def _svg(shape: Shape) -> str:
    match shape:
        case Rect(x, y, w, h, paint):
            where = f'x="{_n(x)}" y="{_n(y)}" width="{_n(w)}" height="{_n(h)}" rx="{_n(RADIUS)}"'
            if paint is None:
                return f'<rect {where} fill="none" stroke="{GREY}" stroke-opacity="0.7" stroke-dasharray="4 4"/>'
            fill, outline = FILL_AND_OUTLINE[paint]
            return f'<rect {where} fill="{fill}" stroke="{outline}" stroke-width="1.3"/>'
        case Line(points, arrow, dashed, color, width):
            dash = ' stroke-dasharray="4 3"' if dashed else ""
            line = f'<polyline points="{_points(points)}" fill="none" stroke="{color}" stroke-width="{width}"{dash}/>'
            return line + (f'<polygon points="{_points(shape.head())}" fill="{color}"/>' if arrow else "")
        case Text(x, y, text, size, color, anchor, bold):
            weight = ' font-weight="600"' if bold else ""
            where = f'x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}" text-anchor="{anchor}"'
            return f'<text {where} fill="{color}"{weight}>{html.escape(text)}</text>'
        case Sign(x, y, sign, radius):
            paint = f'fill="#ffffff" stroke="{INK}" stroke-width="1.3"' if sign else f'fill="{GREY}"'
            circle = f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}" {paint}/>'
            return circle + "".join(map(_svg, shape.strokes()))


def _paint(pen: ImageDraw.ImageDraw, shape: Shape, scale: float) -> None:
    """Paint a shape, `scale` pixels per unit."""

    def at(*points: Point) -> list[Point]:
        return [(x * scale, y * scale) for x, y in points]

    outline_width = round(1.3 * scale)
    match shape:
        case Rect(x, y, w, h, None):
            corners = ((x, y), (x + w, y), (x + w, y + h), (x, y + h), (x, y))
            _paint(pen, Line(corners, dashed=True, width=1.0), scale)
        case Rect(x, y, w, h, str(paint)):
            pen.rounded_rectangle(
                at((x, y), (x + w, y + h)), RADIUS * scale, *FILL_AND_OUTLINE[paint], width=outline_width
            )
        case Line(points, arrow, dashed, color, width):
            for piece in _dashes(points, 4, 3) if dashed else [points]:
                pen.line(at(*piece), color, max(1, round(width * scale)), joint="curve")
            if arrow:
                pen.polygon(at(*shape.head()), color)
        case Text(x, y, text, size, color, anchor, bold):
            # PIL's built-in font has one weight, which a thin outline makes bold, and neither × nor →.
            text, font = text.replace("×", "x").replace("→", "->"), _font(size * scale)
            corner, outline = {"start": "ls", "middle": "ms", "end": "rs"}[anchor], size * scale / 45 if bold else 0
            pen.text((x * scale, y * scale), text, color, font, corner, stroke_width=outline)
        case Sign(x, y, sign, r):
            fill = "#ffffff" if sign else GREY
            pen.ellipse(at((x - r, y - r), (x + r, y + r)), fill, INK if sign else None, outline_width)
            for stroke in shape.strokes():
                _paint(pen, stroke, scale)


_font = functools.lru_cache(maxsize=32)(ImageFont.load_default)


def _dashes(points: Sequence[Point], on: int, off: int) -> Iterator[tuple[Point, Point]]:
    for (x0, y0), (x1, y1) in pairwise(points):
        length = math.hypot(x1 - x0, y1 - y0)
        for start in range(0, math.ceil(length), on + off):
            a, b = start / length, min(start + on, length) / length
            yield (x0 + (x1 - x0) * a, y0 + (y1 - y0) * a), (x0 + (x1 - x0) * b, y0 + (y1 - y0) * b)
