"""What a detector or segmenter found, drawn onto the image: boxes with class and score, masks, label maps, a legend.

A class has the same colour in every picture. Small images are enlarged and large ones reduced before anything is drawn,
so that lines and letters stay readable; boxes and masks are given in the pixels of the image as it is.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from resurge.errors import UserError
from resurge.explain.heat import enlarge

Colour = tuple[int, int, int]

BACKGROUND = "background"
"""The class of this name is shown as it is, without a colour."""

SIDES = (384, 1600)  # at least and at most, of the longer side of a picture, pixels

_TINT, _STRENGTH = 0.45, 0.6  # share of the colour over a mask, and over a label map
_PLAIN: Colour = (0, 0, 0)
_IGNORE = 255
_IGNORED: Colour = (224, 224, 192)
_CROWDED = 25  # from more boxes on, those narrower than their words go without them, and a legend stands below
_LONGEST = 28  # letters of a class name that are shown


def colour(index: int) -> Colour:
    """The colour of class `index`, RGB: the first ones differ as much as colours can, and none of 255 comes twice."""
    palette = _palette()
    return palette[index % len(palette)]


@functools.cache
def _palette() -> tuple[Colour, ...]:
    """Each colour is the one of a regular grid of hues, saturations and values that is farthest, in CIELAB, from all
    before it and from three greys. In the file they are hexadecimal, one per line."""
    lines = Path(__file__).with_name("palette.txt").read_text(encoding="ascii").split()
    return tuple((red, green, blue) for red, green, blue in map(bytes.fromhex, lines))


def class_colours(classes: Sequence[str]) -> list[Colour]:
    """A colour per class; black for the background."""
    return [_PLAIN if name == BACKGROUND else colour(index) for index, name in enumerate(classes)]


def draw_objects(
    image: Image.Image,
    boxes: np.ndarray,
    labels: Sequence[int],
    classes: Sequence[str],
    *,
    scores: Sequence[float] | None = None,
    masks: Iterable[np.ndarray] | None = None,
    notes: Sequence[str] | None = None,
    sides: tuple[int, int] = SIDES,
) -> Image.Image:
    """Boxes with their class, and masks where they are given, on the image in RGB.

    Where there are many, small boxes have no words, and a legend of the classes stands below the image.

    Args:
        image: any mode and size.
        boxes: (n, 4), x1, y1, x2, y2 in pixels of `image`.
        labels: n indices into `classes`.
        scores: n, in 0..1; shown behind the class.
        masks: n of bool (height, width) of `image`; taken one after the other, so a generator keeps memory small.
        notes: n words that stand behind the class, such as "crowd".
        sides: at least and at most, of the longer side of the picture, pixels.

    Raises:
        UserError: a label has no class.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    if any(not 0 <= int(label) < len(classes) for label in labels):
        raise UserError(f"expected labels in 0..{len(classes) - 1}; got {sorted({int(label) for label in labels})}.")
    picture = enlarge(image.convert("RGB"), *sides)
    if masks is not None:
        picture = _tinted(picture, masks, [colour(int(label)) for label in labels])
    pen = ImageDraw.Draw(picture)
    width, font = _line_width(picture), ImageFont.load_default(_font_size(picture))
    across, down = picture.width / image.width, picture.height / image.height
    texts = []
    for row, box in enumerate(boxes):
        if not np.isfinite(box).all():
            continue
        tone = colour(int(labels[row]))
        corners = _corners(box, across, down, picture)
        pen.rectangle(corners, outline=tone, width=width)
        score = "" if scores is None else f"{scores[row]:.2f}"
        words = [one_line(classes[int(labels[row])]), notes[row] if notes else "", score]
        texts.append((corners, "  ".join(word for word in words if word), tone))
    # The words last, so that no box crosses them.
    fits = [len(texts) <= _CROWDED or corners[2] - corners[0] >= font.getlength(text) for corners, text, _ in texts]
    for corners, text, tone in itertools.compress(texts, fits):
        _caption(pen, corners, text, tone, font, picture)
    present = [] if all(fits) else sorted({int(label) for label in labels})
    return with_legend(picture, [(classes[label], colour(label)) for label in present])


def draw_label_map(
    image: Image.Image,
    labels: np.ndarray,
    classes: Sequence[str],
    *,
    legend: bool = True,
    sides: tuple[int, int] = SIDES,
) -> Image.Image:
    """The image under the colours of its label map (H, W), with a legend of the classes in it below.

    Pixels of the class "background" are shown as they are, those marked 255 in a pale tone.

    Raises:
        UserError: the map is not of the image's size.
    """
    if labels.shape != (image.height, image.width):
        raise UserError(
            f"expected a label map of {image.width} x {image.height} pixels; got one of shape {tuple(labels.shape)}."
        )
    known = [int(value) for value in np.unique(labels)]
    picture = enlarge(image.convert("RGB"), *sides)
    shown = Image.fromarray(labels.astype(np.uint8)).resize(picture.size, Image.Resampling.NEAREST)
    tones = dict(enumerate(class_colours(classes))) | {_IGNORE: _IGNORED}
    names = dict(enumerate(classes)) | {_IGNORE: "ignored"}
    table, share = np.zeros((256, 3), dtype=np.float32), np.zeros((256, 1), dtype=np.float32)
    for value in known:
        table[value], share[value] = tones[value], 0.0 if names[value] == BACKGROUND else _STRENGTH
    at, pixels = np.asarray(shown), np.asarray(picture, dtype=np.float32)
    blended = Image.fromarray(np.rint(pixels * (1 - share[at]) + table[at] * share[at]).astype(np.uint8))
    entries = [(names[value], tones[value]) for value in known if names[value] != BACKGROUND]
    return with_legend(blended, entries) if legend else blended


