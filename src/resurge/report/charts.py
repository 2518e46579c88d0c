"""Small SVG charts: lines over epochs, reliability of confidences, precision over recall.

Drawn in a box of 360 by 220 units, the width of a phone, so that text keeps its size there; on a wide screen several
stand side by side. Colours are CSS variables of the page, so charts follow the light and the dark scheme. The macro
`figure` of the templates writes a chart as SVG.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from resurge.quantities import percent

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 12.0, 34.0
MAX_POINTS = 600
MAX_MARKS = 150
STYLES = 6
"""The number of lines in a chart with colours of their own, `s1` to `s6`."""


@dataclass(frozen=True)
class Series:
    """One line: its name, its CSS class (`s1` to `s6`: the page gives them colours), its points (x, y)."""

    name: str
    style: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Shape:
    """One SVG element, with a tooltip or a text."""

    tag: str
    attributes: dict[str, str]
    title: str = ""
    text: str = ""


@dataclass(frozen=True)
class Chart:
    """A figure: its title, the names and CSS classes of its legend, what a screen reader says, and its elements."""

    title: str
    label: str
    shapes: Sequence[Shape]
    keys: Sequence[tuple[str, str]] = ()
    note: str = ""
    size: tuple[int, int] = (WIDTH, HEIGHT)


def line_chart(
    title: str, series: Sequence[Series], *, show: Callable[[float], str] = "{:.3g}".format, from_zero: bool = False
) -> Chart | None:
    """One line for each series over the epochs, or None when no series has a point.

    `show` writes a value of the y axis. Each point carries its value as a tooltip.
    """
    drawn = [Series(s.name, s.style, _thin(s.points)) for s in series if s.points]
    if not drawn:
        return None
    xs = [x for s in drawn for x, _ in s.points]
    ys = [y for s in drawn for _, y in s.points]
    y_ticks = ticks(min(0.0, *ys) if from_zero else min(ys), max(ys))
    axes = _Axes(min(xs), max(xs), y_ticks[0], y_ticks[-1])
    shapes = axes.grid(y_ticks, show, [(x, f"{x:g}") for x in _epochs(axes.x0, axes.x1)], "epoch")
    for one in drawn:
        shapes += _line(axes, one, show)
    last = ", ".join(f"{s.name} {show(s.points[-1][1])}" for s in drawn)
    keys = [(s.name, s.style) for s in drawn] if len(drawn) > 1 else []
    return Chart(title, f"{title} by epoch; last: {last}", shapes, keys)


def reliability_chart(bins: Sequence[tuple[float, float, int]]) -> Chart:
    """Accuracy against confidence: `bins` holds (mean confidence, accuracy, number of images), both in 0..1.

    A calibrated network lies on the diagonal: of the images it is 80 % sure of, 80 % are right. The bars below show
    how many images fall in each bin.
    """
    axes = _Axes(0.0, 1.0, 0.0, 1.0)
    largest = max(n for _, _, n in bins)
    shapes = axes.share_grid("confidence")
    shapes.append(_shape("line", x1=axes.x(0), y1=axes.y(0), x2=axes.x(1), y2=axes.y(1), css="diagonal"))
    for confidence, _, n in bins:
        height = (HEIGHT - TOP - BOTTOM) * 0.3 * n / largest
        left, top = axes.x(confidence) - 6, axes.y(0) - height
        shapes.append(_shape("rect", f"{n} images", x=left, y=top, width=12, height=height, rx=2, css="count"))
    shapes.append(_polyline([axes.at(confidence, accuracy) for confidence, accuracy, _ in bins], "s1"))
    for confidence, accuracy, n in bins:
        title = f"confidence {percent(confidence)}, accuracy {percent(accuracy)}, {n} images"
        shapes.append(_shape("circle", title, cx=axes.x(confidence), cy=axes.y(accuracy), r=4, css="dot s1"))
    label = "Reliability diagram: accuracy by confidence"
    return Chart("Accuracy by confidence", label, shapes, note="bars: images a bin")


def precision_recall_chart(title: str, lines: Sequence[tuple[str, Sequence[float]]]) -> Chart:
    """Precision over recall: for each class its name, and its precision, in 0..1, at recalls evenly from 0 to 1.

    Up to STYLES classes have colours and stand in the legend. More are thin and grey, with their names as tooltips and
    the mean in colour.
    """
    axes = _Axes(0.0, 1.0, 0.0, 1.0)
    few = len(lines) <= STYLES
    drawn = [(name, f"s{i}" if few else "many", values) for i, (name, values) in enumerate(lines, 1)]
    if not few and len({len(values) for _, values in lines}) == 1:
        mean = [sum(column) / len(lines) for column in zip(*(values for _, values in lines), strict=True)]
        drawn.append((f"mean of {len(lines)} classes", "s1", mean))
    shapes = axes.share_grid("recall")
    for name, style, values in drawn:
        points = [axes.at(i / (len(values) - 1), value) for i, value in enumerate(values)]
        shapes.append(_polyline(points, style, f"{name}: AP50 {percent(sum(values) / len(values))}"))
    return Chart(title, title, shapes, [(name, style) for name, style, _ in drawn if style != "many"])


@dataclass(frozen=True)
class _Axes:
    """The map from data to drawing units."""

    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: float) -> float:
        span = self.x1 - self.x0
        # A single epoch is drawn in the middle.
        return LEFT + (WIDTH - LEFT - RIGHT) * ((value - self.x0) / span if span else 0.5)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - self.y0) / ((self.y1 - self.y0) or 1.0)

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self.x(x), self.y(y)

    def grid(
        self, y_ticks: Sequence[float], show: Callable[[float], str], x_ticks: Sequence[tuple[float, str]], x_label: str
    ) -> list[Shape]:
        """Lines and numbers of the axes."""
        shapes = []
        for tick in y_ticks:
            y = self.y(tick)
            shapes.append(_shape("line", x1=LEFT, y1=y, x2=WIDTH - RIGHT, y2=y, css="grid"))
            shapes.append(_shape("text", text=show(tick), x=LEFT - 6, y=y + 4, anchor="end"))
        for tick, text in x_ticks:
            x = self.x(tick)
            anchor = "end" if x > WIDTH - RIGHT - 8 else "middle"
            shapes.append(_shape("text", text=text, x=x, y=HEIGHT - BOTTOM + 15, anchor=anchor))
        middle = (LEFT + WIDTH - RIGHT) / 2
        return [*shapes, _shape("text", text=x_label, x=middle, y=HEIGHT - 4, anchor="middle", css="faint")]

    def share_grid(self, x_label: str) -> list[Shape]:
        """The axes of a chart of shares in 0..1."""
        x_ticks = [(x, percent(x, 0)) for x in (0.0, 0.5, 1.0)]
        return self.grid((0.0, 0.25, 0.5, 0.75, 1.0), lambda y: percent(y, 0), x_ticks, x_label)


def _shape(tag: str, title: str = "", *, text: str = "", css: str = "", anchor: str = "", **numbers: float) -> Shape:
    """An element; its coordinates have two decimals, as a curve of 300 epochs need not carry sixteen digits."""
    attributes = {name: f"{value:.2f}".rstrip("0").rstrip(".") for name, value in numbers.items()}
    attributes |= {"text-anchor": anchor} if anchor else {}
    attributes |= {"class": css} if css else {}
    return Shape(tag, attributes, title, text)


def _polyline(points: Sequence[tuple[float, float]], style: str, title: str = "") -> Shape:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return Shape("polyline", {"points": path, "class": f"line {style}"}, title)


def _line(axes: _Axes, series: Series, show: Callable[[float], str]) -> list[Shape]:
    points = [axes.at(x, y) for x, y in series.points]
    last_x, last_y = points[-1]
    shapes = [
        _polyline(points, series.style),
        _shape("circle", cx=last_x, cy=last_y, r=3.5, css=f"dot {series.style}"),
    ]
    if len(points) <= MAX_MARKS:
        # Invisible discs, larger than the line, carry the browser's own tooltips.
        for (x, y), (epoch, value) in zip(points, series.points, strict=True):
            title = f"{series.name}, epoch {epoch:g}: {show(value)}"
            shapes.append(_shape("circle", title, cx=x, cy=y, r=7, css="hover"))
    return shapes


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MAX_POINTS of the points, evenly spaced, the last one kept."""
    if len(points) <= MAX_POINTS:
        return list(points)
    step = math.ceil(len(points) / MAX_POINTS)
    return [*points[: len(points) - 1 : step], points[-1]]


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
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
    step = max(1.0, ticks(0.0, max(last - first, 1.0), 6)[1])
    return [first + k * step for k in range(int((last - first) / step + 1e-9) + 1)]
