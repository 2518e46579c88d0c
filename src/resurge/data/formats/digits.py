"""The embedded images: scikit-learn's handwritten digits, by themselves or composed to scenes.

A scene, with boxes, masks and a label map, is a pure function of (seed, split, index). Its digits are enlarged smoothly
and painted in colour over a textured background with strokes, rings and discs that are no digits; later digits cover
earlier ones, and boxes and masks are those of what remains visible. Training scenes show digits of the training split
only, validation and test scenes only those of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from resurge.data.annotations import Annotation
from resurge.data.formats.cifar import array_split
from resurge.data.label_source import MemorySource
from resurge.data.regions import run_lengths_of
from resurge.data.seeding import mix
from resurge.data.splits import ArrayImages, ArrayMaps, MaskSplit, Objects, ObjectSplit, Split, stratified

if TYPE_CHECKING:
    from numpy.random import RandomState

DIGITS = tuple(str(digit) for digit in range(10))
SIDE = 96
COUNTS = {"train": 1900, "val": 120, "test": 120}
SEED = 2020

_DIGITS_A_SCENE = (2, 3)
_HEIGHTS = (52, 72)
_INK = 0.2  # of the full ink, from here on a pixel belongs to the digit
_VISIBLE = 0.9  # share of a digit's pixels that later digits must leave visible
_CONTRAST = 90.0  # by this much a digit is lighter than what is behind it, at least
_DIFFERENCE = 40.0  # least distance in RGB between the colours of two digits

_Y, _X = np.arange(SIDE, dtype=np.float64)[:, None], np.arange(SIDE, dtype=np.float64)[None, :]


@dataclass(frozen=True)
class Scene:
    """One picture: pixels uint8 (SIDE, SIDE, 3), the labels of its n digits, and the visible pixels of each, bool (n,
    SIDE, SIDE)."""

    pixels: np.ndarray
    labels: tuple[int, ...]
    masks: np.ndarray


@cache
def digit_splits() -> dict[str, Split]:
    """train, val and test of scikit-learn's copy of the test set of the UCI "Optical Recognition of Handwritten
    Digits" (E. Alpaydin, C. Kaynak, 1998): 8x8 pixels with values 0 to 16, here times 255/16."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = np.rint(data.images * (255 / 16)).astype(np.uint8)
    everything = array_split("digit", pixels, data.target)
    rest, held = stratified(everything.labels, 0.3, 20)
    val_at, test_at = stratified([everything.labels[i] for i in held], 2 / 3, 21)
    val, test = everything.select([held[i] for i in val_at]), everything.select([held[i] for i in test_at])
    return {"train": everything.select(rest), "val": val, "test": test}


def read_digits(annotation: Annotation) -> MemorySource:
    """The digits with their labels, or the scenes with label maps, boxes or masks; the split never changes."""
    maps = annotation == "maps"
    splits: Mapping[str, Split | ObjectSplit | MaskSplit] = digit_splits()
    how = "fixed stratified split of the 1,797 images into {train} for training, {val} for validation and {test} for "
    how += "testing"
    if annotation != "labels":
        splits = {part: _scene_split(part, annotation) for part in COUNTS}
        how = "scenes of the embedded digits, {train} for training, {val} for validation, {test} for testing, with no "
        how += "digit in two of these"
    how = how.format(**{part: len(split) for part, split in splits.items()})
    return MemorySource(
        format="digits", root=Path("digits"), classes=("background", *DIGITS) if maps else DIGITS,
        how=f"{how}; the same for every seed", title="digits", annotation=annotation, splits=splits,
        side=16 if annotation == "labels" else SIDE,
    )  # fmt: skip


@cache
def _scenes(part: str) -> tuple[Scene, ...]:
    return tuple(compose(digit_splits()[part], SEED, list(COUNTS).index(part), i) for i in range(COUNTS[part]))


