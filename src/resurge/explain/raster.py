"""Shapes painted by PIL, for PNG files; see `shapes`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from PIL import ImageDraw, ImageFont

from resurge.explain.shapes import GREY, INK, Line, Rect, Shape, Sign, Text, arrow_head, sign_strokes

if TYPE_CHECKING:
    from PIL import Image

Point = tuple[float, float]


def paint(image: Image.Image, shapes: Sequence[Shape], scale: float) -> None:
    """Paint the shapes onto `image`, `scale` pixels a unit."""
    pen = _Pen(image, scale)
    for shape in shapes:
        match shape:
            case Rect():
                pen.rect(shape)
            case Line():
                pen.line(shape.points, shape.color, 1.5, dash=(4, 3) if shape.dashed else None)
                if shape.arrow:
                    pen.draw.polygon(pen.scaled(arrow_head(shape.points)), fill=shape.color)
            case Text():
                pen.text(shape)
            case Sign():
                pen.sign(shape)


class _Pen:
    def __init__(self, image: Image.Image, scale: float) -> None:
        self.draw = ImageDraw.Draw(image)
        self.scale = scale

    def scaled(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self.scale, y * self.scale) for x, y in points]

    def rect(self, shape: Rect) -> None:
        if shape.paint is None:
            for start, end in _rounded(shape):
                self.line((start, end), GREY, 1.0, dash=(4, 4))
            return
        box = (*self.scaled([(shape.x, shape.y)])[0], *self.scaled([(shape.x + shape.w, shape.y + shape.h)])[0])
        width = round(1.3 * self.scale)
        self.draw.rounded_rectangle(box, shape.radius * self.scale, shape.paint.fill, shape.paint.stroke, width)

    def line(self, points: Sequence[Point], color: str, width: float, dash: tuple[float, float] | None = None) -> None:
        pieces = [points] if dash is None else _dashes(points, *dash)
        for piece in pieces:
            self.draw.line(self.scaled(piece), fill=color, width=max(1, round(width * self.scale)), joint="curve")

    def sign(self, shape: Sign) -> None:
        x, y, r = shape.x * self.scale, shape.y * self.scale, shape.radius * self.scale
        if not shape.sign:
            self.draw.ellipse((x - r, y - r, x + r, y + r), fill=GREY)
            return
        self.draw.ellipse((x - r, y - r, x + r, y + r), fill="#ffffff", outline=INK, width=round(1.3 * self.scale))
        for stroke in sign_strokes(shape):
            self.line(stroke, INK, 1.6)

    def text(self, shape: Text) -> None:
        size = shape.size * self.scale
        font = _font(size)
        pieces = list(_pieces(shape.text))
        widths = [_width(piece, font, size) for piece in pieces]
        x = shape.x * self.scale - sum(widths) * {"start": 0.0, "middle": 0.5, "end": 1.0}[shape.anchor]
        y = shape.y * self.scale
        for piece, width in zip(pieces, widths, strict=True):
            if piece in "×→":
                self._glyph(piece, x, y, size, shape)
            else:
                # The font has one weight; a thin outline makes it bold.
                self.draw.text(
                    (x, y), piece, shape.color, font, anchor="ls", stroke_width=size / 45 if shape.bold else 0
                )
            x += width

    def _glyph(self, glyph: str, x: float, y: float, size: float, shape: Text) -> None:
        """The two signs that PIL's built-in font lacks."""
        weight = max(1, round(size * (0.11 if shape.bold else 0.08)))
        if glyph == "×":
            x0, x1, y0, y1 = x + 0.12 * size, x + 0.5 * size, y - 0.5 * size, y - 0.12 * size
            strokes = [((x0, y0), (x1, y1)), ((x0, y1), (x1, y0))]
        else:
            x0, x1, middle, head = x + 0.1 * size, x + 0.9 * size, y - 0.33 * size, 0.2 * size
            strokes = [
                ((x0, middle), (x1, middle)),
                ((x1 - head, middle - head), (x1, middle)),
                ((x1 - head, middle + head), (x1, middle)),
            ]
        for stroke in strokes:
            self.draw.line(stroke, fill=shape.color, width=weight)


@lru_cache(maxsize=32)
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _width(piece: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, size: float) -> float:
    return {"×": 0.62, "→": 1.0}[piece] * size if piece in ("×", "→") else font.getlength(piece)


def _pieces(text: str) -> Iterator[str]:
    """Runs of ordinary characters, and the signs that are drawn by hand one by one."""
    run = ""
    for character in text:
        if character in "×→":
            if run:
                yield run
            yield character
            run = ""
        else:
            run += character
    if run:
        yield run


def _rounded(shape: Rect) -> list[tuple[Point, Point]]:
    """The four sides of a frame; a dashed outline does without its corners."""
    x0, y0, x1, y1, r = shape.x, shape.y, shape.x + shape.w, shape.y + shape.h, shape.radius / 2
    return [
        ((x0 + r, y0), (x1 - r, y0)),
        ((x1, y0 + r), (x1, y1 - r)),
        ((x1 - r, y1), (x0 + r, y1)),
        ((x0, y1 - r), (x0, y0 + r)),
    ]


def _dashes(points: Sequence[Point], on: float, off: float) -> Iterator[tuple[Point, Point]]:
    for (x0, y0), (x1, y1) in pairwise(points):
        length = math.hypot(x1 - x0, y1 - y0)
        at = 0.0
        while at < length:
            end = min(at + on, length)
            a, b = at / length, end / length
            yield (x0 + (x1 - x0) * a, y0 + (y1 - y0) * a), (x0 + (x1 - x0) * b, y0 + (y1 - y0) * b)
            at += on + off
