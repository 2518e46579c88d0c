"""Pictures put together from pictures: boxes in a column, branches side by side, a residual sum.

Every picture has a size and an axis: the x at which the data enters at its top and leaves at its bottom. All lengths
are in the units of the scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from resurge.explain.scene import Scene, text_width
from resurge.explain.shapes import GREY

GAP = 22.0
LABEL_GAP = 34.0
SIDE_GAP = 18.0
PAD = 12.0
CAPTION = 18.0
SIGN = 10.0


class Picture(Protocol):
    """Something that can be drawn with its upper left corner anywhere."""

    @property
    def width(self) -> float: ...
    @property
    def height(self) -> float: ...
    @property
    def axis(self) -> float: ...
    @property
    def open_top(self) -> bool:
        """A line simply continues into the picture; False: an arrow ends at its edge."""
        ...

    def draw(self, scene: Scene, x: float, y: float) -> None: ...


@dataclass(frozen=True)
class Box:
    """A filled box: a title and lines of detail."""

    title: str
    lines: tuple[str, ...] = ()
    paint: str = "conv"
    min_width: float = 92.0
    open_top: bool = False

    @property
    def width(self) -> float:
        widths = [text_width(self.title, 13, bold=True), *(text_width(line, 11.5) for line in self.lines)]
        return max(self.min_width, max(widths) + 20)

    @property
    def height(self) -> float:
        return 28.0 + 15.5 * len(self.lines)

    @property
    def axis(self) -> float:
        return self.width / 2

    def draw(self, scene: Scene, x: float, y: float) -> None:
        scene.rect(x, y, self.width, self.height, self.paint)
        middle = x + self.width / 2
        scene.text(middle, y + 18.5, self.title, 13, bold=True)
        for i, line in enumerate(self.lines):
            scene.text(middle, y + 34.5 + 15.5 * i, line, 11.5)


@dataclass(frozen=True)
class Wire:
    """Nothing but the line that carries the data through."""

    height: float = 0.0
    width: float = 8.0
    open_top: bool = True

    @property
    def axis(self) -> float:
        return self.width / 2

    def draw(self, scene: Scene, x: float, y: float) -> None:
        if self.height:
            scene.path((x + self.axis, y), (x + self.axis, y + self.height))


@dataclass(frozen=True)
class Column:
    """Pictures one below the other on one axis, joined by arrows; `labels[i]` stands beside the arrow behind part i."""

    parts: Sequence[Picture]
    labels: Sequence[str | None] = ()

    @property
    def open_top(self) -> bool:
        return bool(self.parts) and self.parts[0].open_top

    def _label(self, i: int) -> str | None:
        return self.labels[i] if i < len(self.labels) else None

    def _gap(self, i: int) -> float:
        return LABEL_GAP if self._label(i) else GAP

    @property
    def axis(self) -> float:
        return max((part.axis for part in self.parts), default=4.0)

    @property
    def width(self) -> float:
        right = [part.width - part.axis for part in self.parts]
        right += [text_width(label, 11.5) + 12 for label in self.labels if label]
        return self.axis + max(right, default=4.0)

    @property
    def height(self) -> float:
        gaps = sum(self._gap(i) for i in range(len(self.parts) - 1))
        return sum(part.height for part in self.parts) + gaps

    def draw(self, scene: Scene, x: float, y: float) -> None:
        axis = x + self.axis
        for i, part in enumerate(self.parts):
            part.draw(scene, axis - part.axis, y)
            y += part.height
            if i < len(self.parts) - 1:
                gap = self._gap(i)
                scene.path((axis, y), (axis, y + gap), arrow=not self.parts[i + 1].open_top)
                label = self._label(i)
                if label:
                    scene.text(axis + 9, y + gap / 2 + 3, label, 11.5, color=GREY, anchor="start")
                y += gap


@dataclass(frozen=True)
class Frame:
    """A dashed frame with a caption around a picture."""

    inner: Picture
    caption: str
    open_top: bool = True

    @property
    def width(self) -> float:
        return max(self.inner.width + 2 * PAD, self._left + text_width(self.caption, 11.5) + PAD)

    @property
    def _left(self) -> float:
        return PAD

    @property
    def height(self) -> float:
        return self.inner.height + 2 * PAD + CAPTION

    @property
    def axis(self) -> float:
        return self._left + self.inner.axis

    def draw(self, scene: Scene, x: float, y: float) -> None:
        scene.rect(x, y, self.width, self.height, None)
        # On the far side of the axis, where no line passes.
        scene.text(x + self.width - PAD + 2, y + 16, self.caption, 11.5, color=GREY, anchor="end")
        top, axis = y + PAD + CAPTION, x + self.axis
        scene.path((axis, y), (axis, top), arrow=not self.inner.open_top)
        self.inner.draw(scene, x + self._left, top)
        scene.path((axis, top + self.inner.height), (axis, y + self.height))


@dataclass(frozen=True)
class Weighted:
    """Branches side by side, each scaled by a weight that `attention` computes from all of them, then summed.

    With one branch this is a gate: y = x * weight(x).
    """

    branches: Sequence[Picture]
    attention: Picture
    open_top: bool = True

    @property
    def _span(self) -> float:
        return sum(branch.width for branch in self.branches) + SIDE_GAP * (len(self.branches) - 1)

    @property
    def _fan(self) -> float:
        """Height of the lines above the branches."""
        return GAP if len(self.branches) > 1 else 0.0

    @property
    def _body(self) -> float:
        return max(branch.height for branch in self.branches)

    @property
    def _mid(self) -> float:
        """Height between the branches' ends and their multiplication: the attention stands beside it."""
        return max(26.0 + self.attention.height + 30.0, 60.0)

    @property
    def axis(self) -> float:
        return self._span / 2

    @property
    def width(self) -> float:
        return self._span + SIDE_GAP + 8 + self.attention.width

    @property
    def height(self) -> float:
        tail = GAP + 2 * SIGN if len(self.branches) > 1 else 0.0
        return self._fan + self._body + self._mid + 2 * SIGN + tail

    def _centers(self, x: float) -> list[float]:
        centers = []
        for branch in self.branches:
            centers.append(x + branch.axis)
            x += branch.width + SIDE_GAP
        return centers

    def draw(self, scene: Scene, x: float, y: float) -> None:
        axis, centers = x + self.axis, self._centers(x)
        top = y + self._fan
        if self._fan:
            scene.path((centers[0], y + 8), (centers[-1], y + 8))
            scene.path((axis, y), (axis, y + 8))
        end = top + self._body
        times = end + self._mid + SIGN
        side = x + self._span + SIDE_GAP + 8
        taken = end + 12
        for branch, center in zip(self.branches, centers, strict=True):
            if self._fan:
                scene.path((center, y + 8), (center, top), arrow=not branch.open_top)
            branch.draw(scene, center - branch.axis, top)
            scene.path((center, top + branch.height), (center, times - SIGN), arrow=True)
            scene.sign(center, taken, "", 2.6)
        into = side + self.attention.axis
        above = end + 26.0
        scene.path((centers[0], taken), (into, taken), (into, above), arrow=True)
        self.attention.draw(scene, side, above)
        # The weights come back on dashed lines, so that they are not taken for the maps.
        bottom = above + self.attention.height
        back = times - SIGN - 14
        scene.path((into, bottom), (into, back), (centers[0] + 26, back), dashed=True)
        for center in centers:
            scene.path((center + 26, back), (center + 26, times), (center + SIGN, times), arrow=True, dashed=True)
            scene.sign(center, times, "×")
        if len(centers) > 1:
            plus = times + SIGN + GAP + SIGN
            for center in centers:
                if abs(center - axis) < 1:
                    scene.path((center, times + SIGN), (axis, plus - SIGN), arrow=True)
                else:
                    edge = axis - SIGN if center < axis else axis + SIGN
                    scene.path((center, times + SIGN), (center, plus), (edge, plus), arrow=True)
            scene.sign(axis, plus, "+")