def index_image(labels: np.ndarray, classes: Sequence[str]) -> Image.Image:
    """A label map (H, W) as a picture of mode P: its pixel values are the class indices, its palette the colours.

    Raises:
        UserError: there are more than 256 classes, or the map holds another value than 0..255.
    """
    if len(classes) > 256 or labels.ndim != 2 or (labels.size and not 0 <= labels.min() <= labels.max() <= 255):
        raise UserError(
            f"an index picture holds values of 0 to 255 in two dimensions; got {len(classes)} classes and a map of "
            f"shape {tuple(labels.shape)}."
        )
    # a picture of mode L first: Pillow can put a palette on it without touching its values
    picture = Image.fromarray(labels.astype(np.uint8))
    tones = class_colours(classes)
    tones += [_IGNORED] * (256 - len(tones))
    picture.putpalette([value for tone in tones for value in tone])
    return picture


def with_legend(picture: Image.Image, entries: Sequence[tuple[str, Colour]]) -> Image.Image:
    """The picture with names and their colours in rows below it."""
    if not entries:
        return picture
    size = _font_size(picture)
    font = ImageFont.load_default(size)
    box, gap, row = round(size * 0.9), round(size * 0.45), round(size * 1.5)
    labels: list[tuple[int, int, str, Colour]] = []
    x, y = gap, gap
    for name, tone in entries:
        text = one_line(name)
        needed = box + gap + round(font.getlength(text)) + 2 * gap
        if x > gap and x + needed > picture.width:
            x, y = gap, y + row
        labels.append((x, y, text, tone))
        x += needed
    page = Image.new("RGB", (picture.width, picture.height + y + row), "#ffffff")
    page.paste(picture, (0, 0))
    pen = ImageDraw.Draw(page)
    for left, below, text, tone in labels:
        top = picture.height + below
        patch = top + round(size * 0.2)
        pen.rectangle((left, patch, left + box, patch + box), fill=tone, outline="#777777")
        pen.text((left + box + gap, top), text, fill="#1f2933", font=font)
    return page


def one_line(name: str) -> str:
    """A class name as it can be drawn: on one line, of bounded length, without characters that have no picture."""
    visible = "".join(c if c.isprintable() and not "\ud800" <= c <= "\udfff" else "\ufffd" for c in str(name))
    words = " ".join(visible.split())
    return words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "…"


# --------------------------------------------------------------------------------------------------------- inside


def _tinted(picture: Image.Image, masks: Iterable[np.ndarray], tones: Sequence[Colour]) -> Image.Image:
    """The picture with each mask in its tone and a full line around it."""
    pixels = np.asarray(picture, dtype=np.float32).copy()
    lines: list[tuple[np.ndarray, Colour]] = []
    for mask, tone in zip(masks, tones, strict=True):
        fitted = Image.fromarray(np.asarray(mask, dtype=bool)).resize(picture.size, Image.Resampling.NEAREST)
        inside = np.asarray(fitted, dtype=bool)
        pixels[inside] = pixels[inside] * (1 - _TINT) + np.asarray(tone, dtype=np.float32) * _TINT
        lines.append((np.flatnonzero(_edge(inside, _line_width(picture))), tone))
    flat = pixels.reshape(-1, 3)
    for pixels_of_line, tone in lines:
        flat[pixels_of_line] = tone
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def _edge(inside: np.ndarray, width: int) -> np.ndarray:
    """The pixels of a mask that are up to `width` from one outside it, in one of the four directions."""
    core = inside.copy()
    for _ in range(max(1, width // 2)):
        wide = np.pad(core, 1)
        core = core & wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    result: np.ndarray = inside & ~core
    return result


def _corners(box: np.ndarray, across: float, down: float, picture: Image.Image) -> tuple[int, int, int, int]:
    """The first and last pixel of a box in the picture, inside it, and never the wrong way round."""
    x1, x2 = (min(max(round(float(x) * across), 0), picture.width - 1) for x in (box[0], box[2] - 1 / across))
    y1, y2 = (min(max(round(float(y) * down), 0), picture.height - 1) for y in (box[1], box[3] - 1 / down))
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _caption(
    pen: ImageDraw.ImageDraw,
    corners: tuple[int, int, int, int],
    text: str,
    tone: Colour,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    picture: Image.Image,
) -> None:
    """Words on a patch of the box's colour: above the box, or inside it where there is no room above."""
    left, top, right, bottom = (round(value) for value in pen.textbbox((0, 0), text, font=font))
    width, height = right - left + 4, bottom - top + 4
    x = max(0, min(corners[0], picture.width - width))
    y = corners[1] - height if corners[1] >= height else corners[1]
    pen.rectangle((x, y, x + width, y + height), fill=tone)
    bright = 0.299 * tone[0] + 0.587 * tone[1] + 0.114 * tone[2]
    pen.text((x + 2 - left, y + 2 - top), text, fill="#000000" if bright > 140 else "#ffffff", font=font)


def _line_width(picture: Image.Image) -> int:
    return max(2, round(max(picture.size) / 320))


def _font_size(picture: Image.Image) -> int:
    return max(13, round(max(picture.size) / 42))