def _scene_split(part: str, annotation: Annotation) -> ObjectSplit | MaskSplit:
    scenes = _scenes(part)
    ids = tuple(f"{part}-scene-{i:04d}" for i in range(len(scenes)))
    images = ArrayImages(np.stack([scene.pixels for scene in scenes]))
    if annotation == "maps":
        maps = np.zeros((len(scenes), SIDE, SIDE), dtype=np.uint8)
        for canvas, scene in zip(maps, scenes, strict=True):
            for label, mask in zip(scene.labels, scene.masks, strict=True):
                canvas[mask] = label + 1
        return MaskSplit(ids, images, ArrayMaps(maps))
    objects = []
    for scene in scenes:
        regions = tuple(run_lengths_of(mask) for mask in scene.masks)
        objects.append(Objects(
            np.asarray([region.box() for region in regions], dtype=np.float32),
            np.asarray(scene.labels, dtype=np.int64),
            np.zeros(len(regions), dtype=bool),
            np.asarray([region.area() for region in regions], dtype=np.float32),
            regions if annotation == "masks" else None,
        ))  # fmt: skip
    return ObjectSplit(ids, images, tuple(objects), tuple(range(1, len(scenes) + 1)))


def compose(digits: Split, *seed: int) -> Scene:
    """The scene that `seed` names, of these digits (images of 8 x 8 pixels in memory)."""
    if not isinstance(digits.images, ArrayImages):
        raise TypeError("scenes are composed of images in memory")
    # NumPy promises that the legacy RandomState stream never changes.
    rng = np.random.RandomState(mix(*seed) & 0xFFFFFFFF)
    canvas = _background(rng)
    for _ in range(rng.randint(1, 5)):
        _distract(rng, canvas)
    wanted = rng.randint(_DIGITS_A_SCENE[0], _DIGITS_A_SCENE[1] + 1)
    labels: list[int] = []
    whole: list[np.ndarray] = []
    colours: list[np.ndarray] = []
    while len(labels) < wanted:
        index = rng.randint(len(digits))
        ink = _enlarged(rng, digits.images.pixels[index])
        place = _place(rng, ink >= _INK, whole)
        if place is None:
            if len(labels) >= _DIGITS_A_SCENE[0]:
                break
            continue
        top, left = place
        area = (slice(top, top + ink.shape[0]), slice(left, left + ink.shape[1]))
        mask = np.zeros((SIDE, SIDE), dtype=bool)
        mask[area] = ink >= _INK
        colour = _colour(rng, canvas[mask].mean(axis=0), colours)
        # Paint fades in over a band around the outline, as a scaled photo of a digit would.
        cover = np.clip((ink - _INK) / 0.3 + 0.5, 0, 1)[..., None]
        canvas[area] = canvas[area] * (1 - cover) + colour * _shade(rng, ink.shape)[..., None] * cover
        labels.append(digits.labels[index])
        whole.append(mask)
        colours.append(colour)
    canvas += rng.normal(0, rng.uniform(2, 8), (SIDE, SIDE, 1))
    covered = np.zeros((SIDE, SIDE), dtype=bool)
    visible = []
    for mask in reversed(whole):
        visible.append(mask & ~covered)
        covered |= mask
    return Scene(np.clip(np.rint(canvas), 0, 255).astype(np.uint8), tuple(labels), np.stack(visible[::-1]))


def _background(rng: RandomState) -> np.ndarray:
    """float64 (SIDE, SIDE, 3): two colours, mixed by a smooth random field, with stripes over it."""
    base = rng.uniform(10, 90, 3)
    other = np.clip(base + rng.uniform(-40, 40, 3), 0, 255)
    grid = rng.randint(3, 8)
    field = _resized(rng.uniform(0, 1, (grid, grid)), (SIDE, SIDE))[..., None]
    turn, wave = rng.uniform(0, np.pi), rng.uniform(4, 20)
    stripes = np.sin((_X * np.cos(turn) + _Y * np.sin(turn)) * (2 * np.pi / wave)) * rng.uniform(0, 18)
    result: np.ndarray = base * (1 - field) + other * field + stripes[..., None]
    return result


