"""Pictures put together from pictures: boxes in a column, branches side by side, a residual sum.

All lengths are in the units of the scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resurge.explain.scene import GREY, Line, Point, Rect, Shape, Sign, Text, moved, text_width

GAP = 22.0
LABEL_GAP = 34.0
SIDE_GAP = 18.0
PAD = 12.0
CAPTION = 18.0
SIGN = 10.0
DOT = 2.6


@dataclass(frozen=True)
class Picture:
    """Shapes whose upper left corner is the origin.

    Attributes:
        axis: the x at which the data enters at the top and leaves at the bottom.
        open_top: whether a line simply continues into the picture; otherwise an arrow ends at its edge.
    """

    width: float
    height: float
    axis: float
    shapes: Sequence[Shape]
    open_top: bool = False

    def at(self, x: float, y: float) -> list[Shape]:
        """The shapes with the upper left corner there."""
        return [moved(shape, x, y) for shape in self.shapes]


def _path(*points: Point, arrow: bool = False, dashed: bool = False) -> Line:
    return Line(points, arrow, dashed)


def _note(x: float, y: float, text: str, anchor: str = "start") -> Text:
    return Text(x, y, text, 11.5, GREY, anchor)


def box(title: str, lines: Sequence[str] = (), paint: str = "conv", min_width: float = 92.0) -> Picture:
    """A filled box: a title and lines of detail."""
    widths = [text_width(title, 13, bold=True), *(text_width(line, 11.5) for line in lines)]
    width, height = max(min_width, max(widths) + 20), 28.0 + 15.5 * len(lines)
    shapes: list[Shape] = [Rect(0, 0, width, height, paint), Text(width / 2, 18.5, title, bold=True)]
    shapes += [Text(width / 2, 34.5 + 15.5 * i, line, 11.5) for i, line in enumerate(lines)]
    return Picture(width, height, width / 2, shapes)


def wire(width: float = 8.0) -> Picture:
    """Nothing but the line that carries the data through."""
    return Picture(width, 0.0, width / 2, (), open_top=True)


def column(parts: Sequence[Picture], labels: Sequence[str | None] = ()) -> Picture:
    """Pictures one below the other on one axis, joined by arrows; `labels[i]` stands beside the arrow behind part i."""
    axis, y = max(part.axis for part in parts), 0.0
    shapes: list[Shape] = []
    for i, part in enumerate(parts):
        if i:
            label = labels[i - 1] if i <= len(labels) else None
            gap = LABEL_GAP if label else GAP
            shapes.append(_path((axis, y), (axis, y + gap), arrow=not part.open_top))
            if label:
                shapes.append(_note(axis + 9, y + gap / 2 + 3, label))
            y += gap
        shapes += part.at(axis - part.axis, y)
        y += part.height
    right = max(part.width - part.axis for part in parts)
    right = max([right, *(text_width(label, 11.5) + 12 for label in labels if label)])
    return Picture(axis + right, y, axis, shapes, parts[0].open_top)


def frame(inner: Picture, caption: str) -> Picture:
    """A dashed frame with a caption around a picture."""
    width = max(inner.width + 2 * PAD, text_width(caption, 11.5) + 2 * PAD)
    top, axis = PAD + CAPTION, PAD + inner.axis
    height = top + inner.height + PAD
    shapes: list[Shape] = [
        Rect(0, 0, width, height, None),
        _note(width - PAD + 2, 16, caption, "end"),  # on the far side of the axis, where no line passes
        _path((axis, 0), (axis, top), arrow=not inner.open_top),
        *inner.at(PAD, top),
        _path((axis, top + inner.height), (axis, height)),
    ]
    return Picture(width, height, axis, shapes, open_top=True)


def weighted(branches: Sequence[Picture], attention: Picture) -> Picture:
    """Branches side by side, each scaled by a weight that `attention` computes from all of them, then summed.

    With one branch this is a gate: y = x * weight(x).
    """
    several = len(branches) > 1
    centers, span = [], -SIDE_GAP
    for branch in branches:
        centers.append(span + SIDE_GAP + branch.axis)
        span += SIDE_GAP + branch.width
    axis, top = span / 2, GAP if several else 0.0
    end = top + max(branch.height for branch in branches)
    taken, above = end + 12, end + 26.0
    bottom = above + attention.height
    times = max(bottom + 30.0, end + 60.0) + SIGN
    side = span + SIDE_GAP + 8
    shapes: list[Shape] = []
    if several:
        shapes += [_path((centers[0], 8), (centers[-1], 8)), _path((axis, 0), (axis, 8))]
    for branch, center in zip(branches, centers, strict=True):
        if several:
            shapes.append(_path((center, 8), (center, top), arrow=not branch.open_top))
        shapes += branch.at(center - branch.axis, top)
        shapes.append(_path((center, top + branch.height), (center, times - SIGN), arrow=True))
        shapes.append(Sign(center, taken, radius=DOT))
    into, back = side + attention.axis, times - SIGN - 14
    shapes.append(_path((centers[0], taken), (into, taken), (into, above), arrow=True))
    shapes += attention.at(side, above)
    # The weights come back on dashed lines, so that they are not taken for the maps.
    shapes.append(_path((into, bottom), (into, back), (centers[0] + 26, back), dashed=True))
    for center in centers:
        lane = center + 26
        shapes.append(_path((lane, back), (lane, times), (center + SIGN, times), arrow=True, dashed=True))
        shapes.append(Sign(center, times, "×"))
    height = times + SIGN
    if several:
        plus = height + GAP + SIGN
        for center in centers:
            if abs(center - axis) < 1:
                shapes.append(_path((center, height), (axis, plus - SIGN), arrow=True))
            else:
                edge = axis - SIGN if center < axis else axis + SIGN
                shapes.append(_path((center, height), (center, plus), (edge, plus), arrow=True))
        shapes.append(Sign(axis, plus, "+"))
        height = plus + SIGN
    return Picture(side + attention.width, height, axis, shapes, open_top=True)


def cascade(pieces: Sequence[Picture], carries: Sequence[bool]) -> Picture:
    """The channels cut into pieces x1, x2, ... with a picture each; the outputs y1, y2, ... are concatenated.

    `carries[i]` adds the output of piece i - 1 to the input of piece i.
    """
    top, gap = (66.0 + 2 * SIGN, SIDE_GAP + 14) if any(carries) else (52.0, SIDE_GAP)
    span = sum(piece.width for piece in pieces) + gap * (len(pieces) - 1)
    width = max(span, text_width("concatenate", 11.5) + 24)
    end = top + max(piece.height for piece in pieces)
    floor = end + 44
    shapes: list[Shape] = []
    for y, text in ((0.0, "slice the channels"), (floor, "concatenate")):
        shapes += [Rect(0, y, width, 24, "plain"), Text(width / 2, y + 16, text, 11.5)]
    left, before = (width - span) / 2, 0.0
    for i, piece in enumerate(pieces):
        center = left + piece.axis
        shapes.append(_note(center + 7, 40, f"x{i + 1}"))
        if carries[i]:
            plus, lane = top - 14 - SIGN, left - gap / 2 - 1
            shapes.append(_path((center, 24), (center, plus - SIGN), arrow=True))
            shapes.append(_path((center, plus + SIGN), (center, top), arrow=True))
            carried = ((before, end + 14), (lane, end + 14), (lane, plus), (center - SIGN, plus))
            shapes += [_path(*carried, arrow=True), Sign(before, end + 14, radius=DOT), Sign(center, plus, "+")]
        else:
            shapes.append(_path((center, 24), (center, top), arrow=piece.height > 0))
        shapes += piece.at(left, top)
        shapes.append(_path((center, top + piece.height), (center, floor), arrow=True))
        shapes.append(_note(center + 7, floor - 8, f"y{i + 1}"))
        before = center
        left += piece.width + gap
    return Picture(width, floor + 24, width / 2, shapes)


def residual(trunk: Picture, shortcut: Picture | None, tail: Picture) -> Picture:
    """y = tail(trunk(x) + shortcut(x)): the shortcut, None for an identity, runs on the left."""
    side = shortcut or wire()
    left = max(side.width, 0.0 if shortcut else text_width("identity", 11.5) + 14) + 2 * SIDE_GAP
    axis, lane, fork, top = left + trunk.axis, side.axis, 6, GAP
    body = max(trunk.height, side.height)
    middle, plus = top + (body - side.height) / 2, top + body + GAP + SIGN
    end = plus + SIGN + GAP
    shapes: list[Shape] = [
        _path((axis, 0), (axis, top), arrow=not trunk.open_top),
        Sign(axis, fork, radius=DOT),
        *trunk.at(left, top),
        _path((axis, top + trunk.height), (axis, plus - SIGN), arrow=True),
        _path((axis, fork), (lane, fork), (lane, middle), arrow=not side.open_top),
        *side.at(0, middle),
        _path((lane, middle + side.height), (lane, plus), (axis - SIGN, plus), arrow=True),
        *([] if shortcut else [_note(lane + 7, middle + 4, "identity")]),
        Sign(axis, plus, "+"),
        _path((axis, plus + SIGN), (axis, end), arrow=True),
        *tail.at(axis - tail.axis, end),
    ]
    width = left + max(trunk.width, trunk.axis + tail.width - tail.axis)
    return Picture(width, end + tail.height, axis, shapes, open_top=True)