@dataclass(frozen=True)
class Cascade:
    """The channels cut into pieces; each piece has a picture, and may take the result of the one before it.

    `carries[i]` adds the output of piece i - 1 to the input of piece i. The outputs are concatenated.
    """

    pieces: Sequence[Picture]
    carries: Sequence[bool]
    inputs: Sequence[str]
    outputs: Sequence[str]
    concat: str
    open_top: bool = False

    @property
    def _top(self) -> float:
        return 52.0 + (2 * SIGN + 14 if any(self.carries) else 0.0)

    @property
    def _gap(self) -> float:
        return SIDE_GAP + (14 if any(self.carries) else 0)

    @property
    def _bar(self) -> float:
        return max(self._span, text_width(self.concat, 11.5) + 24)

    @property
    def _span(self) -> float:
        return sum(piece.width for piece in self.pieces) + self._gap * (len(self.pieces) - 1)

    @property
    def width(self) -> float:
        return self._bar

    @property
    def axis(self) -> float:
        return self.width / 2

    @property
    def height(self) -> float:
        return self._top + max(piece.height for piece in self.pieces) + 44 + 24

    def draw(self, scene: Scene, x: float, y: float) -> None:
        body = max(piece.height for piece in self.pieces)
        begin, top, end = y + 24, y + self._top, y + self._top + body
        floor = end + 44
        scene.rect(x, y, self.width, 24, "plain")
        scene.text(x + self.axis, y + 16, "slice the channels", 11.5)
        scene.rect(x, floor, self.width, 24, "plain")
        scene.text(x + self.axis, floor + 16, self.concat, 11.5)
        left = x + (self.width - self._span) / 2
        before: tuple[float, float] | None = None
        for i, piece in enumerate(self.pieces):
            center = left + piece.axis
            scene.text(center + 7, begin + 16, self.inputs[i], 11.5, color=GREY, anchor="start")
            if self.carries[i] and before is not None:
                plus = top - 14 - SIGN
                scene.path((center, begin), (center, plus - SIGN), arrow=True)
                scene.path((center, plus + SIGN), (center, top), arrow=True)
                lane = left - self._gap / 2 - 1
                scene.path(before, (lane, before[1]), (lane, plus), (center - SIGN, plus), arrow=True)
                scene.sign(before[0], before[1], "", 2.6)
                scene.sign(center, plus, "+")
            else:
                scene.path((center, begin), (center, top), arrow=piece.height > 0)
            piece.draw(scene, left, top)
            scene.path((center, top + piece.height), (center, floor), arrow=True)
            scene.text(center + 7, floor - 8, self.outputs[i], 11.5, color=GREY, anchor="start")
            before = (center, end + 14)
            left += piece.width + self._gap


