"""Two pictures of the rows: speed against multiply-adds, and published accuracy against speed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resurge.errors import UserError
from resurge.explain.scene import Scene, text_width
from resurge.explain.shapes import GREY, INK, Paint, Rect

Row = Mapping[str, Any]
Point = tuple[float, float]

WIDTH, HEIGHT = 400.0, 300.0  # of a panel's field
LEFT, TOP, GAP, BOTTOM = 64.0, 44.0, 84.0, 52.0
DOT = 9.0
COLOURS = ("#2f6fc1", "#d9822b", "#3c9a5f", "#8460bd", "#c23b4e", "#2a9d9d", "#7a6a3a", "#5b6770")


def plot(rows: Sequence[Row], path: str | Path) -> Path:
    """Draw the rows into an .svg or .png; of several batch sizes the largest.

    Ours are filled, the best setting of the peer is hollow, joined by a line. In the left panel the dashed curve is
    what the yardstick's multiply-adds are worth: above it a network is faster than its multiply-adds say.

    Raises:
        UserError: there is nothing to draw, another suffix, or the file cannot be written.
    """
    check_suffix(path)
    few = [row for row in rows if row["batch"] == max(row["batch"] for row in rows)]
    if not few:
        raise UserError("there is no row to draw.")
    return _scene(few).save(path)


def check_suffix(path: str | Path) -> None:
    """Raises UserError for a name that `plot` would not write to."""
    if Path(path).suffix.lower() not in (".svg", ".png"):
        raise UserError(f"a plot is written as .svg or .png, got {Path(path).name!r}. Give a name with one of these.")


def _scene(rows: Sequence[Row]) -> Scene:
    models = list(dict.fromkeys(row["model"] for row in rows))
    series = list(dict.fromkeys(_series(row) for row in rows))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(series)}
    marks = {name: str(index) for index, name in enumerate(models, 1)}
    known = [row for row in rows if row.get("top1") is not None]
    scene = Scene(f"Speed at batch {rows[0]['batch']}")
    speed = Panel(scene, LEFT, "billions of multiply-adds an image", "images/s")
    speed.draw(rows, colours, marks, lambda row, value: (row["gmacs"], value), zero=(False, True), worth=True)
    scene.width = LEFT + WIDTH + 24
    if known:
        x = LEFT + WIDTH + GAP
        accuracy = Panel(scene, x, "images/s", "published top-1, %")
        accuracy.draw(known, colours, marks, lambda row, value: (value, row["top1"]), zero=(True, False))
        scene.width = x + WIDTH + 24
    bottom = TOP + HEIGHT + BOTTOM
    bottom = _legend(scene, bottom, [(name, colours[name]) for name in series])
    if any(row.get("peer_images_per_s") for row in rows):
        bottom = _legend(scene, bottom, [("filled: ours", GREY), ("hollow: the best setting of the peer", None)])
    if any(row.get("efficiency") for row in rows):
        bottom = _legend(scene, bottom, [("dashed: as fast as its multiply-adds say, by the yardstick", "")])
    bottom = _legend(scene, bottom, [(f"{mark} {name}", "") for name, mark in marks.items()])
    scene.height = bottom
    return scene


def _series(row: Row) -> str:
    return f"{row['runtime']} {row['precision']}"


@dataclass(frozen=True)
class Panel:
    """A field with axes. left: its left edge."""

    scene: Scene
    left: float
    x_name: str
    y_name: str

    def draw(
        self, rows: Sequence[Row], colours: Mapping[str, str], marks: Mapping[str, str],
        place: Callable[[Row, float], Point], zero: tuple[bool, bool], worth: bool = False,
    ) -> None:  # fmt: skip
        """The rows as dots.

        Args:
            place: (x, y) in the units of the axes, of a row and a speed.
            zero: whether an axis begins at 0.
            worth: with the curve of the yardstick's multiply-adds.
        """
        pairs = [(row, [place(row, speed) for speed in _speeds(row)]) for row in rows]
        points = [point for _, both in pairs for point in both]
        x, y = (ticks([point[axis] for point in points], zero[axis]) for axis in (0, 1))
        at = self._axes(x, y)
        if worth:
            self._worth(rows, colours, x, y, at)
        taken: list[Point] = []
        for row, both in pairs:
            colour = colours[_series(row)]
            places = [at(point) for point in both]
            if len(places) > 1:
                self.scene.path(*places, color=colour)
                self._dot(places[1], "#ffffff", colour)
            self._dot(places[0], colour, colour)
            self._mark(places[0], marks[row["model"]], taken)

    def _axes(self, x: Sequence[float], y: Sequence[float]) -> Callable[[Point], Point]:
        def at(point: Point) -> Point:
            across = (point[0] - x[0]) / (x[-1] - x[0])
            up = (point[1] - y[0]) / (y[-1] - y[0])
            return self.left + across * WIDTH, TOP + (1 - up) * HEIGHT

        for tick in y:
            self.scene.path(at((x[0], tick)), at((x[-1], tick)), color="#dde1e6")
            self.scene.text(self.left - 8, at((x[0], tick))[1] + 4, f"{tick:g}", 11, anchor="end", color=GREY)
        for tick in x:
            self.scene.text(at((tick, y[0]))[0], TOP + HEIGHT + 18, f"{tick:g}", 11, color=GREY)
        self.scene.path(at((x[0], y[0])), at((x[-1], y[0])))
        self.scene.text(self.left + WIDTH / 2, TOP + HEIGHT + 38, self.x_name, 12, color=GREY)
        self.scene.text(self.left - 40, TOP - 18, self.y_name, 12, anchor="start", color=GREY)
        return at

    def _worth(
        self, rows: Sequence[Row], colours: Mapping[str, str], x: Sequence[float], y: Sequence[float],
        at: Callable[[Point], Point],
    ) -> None:  # fmt: skip
        """speed x multiply-adds = the yardstick's, for each series that says its efficiency."""
        for name, colour in colours.items():
            row = next((row for row in rows if _series(row) == name and row.get("efficiency")), None)
            if row is None:
                continue
            product = row["images_per_s"] * row["gmacs"] / row["efficiency"]
            steps = [x[0] + (x[-1] - x[0]) * i / 24 for i in range(25)]
            curve = [(gmacs, product / gmacs) for gmacs in steps if gmacs and y[0] <= product / gmacs <= y[-1]]
            if len(curve) > 1:
                self.scene.path(*map(at, curve), dashed=True, color=colour)

    def _mark(self, centre: Point, text: str, taken: list[Point]) -> None:
        """A number beside a dot, on the first of its four sides where no other number is."""
        sides = [(centre[0] + across, centre[1] + down) for across in (10, -10) for down in (-5, 13)]
        free = (side for side in sides if all(abs(side[0] - x) > 10 or abs(side[1] - y) > 10 for x, y in taken))
        place = next(free, sides[0])
        taken.append(place)
        self.scene.text(*place, text, 10.5, color=INK)

    def _dot(self, centre: Point, fill: str, stroke: str) -> None:
        x, y = centre
        self.scene.shapes.append(Rect(x - DOT / 2, y - DOT / 2, DOT, DOT, Paint(fill, stroke), DOT / 2))


