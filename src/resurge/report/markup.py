"""HTML and SVG put together so that text is escaped unless it was made here.

Class names, file names and recipe lines come from users' folders. A plain `str` handed to :func:`tag` is therefore
always escaped; only a :class:`Markup`, which nothing but this module makes, goes through as it is.
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterable


class Markup(str):
    """A string that already is HTML or SVG."""

    __slots__ = ()


Child = str | int | float | None | Iterable["Child"]
VOID = frozenset({"img", "br", "hr", "meta", "link", "col"})


def escape(text: object) -> Markup:
    """`text` as character data; control characters, and file names' bytes that are no text, become U+FFFD."""
    if isinstance(text, Markup):
        return text
    visible = "".join("\ufffd" if (c < " " and c not in "\n\t") or "\ud800" <= c <= "\udfff" else c for c in str(text))
    return Markup(html.escape(visible, quote=True))


def join(*children: Child) -> Markup:
    """The children one after the other; None is left out, iterables are flattened."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, str | int | float):
            parts.append(escape(child))
        else:
            parts.append(join(*child))
    return Markup("".join(parts))


def tag(name: str, /, *children: Child, **attributes: object) -> Markup:
    """`<name a="b">children</name>`.

    In attribute names a trailing underscore is dropped (`class_`) and others become hyphens (`stroke_width`). An
    attribute that is None or False is left out; True writes the bare name.
    """
    written = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        label = key.rstrip("_").replace("_", "-") if key != "viewBox" else key
        written.append(f" {label}" if value is True else f' {label}="{escape(_plain(value))}"')
    opening = f"<{name}{''.join(written)}>"
    return Markup(opening if name in VOID else f"{opening}{join(*children)}</{name}>")


def _plain(value: object) -> object:
    """Coordinates to two decimals: a curve of 300 epochs need not carry sixteen digits."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def data_uri(content: bytes) -> str | None:
    """`content` as a data URI when it is a PNG, a JPEG or an SVG, else None.

    The SVG is meant for an `<img>`, where browsers run no script and load nothing from outside.
    """
    head = content[:256].lstrip()
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        kind = "png"
    elif content.startswith(b"\xff\xd8\xff"):
        kind = "jpeg"
    elif head.startswith((b"<svg", b"<?xml")):
        kind = "svg+xml"
    else:
        return None
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def percent(fraction: float, digits: int = 1) -> str:
    """0.1234 as "12.3 %"; "–" when it is not a number."""
    return f"{100 * fraction:.{digits}f}\u202f%" if math.isfinite(fraction) else "–"


def quantity(value: float) -> str:
    """Three significant digits with k, M, G or T: 25557032 as "25.6 M"."""
    if not math.isfinite(value):
        return "–"
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            scaled = value / size
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}\u202f{unit}"
    return f"{value:.4g}"


def memory(size: float) -> str:
    """Bytes as "12.3 MiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024 or unit == "GiB":
            return f"{size:.0f}\u202f{unit}" if unit == "B" else f"{size:.1f}\u202f{unit}"
        size /= 1024
    raise AssertionError("unreachable: the loop returns at GiB")


def duration(seconds: float) -> str:
    """Seconds as "45 s", "2 min 05 s" or "3 h 20 min"."""
    if not math.isfinite(seconds):
        return "–"
    total = round(seconds)
    if total < 60:
        return f"{total}\u202fs"
    if total < 3600:
        return f"{total // 60}\u202fmin {total % 60:02d}\u202fs"
    return f"{total // 3600}\u202fh {total % 3600 // 60:02d}\u202fmin"