@dataclass(frozen=True)
class Sum:
    """y = tail(trunk(x) + shortcut(x)): the shortcut runs on the left."""

    trunk: Picture
    shortcut: Picture
    tail: Picture
    shortcut_label: str | None = None
    open_top: bool = True

    @property
    def _left(self) -> float:
        label = text_width(self.shortcut_label, 11.5) + 14 if self.shortcut_label else 0.0
        return max(self.shortcut.width, label) + 2 * SIDE_GAP

    @property
    def axis(self) -> float:
        return self._left + self.trunk.axis

    @property
    def width(self) -> float:
        return self._left + max(self.trunk.width, self.trunk.axis + self.tail.width - self.tail.axis)

    @property
    def _body(self) -> float:
        return max(self.trunk.height, self.shortcut.height)

    @property
    def height(self) -> float:
        return GAP + self._body + GAP + 2 * SIGN + GAP + self.tail.height

    def draw(self, scene: Scene, x: float, y: float) -> None:
        axis = x + self.axis
        fork, top = y + 6, y + GAP
        plus = top + self._body + GAP + SIGN
        lane = x + self.shortcut.axis
        scene.path((axis, y), (axis, top), arrow=not self.trunk.open_top)
        scene.sign(axis, fork, "", 2.6)
        self.trunk.draw(scene, axis - self.trunk.axis, top)
        scene.path((axis, top + self.trunk.height), (axis, plus - SIGN), arrow=True)
        middle = top + (self._body - self.shortcut.height) / 2
        scene.path((axis, fork), (lane, fork), (lane, middle), arrow=not self.shortcut.open_top)
        self.shortcut.draw(scene, x, middle)
        scene.path((lane, middle + self.shortcut.height), (lane, plus), (axis - SIGN, plus), arrow=True)
        if self.shortcut_label:
            scene.text(lane + 7, middle + 4, self.shortcut_label, 11.5, color=GREY, anchor="start")
        scene.sign(axis, plus, "+")
        scene.path((axis, plus + SIGN), (axis, plus + SIGN + GAP), arrow=True)
        self.tail.draw(scene, axis - self.tail.axis, plus + SIGN + GAP)
