"""Small SVG charts for the report: lines over epochs, and the reliability of confidences.

Drawn in a box of 360 by 220 units, the width of a phone, so that text keeps its size there; on a wide screen several
stand side by side. Colours are CSS variables of the page, so charts follow the light and the dark scheme.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from resurge.report.markup import Markup, join, percent, tag

WIDTH, HEIGHT = 360.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 12.0, 34.0
MAX_POINTS = 600
MAX_MARKS = 150
STYLES = 6
"""So many lines of a chart have a colour of their own, `s1` to `s6`."""


@dataclass(frozen=True)
class Series:
    """One line: its name, its CSS class (`s1` to `s6`: the page gives them colours), its points (x, y)."""

    name: str
    style: str
    points: Sequence[tuple[float, float]]


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    show: Callable[[float], str] = lambda y: f"{y:.3g}",
    from_zero: bool = False,
) -> Markup | None:
    """A figure with one line for each series over the epochs, or None when no series has a point.

    `show` writes a value of the y axis. Each point carries its value as a tooltip.
    """
    drawn = [Series(s.name, s.style, _thin(s.points)) for s in series if s.points]
    if not drawn:
        return None
    xs = [x for s in drawn for x, _ in s.points]
    ys = [y for s in drawn for _, y in s.points]
    ticks = _ticks(min(0.0, *ys) if from_zero else min(ys), max(ys))
    axes = _Axes(min(xs), max(xs), ticks[0], ticks[-1])
    body = [_grid(axes, ticks, show), *(_line(axes, s, show) for s in drawn)]
    legend = tag("span", [tag("span", s.name, class_=f"key {s.style}") for s in drawn], class_="legend")
    picture = tag(
        "svg",
        body,
        viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
        role="img",
        aria_label=f"{title} by epoch; last: " + ", ".join(f"{s.name} {show(s.points[-1][1])}" for s in drawn),
    )
    return tag("figure", tag("figcaption", tag("b", title), legend if len(drawn) > 1 else None), picture, class_="card")


def reliability_chart(bins: Sequence[tuple[float, float, int]]) -> Markup | None:
    """Accuracy against confidence: `bins` holds (mean confidence, accuracy, number of images), both in 0..1.

    A calibrated network lies on the diagonal: of the images it is 80 % sure of, 80 % are right. The bars below show
    how many images fall in each bin. None when no bin has an image.
    """
    filled = [(c, a, n) for c, a, n in bins if n > 0 and 0 <= c <= 1 and 0 <= a <= 1]
    if not filled:
        return None
    axes = _Axes(0.0, 1.0, 0.0, 1.0)
    most = max(n for _, _, n in filled)
    parts: list[Markup] = [
        _grid(axes, [0.0, 0.25, 0.5, 0.75, 1.0], lambda y: percent(y, 0), x_ticks=(0.0, 0.5, 1.0), x_label="confidence")
    ]
    parts.append(tag("line", x1=axes.x(0), y1=axes.y(0), x2=axes.x(1), y2=axes.y(1), class_="diagonal"))
    for confidence, _, count in filled:
        height = (HEIGHT - TOP - BOTTOM) * 0.3 * count / most
        parts.append(
            tag(
                "rect",
                tag("title", f"{count} images"),
                x=axes.x(confidence) - 6,
                y=axes.y(0) - height,
                width=12,
                height=height,
                rx=2,
                class_="count",
            )
        )
    path = " ".join(f"{axes.x(c):.1f},{axes.y(a):.1f}" for c, a, _ in filled)
    parts.append(tag("polyline", points=path, class_="line s1"))
    for confidence, accuracy, count in filled:
        told = f"confidence {percent(confidence)}, accuracy {percent(accuracy)}, {count} images"
        parts.append(
            tag("circle", tag("title", told), cx=axes.x(confidence), cy=axes.y(accuracy), r=4, class_="dot s1")
        )
    caption = tag(
        "figcaption",
        tag("b", "Accuracy by confidence"),
        tag("span", tag("span", "bars: images a bin", class_="note"), class_="legend"),
    )
    picture = tag(
        "svg",
        parts,
        viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
        role="img",
        aria_label="Reliability diagram: accuracy by confidence",
    )
    return tag("figure", caption, picture, class_="card")


def precision_recall_chart(title: str, lines: Sequence[tuple[str, Sequence[float]]]) -> Markup | None:
    """Precision over recall: a class and its precision, in 0..1, at recalls evenly from 0 to 1, for each line.

    Up to STYLES classes have colours and stand in the legend. More are thin and grey, with the mean in colour, and tell
    their name as a tooltip. None without a line.
    """
    if not lines:
        return None
    ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
    axes = _Axes(0.0, 1.0, 0.0, 1.0)
    parts = [_grid(axes, ticks, lambda y: percent(y, 0), x_ticks=(0.0, 0.5, 1.0), x_label="recall")]
    few = len(lines) <= STYLES
    drawn = [(name, f"s{i}" if few else "many", values) for i, (name, values) in enumerate(lines, 1)]
    if not few and len({len(values) for _, values in lines}) == 1:
        mean = [sum(column) / len(lines) for column in zip(*(values for _, values in lines), strict=True)]
        drawn.append((f"mean of {len(lines)} classes", "s1", mean))
    for name, style, values in drawn:
        last = len(values) - 1
        path = " ".join(f"{axes.x(i / last):.1f},{axes.y(value):.1f}" for i, value in enumerate(values))
        told = f"{name}: AP50 {percent(sum(values) / len(values))}"
        parts.append(tag("polyline", tag("title", told), points=path, class_=f"line {style}"))
    keys = [tag("span", name, class_=f"key {style}") for name, style, _ in drawn if style != "many"]
    picture = tag("svg", parts, viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}", role="img", aria_label=title)
    caption = tag("figcaption", tag("b", title), tag("span", keys, class_="legend"))
    return tag("figure", caption, picture, class_="card")


@dataclass(frozen=True)
class _Axes:
    """The map from data to drawing units."""

    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: float) -> float:
        span = self.x1 - self.x0
        # One epoch only: the point stands in the middle.
        return LEFT + (WIDTH - LEFT - RIGHT) * ((value - self.x0) / span if span else 0.5)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - self.y0) / ((self.y1 - self.y0) or 1.0)


def _grid(
    axes: _Axes,
    ticks: Sequence[float],
    show: Callable[[float], str],
    x_ticks: Sequence[float] | None = None,
    x_label: str = "epoch",
) -> Markup:
    """Lines and numbers; `x_ticks` are shares, without them the x axis is of epochs."""
    parts = []
    for tick in ticks:
        y = axes.y(tick)
        parts.append(tag("line", x1=LEFT, y1=y, x2=WIDTH - RIGHT, y2=y, class_="grid"))
        parts.append(tag("text", show(tick), x=LEFT - 6, y=y + 4, text_anchor="end"))
    for tick in x_ticks if x_ticks is not None else _epochs(axes.x0, axes.x1):
        text = percent(tick, 0) if x_ticks is not None else f"{tick:g}"
        anchor = "end" if axes.x(tick) > WIDTH - RIGHT - 8 else "middle"
        parts.append(tag("text", text, x=axes.x(tick), y=HEIGHT - BOTTOM + 15, text_anchor=anchor))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(tag("text", x_label, x=middle, y=HEIGHT - 4, text_anchor="middle", class_="faint"))
    return join(parts)


def _line(axes: _Axes, series: Series, show: Callable[[float], str]) -> Markup:
    points = [(axes.x(x), axes.y(y)) for x, y in series.points]
    parts = [tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=f"line {series.style}")]
    last_x, last_y = points[-1]
    parts.append(tag("circle", cx=last_x, cy=last_y, r=3.5, class_=f"dot {series.style}"))
    if len(points) <= MAX_MARKS:
        # Invisible discs, larger than the line, carry the browser's own tooltips.
        for (x, y), (epoch, value) in zip(points, series.points, strict=True):
            told = f"{series.name}, epoch {epoch:g}: {show(value)}"
            parts.append(tag("circle", tag("title", told), cx=x, cy=y, r=7, class_="hover"))
    return join(parts)


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MAX_POINTS of the points, evenly spaced, the last one kept."""
    if len(points) <= MAX_POINTS:
        return list(points)
    step = math.ceil(len(points) / MAX_POINTS)
    return [*points[: len(points) - 1 : step], points[-1]]


def _ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round values (1, 2, 2.5 or 5 times a power of ten) that enclose low..high."""
    if high <= low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / (wanted - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= rough * 0.999), 10 * power)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _epochs(first: float, last: float) -> list[float]:
    """A few whole epochs in first..last."""
    step = max(1.0, _ticks(0.0, max(last - first, 1.0), 6)[1])
    return [first + k * step for k in range(int((last - first) / step + 1e-9) + 1)]
