"""Small SVG charts: lines over epochs, reliability of confidences, precision over recall.

Drawn in a box of 360 by 220 units, the width of a phone, so that text keeps its size there; on a wide screen several
stand side by side. Colours are CSS variables of the page, so charts follow the light and the dark scheme. The macro
`figure` of the templates writes a chart as SVG.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from resurge.quantities import number_of, percent

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 12.0, 34.0
MAX_POINTS = 600
MAX_MARKS = 150
STYLES = 6
"""The number of lines in a chart with colours of their own, `s1` to `s6`."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line: its name, its CSS class (`s1` to `s6`: the page gives them colours), its points (x, y)."""

    name: str
    style: str
    points: Sequence[Point]


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
    plot = _Plot(min(xs), max(xs), y_ticks[0], y_ticks[-1])
    plot.grid(y_ticks, show, [(x, f"{x:g}") for x in _epochs(plot.x0, plot.x1)], "epoch")
    for one in drawn:
        plot.line(one.points, one.style)
        plot.dot(one.points[-1], 3.5, f"dot {one.style}")
        # Invisible discs, larger than the line, carry the browser's own tooltips.
        for epoch, value in one.points if len(one.points) <= MAX_MARKS else ():
            plot.dot((epoch, value), 7, "hover", f"{one.name}, epoch {epoch:g}: {show(value)}")
    last = ", ".join(f"{s.name} {show(s.points[-1][1])}" for s in drawn)
    keys = [(s.name, s.style) for s in drawn] if len(drawn) > 1 else []
    return Chart(title, f"{title} by epoch; last: {last}", plot.shapes, keys)


def reliability_chart(bins: Sequence[tuple[float, float, int]]) -> Chart:
    """Accuracy against confidence: `bins` holds (mean confidence, accuracy, number of images), both in 0..1.

    A calibrated network lies on the diagonal: of the images it is 80 % sure of, 80 % are right. The bars below show
    how many images fall in each bin.
    """
    plot, largest = _Plot(), max(n for _, _, n in bins)
    plot.share_grid("confidence")
    plot.add("line", x1=plot.x(0), y1=plot.y(0), x2=plot.x(1), y2=plot.y(1), css="diagonal")
    for confidence, _, n in bins:
        height = (HEIGHT - TOP - BOTTOM) * 0.3 * n / largest
        left, top = plot.x(confidence) - 6, plot.y(0) - height
        plot.add("rect", number_of(n, "image"), x=left, y=top, width=12, height=height, rx=2, css="count")
    plot.line([(confidence, accuracy) for confidence, accuracy, _ in bins], "s1")
    for confidence, accuracy, n in bins:
        title = f"confidence {percent(confidence)}, accuracy {percent(accuracy)}, {number_of(n, 'image')}"
        plot.dot((confidence, accuracy), 4, "dot s1", title)
    label = "Reliability diagram: accuracy by confidence"
    return Chart("Accuracy by confidence", label, plot.shapes, note="bars: images per bin")


def precision_recall_chart(title: str, lines: Sequence[tuple[str, Sequence[float]]]) -> Chart:
    """Precision over recall: for each class its name, and its precision, in 0..1, at recalls evenly from 0 to 1.

    Up to STYLES classes have colours and stand in the legend. More are thin and grey, with their names as tooltips and
    the mean in colour.
    """
    few = len(lines) <= STYLES
    drawn = [(name, f"s{i}" if few else "many", values) for i, (name, values) in enumerate(lines, 1)]
    if not few and len({len(values) for _, values in lines}) == 1:
        mean = [sum(column) / len(lines) for column in zip(*(values for _, values in lines), strict=True)]
        drawn.append((f"mean of {len(lines)} classes", "s1", mean))
    plot = _Plot()
    plot.share_grid("recall")
    for name, style, values in drawn:
        points = [(i / (len(values) - 1), value) for i, value in enumerate(values)]
        plot.line(points, style, f"{name}: AP50 {percent(sum(values) / len(values))}")
    return Chart(title, title, plot.shapes, [(name, style) for name, style, _ in drawn if style != "many"])


@dataclass
class _Plot:
    """The range of the axes, and shapes in the units of the drawing."""

    x0: float = 0.0
    x1: float = 1.0
    y0: float = 0.0
    y1: float = 1.0
    shapes: list[Shape] = field(default_factory=list)

    def x(self, value: float) -> float:
        span = self.x1 - self.x0
        # A single epoch is drawn in the middle.
        return LEFT + (WIDTH - LEFT - RIGHT) * ((value - self.x0) / span if span else 0.5)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - self.y0) / ((self.y1 - self.y0) or 1.0)

    def add(
        self, tag: str, title: str = "", *, text: str = "", css: str = "", anchor: str = "", **numbers: float
    ) -> None:
        """Coordinates have two decimals, as a curve of 300 epochs need not carry sixteen digits."""
        attributes = {name: f"{value:.2f}".rstrip("0").rstrip(".") for name, value in numbers.items()}
        attributes |= {"text-anchor": anchor} if anchor else {}
        attributes |= {"class": css} if css else {}
        self.shapes.append(Shape(tag, attributes, title, text))

    def dot(self, at: Point, radius: float, css: str, title: str = "") -> None:
        self.add("circle", title, cx=self.x(at[0]), cy=self.y(at[1]), r=radius, css=css)

    def line(self, points: Sequence[Point], style: str, title: str = "") -> None:
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        self.shapes.append(Shape("polyline", {"points": path, "class": f"line {style}"}, title))

    def grid(
        self, y_ticks: Sequence[float], show: Callable[[float], str], x_ticks: Sequence[tuple[float, str]], x_label: str
    ) -> None:
        """Lines and numbers of the axes."""
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        for tick in y_ticks:
            y = self.y(tick)
            self.add("line", x1=LEFT, y1=y, x2=right, y2=y, css="grid")
            self.add("text", text=show(tick), x=LEFT - 6, y=y + 4, anchor="end")
        for tick, text in x_ticks:
            x = self.x(tick)
            self.add("text", text=text, x=x, y=bottom + 15, anchor="end" if x > right - 8 else "middle")
        self.add("text", text=x_label, x=(LEFT + right) / 2, y=HEIGHT - 4, anchor="middle", css="faint")

    def share_grid(self, x_label: str) -> None:
        """The axes of a chart of shares in 0..1."""
        x_ticks = [(x, percent(x, 0)) for x in (0.0, 0.5, 1.0)]
        self.grid((0.0, 0.25, 0.5, 0.75, 1.0), lambda y: percent(y, 0), x_ticks, x_label)


def _thin(points: Sequence[Point]) -> list[Point]:
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
