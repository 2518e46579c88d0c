"""A drawing as a list of shapes, written as SVG or, from the same list, as PNG.

Colours are chosen to stand on a light and on a dark page: what stands outside a filled box is a middle grey, what
stands inside brings its own background.
"""

from __future__ import annotations

import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from resurge.errors import UserError
from resurge.explain.raster import paint
from resurge.explain.shapes import GREY, INK, PAINTS, Line, Rect, Shape, Sign, Text, arrow_head, sign_strokes
from resurge.files import atomic_write_bytes, atomic_write_text

FONTS = "Helvetica, Arial, 'Liberation Sans', sans-serif"


def text_width(text: str, size: float = 13.0, bold: bool = False) -> float:
    """A generous estimate, in units: readers' fonts differ, and text must not run out of its box."""
    narrow = sum(c in "iljtf.,:;'()[]| ·1" for c in text)
    wide = sum(c in "mwMWGOQ→×" for c in text)
    return size * (0.33 * narrow + 0.86 * wide + 0.565 * (len(text) - narrow - wide)) * (1.06 if bold else 1.0)


@dataclass
class Scene:
    """Shapes in the order they are painted. `title` names the drawing for readers who cannot see it."""

    title: str
    width: float = 0.0
    height: float = 0.0
    shapes: list[Shape] = field(default_factory=list)

    def rect(self, x: float, y: float, w: float, h: float, paint: str | None) -> None:
        self.shapes.append(Rect(x, y, w, h, None if paint is None else PAINTS[paint]))

    def path(self, *points: tuple[float, float], arrow: bool = False, dashed: bool = False, color: str = GREY) -> None:
        self.shapes.append(Line(points, arrow, dashed, color))

    def text(self, x: float, y: float, text: str, size: float = 13.0, **style: Any) -> None:
        """`y` is the baseline."""
        self.shapes.append(Text(x, y, text, size, **style))

    def sign(self, x: float, y: float, sign: str, radius: float = 10.0) -> None:
        self.shapes.append(Sign(x, y, sign, radius))

    # ---------------------------------------------------------------------------------------------------- SVG

    def to_svg(self) -> str:
        """The drawing as one SVG element, without styles, scripts or references to anything outside."""
        w, h = math.ceil(self.width), math.ceil(self.height)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" '
            f'font-family="{FONTS}" role="img">',
            f"<title>{html.escape(self.title)}</title>",
            *(_svg(shape) for shape in self.shapes),
            "</svg>",
        ]
        return "\n".join(parts) + "\n"

    # ---------------------------------------------------------------------------------------------------- PNG

    def to_image(self, scale: float = 2.0, background: str | None = "#ffffff") -> Image.Image:
        """The drawing as a PIL image of `scale` pixels a unit; `background=None` leaves it transparent."""
        # Painted twice as large and reduced: PIL has no smooth edges of its own.
        size = (math.ceil(self.width * scale) * 2, math.ceil(self.height * scale) * 2)
        image = Image.new("RGBA", size, (0, 0, 0, 0))
        paint(image, self.shapes, scale * 2)
        image = image.resize((size[0] // 2, size[1] // 2), Image.Resampling.BOX)
        if background is None:
            return image
        page = Image.new("RGBA", image.size, background)
        page.alpha_composite(image)
        return page.convert("RGB")

    def save(self, path: str | Path) -> Path:
        """Write SVG or PNG, by the suffix of `path`.

        Raises:
            UserError: another suffix, or the file cannot be written.
        """
        target = Path(path)
        suffix = target.suffix.lower()
        if suffix == ".svg":
            atomic_write_text(target, self.to_svg())
        elif suffix == ".png":
            buffer = io.BytesIO()
            self.to_image().save(buffer, "PNG", optimize=True)
            atomic_write_bytes(target, buffer.getvalue())
        else:
            raise UserError(
                f"a diagram is written as .svg or .png, got {target.name!r}. Give a name with one of these."
            )
        return target


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_n(x)},{_n(y)}" for x, y in points)


def _svg(shape: Shape) -> str:
    match shape:
        case Rect(x, y, w, h, paint, radius):
            place = f'x="{_n(x)}" y="{_n(y)}" width="{_n(w)}" height="{_n(h)}" rx="{_n(radius)}"'
            if paint is None:
                return f'<rect {place} fill="none" stroke="{GREY}" stroke-opacity="0.7" stroke-dasharray="4 4"/>'
            return f'<rect {place} fill="{paint.fill}" stroke="{paint.stroke}" stroke-width="1.3"/>'
        case Line(points, arrow, dashed, color):
            dash = ' stroke-dasharray="4 3"' if dashed else ""
            line = f'<polyline points="{_points(points)}" fill="none" stroke="{color}" stroke-width="1.5"{dash}/>'
            return line + (f'<polygon points="{_points(arrow_head(points))}" fill="{color}"/>' if arrow else "")
        case Text(x, y, text, size, color, anchor, bold):
            weight = ' font-weight="600"' if bold else ""
            place = f'x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}" text-anchor="{anchor}"'
            return f'<text {place} fill="{color}"{weight}>{html.escape(text)}</text>'
        case Sign(x, y, "", radius):
            return f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}" fill="{GREY}"/>'
        case Sign(x, y, _, radius):
            circle = (
                f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}" fill="#ffffff" stroke="{INK}" stroke-width="1.3"/>'
            )
            strokes = (
                f'<polyline points="{_points(s)}" stroke="{INK}" stroke-width="1.6"/>' for s in sign_strokes(shape)
            )
            return circle + "".join(strokes)