def _speeds(row: Row) -> Iterator[float]:
    yield row["images_per_s"]
    if row.get("peer_images_per_s"):
        yield row["peer_images_per_s"]


def _legend(scene: Scene, y: float, entries: Sequence[tuple[str, str | None]]) -> float:
    """Words with dots before them, in lines; a colour of None is a hollow dot, of nothing none. Returns the next y."""
    x = LEFT
    for words, colour in entries:
        width = text_width(words, 12) + (18 if colour != "" else 0) + 18
        if x > LEFT and x + width > scene.width:
            x, y = LEFT, y + 20
        if colour != "":
            paint = Paint(colour or "#ffffff", colour or GREY)
            scene.shapes.append(Rect(x, y + 6, DOT, DOT, paint, DOT / 2))
        scene.text(x + (16 if colour != "" else 0), y + 15, words, 12, anchor="start", color=GREY)
        x += width
    return y + 24


def ticks(values: Sequence[float], zero: bool, wanted: int = 5) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten) that enclose `values`, from 0 if asked.

    >>> ticks([3, 47], True)
    [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]
    """
    low, high = 0.0 if zero else min(values), max(values)
    if high <= low:
        low, high = low - (abs(low) * 0.1 or 1.0), high + (abs(high) * 0.1 or 1.0)
    power = 10.0 ** math.floor(math.log10((high - low) / wanted))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (power * factor) <= wanted)
    return [round(n * step, 12) for n in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]