def _distract(rng: RandomState, canvas: np.ndarray) -> None:
    """Paint a stroke, a ring or a disc: something that is no digit."""
    kind, (ax, ay, bx, by) = rng.randint(3), rng.uniform(0, SIDE, 4)
    thickness, stretch, radius = rng.uniform(1, 3.5), rng.uniform(0.6, 1.6), rng.uniform(3, 16)
    if kind == 0:
        dx, dy = bx - ax, by - ay
        along = np.clip(((_X - ax) * dx + (_Y - ay) * dy) / (dx * dx + dy * dy + 1e-9), 0, 1)
        x, y = _X - ax - along * dx, _Y - ay - along * dy
        distance = np.sqrt(x * x + y * y)
    else:
        distance = np.sqrt(np.square(_X - ax) + np.square((_Y - ay) * stretch))
        distance = np.abs(distance - radius) if kind == 1 else np.maximum(distance - radius * 0.5, 0)
    cover = np.clip(thickness - distance, 0, 1)
    at = cover > 0
    share = cover[at][:, None]
    canvas[at] = canvas[at] * (1 - share) + rng.uniform(0, 150, 3) * share


def _enlarged(rng: RandomState, digit: np.ndarray) -> np.ndarray:
    """The ink of a digit, 0 to 1, at a random size, cut to what is inked."""
    height = rng.randint(_HEIGHTS[0], _HEIGHTS[1] + 1)
    width = round(height * rng.uniform(0.75, 1.05))
    padded = np.pad(digit / 255.0, 1)  # so that strokes at the rim end smoothly as well
    ink = np.clip(_resized(padded, (height * 10 // 8, width * 10 // 8)), 0, 1)
    rows, columns = np.flatnonzero((ink >= _INK).any(1)), np.flatnonzero((ink >= _INK).any(0))
    result: np.ndarray = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return result


def _place(rng: RandomState, mask: np.ndarray, before: list[np.ndarray]) -> tuple[int, int] | None:
    """Where a digit can go so that enough of each earlier one stays visible: (top, left), or None after some tries."""
    height, width = mask.shape
    sizes = [other.sum() for other in before]
    for _ in range(30):
        top, left = rng.randint(0, SIDE - height + 1), rng.randint(0, SIDE - width + 1)
        covered = np.zeros((SIDE, SIDE), dtype=bool)
        covered[top : top + height, left : left + width] = mask
        for other, size in zip(reversed(before), reversed(sizes), strict=True):
            if (other & ~covered).sum() < _VISIBLE * size:
                break
            covered |= other
        else:
            return top, left
    return None


def _colour(rng: RandomState, behind: np.ndarray, others: list[np.ndarray]) -> np.ndarray:
    """A colour lighter than what is behind it and unlike the colours of the other digits, the best of some."""
    tried = rng.uniform(150, 255, (24, 3))
    margin = (tried - behind) @ (0.299, 0.587, 0.114) / _CONTRAST
    for other in others:
        margin = np.minimum(margin, np.sqrt(np.square(tried - other).sum(1)) / _DIFFERENCE)
    fit = np.flatnonzero(margin >= 1)
    result: np.ndarray = tried[fit[0] if len(fit) else margin.argmax()]
    return result


def _shade(rng: RandomState, shape: tuple[int, int]) -> np.ndarray:
    """Brightness over a digit, between 0.85 and 1.15, changing smoothly."""
    return _resized(rng.uniform(0.85, 1.15, (3, 3)), shape)


def _resized(grid: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Cubic convolution (R. Keys, 1981, a = -1/2) of a 2-d grid to `shape`; the rim goes on beyond the edge."""
    result: np.ndarray = _weights(grid.shape[0], shape[0]) @ grid @ _weights(grid.shape[1], shape[1]).T
    return result


@cache
def _weights(before: int, after: int) -> np.ndarray:
    at = (np.arange(after) + 0.5) * before / after - 0.5
    first = np.floor(at).astype(int) - 1
    weights = np.zeros((after, before))
    for tap in range(4):
        d = np.abs(at - (first + tap))
        near, far = (1.5 * d - 2.5) * d * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
        value = np.where(d <= 1, near, np.where(d < 2, far, 0.0))
        np.add.at(weights, (np.arange(after), np.clip(first + tap, 0, before - 1)), value)
    return weights
