"""From an image to the tensor a network sees: the one definition for evaluation, prediction and export.

Importing this imports no torch, and `array` needs none: the inputs of an export are made without it.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from typing import TYPE_CHECKING, ClassVar, TypeVar

import numpy as np
from PIL import Image

from resurge.config import LONGEST_SIDE, MOST_PIXELS, Section, option, to_plain
from resurge.errors import UserError, require_one_of

if TYPE_CHECKING:
    import torch

    from resurge.data.splits import AnySplit, DataBundle

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

INTERPOLATION = {name: Image.Resampling[name.upper()] for name in ("nearest", "box", "bilinear", "bicubic", "lanczos")}
_MAX_ASPECT = 16


class Values(Section, ABC):
    """What both kinds of preprocessing do to pixel values: colours, and (v / 255 - mean) / std per channel. For frozen
    dataclasses with these fields."""

    kind: ClassVar[str | None] = None
    """The word by which the stored form says which class it is of."""

    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels not in (1, 3):
            raise UserError(f"channels must be 1 or 3, not {self.channels}.")
        if not len(self.mean) == len(self.std) == self.channels or min(self.std) <= 0:
            need = f"mean and std need {self.channels} numbers each, finite, std above 0"
            raise UserError(f"{need}; got {self.mean} and {self.std}.")

    @abstractmethod
    def fit(self, image: Image.Image) -> Image.Image:
        """The image that goes to the network, in its colours and its size (also what a report shows)."""

    def array(self, image: Image.Image) -> np.ndarray:
        """float32 (channels, h, w), of the size that `fit` gives, without torch."""
        return self.normalise(self.fit(image))

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """`array` as a tensor."""
        import torch

        return torch.from_numpy(self.array(image))

    def to_json(self) -> dict[str, object]:
        """Plain values that `from_json` turns back into an equal value."""
        return to_plain(self) if self.kind is None else {"kind": self.kind, **to_plain(self)}

    @classmethod
    def from_json(cls: type[AnyValues], values: Mapping[str, object]) -> AnyValues:
        """Raises UserError on a missing or unknown field, or when the values are of the other kind."""
        plain = dict(values)
        if cls.kind is not None and plain.pop("kind", None) != cls.kind:
            got = values.get("kind")
            raise UserError(f"expected the preprocessing of a detector or segmenter (kind {cls.kind!r}), got {got!r}.")
        known = {field.name: field for field in dataclasses.fields(cls)}
        for key in plain:
            require_one_of("preprocessing field", key, known)
        for name, field in known.items():
            if field.default is MISSING and name not in plain:
                raise UserError(f"the preprocessing lacks its {name}.")
        return cls(**plain)

    @property
    def mean_colour(self) -> tuple[int, ...]:
        """What becomes zero after normalising, as 0..255 per channel: the neutral filling for pixels from outside."""
        return tuple(round(255 * value) for value in self.mean)

    def convert(self, image: Image.Image) -> Image.Image:
        """The image in mode "L" or "RGB", as `channels` asks."""
        mode = "L" if self.channels == 1 else "RGB"
        return image if image.mode == mode else image.convert(mode)

    def normalise(self, image: Image.Image) -> np.ndarray:
        """An image in these colours to float32 (channels, H, W): (v / 255 - mean) / std."""
        values = np.asarray(image, dtype=np.uint8)
        planes = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
        found = planes.astype(np.float32, order="C")
        found /= np.float32(255)
        found -= np.asarray(self.mean, dtype=np.float32)[:, None, None]
        found /= np.asarray(self.std, dtype=np.float32)[:, None, None]
        return found


AnyValues = TypeVar("AnyValues", bound=Values)


@dataclass(frozen=True)
class Preprocessing(Values):
    """What evaluation, prediction and export do to an image, exactly, and nothing else does.

    The shorter side is resized to round(size / crop_pct) (the longer side in proportion, rounded down); the middle
    size x size is cut out; values become v / 255, then (v - mean) / std, per channel. An image longer than 16
    times its width is first cut to that aspect about its middle, so that a 20000 x 10 strip does not grow without
    bound.
    """

    size: int = option(MISSING, "side of the result in pixels", low=1, high=MOST_PIXELS)
    crop_pct: float = option(0.875, "share of the resized shorter side that is cut out", low=0.05, high=1)
    mean: tuple[float, ...] = option(IMAGENET_MEAN, "one number per channel, in units of 0..1")
    std: tuple[float, ...] = option(IMAGENET_STD, "one number per channel, in units of 0..1")
    channels: int = option(3, "1 or 3")
    interpolation: str = option("bilinear", "Pillow's antialiased filter", choices=tuple(INTERPOLATION))
    squash: bool = option(False, "resize to the square whatever the aspect (crop_pct 1), as suits tiny images")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.squash and self.crop_pct != 1:
            raise UserError(f"squash resizes without a crop, so crop_pct must be 1, not {self.crop_pct}.")

    def fit(self, image: Image.Image) -> Image.Image:
        image = self.convert(image)
        filter = INTERPOLATION[self.interpolation]
        if self.squash:
            return image if image.size == (self.size, self.size) else image.resize((self.size, self.size), filter)
        width, height = image.size
        limit = _MAX_ASPECT * min(width, height)
        if max(width, height) > limit:
            image = _centre(image, min(width, limit), min(height, limit))
            width, height = image.size
        short = round(self.size / self.crop_pct)
        new = (short, short * height // width) if width <= height else (short * width // height, short)
        if new != (width, height):
            image = image.resize(new, filter)
        return image if image.size == (self.size, self.size) else _centre(image, self.size, self.size)


def _centre(image: Image.Image, width: int, height: int) -> Image.Image:
    left = round((image.width - width) / 2)
    top = round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


@dataclass(frozen=True)
class ScenePreprocessing(Values):
    """What evaluation, prediction and export do to an image of a detector or segmenter, exactly.

    The image is resized, with its aspect kept, until its shorter side is `short_side`, or less where its longer side
    would exceed `max_size`, which also bounds memory; values become v / 255, then (v - mean) / std, per channel.
    """

    kind: ClassVar[str | None] = "scene"

    short_side: int | None = option(MISSING, "pixels; null keeps the size of the image", low=1, high=MOST_PIXELS)
    max_size: int | None = option(MISSING, "bound of the longer side; null for none", low=1, high=LONGEST_SIDE)
    mean: tuple[float, ...] = option(IMAGENET_MEAN, "one number per channel, in units of 0..1")
    std: tuple[float, ...] = option(IMAGENET_STD, "one number per channel, in units of 0..1")
    channels: int = option(3, "1 or 3")
    interpolation: str = option("bilinear", "Pillow's antialiased filter", choices=tuple(INTERPOLATION))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.short_side is not None and self.max_size is not None and self.short_side > self.max_size:
            raise UserError(f"short_side {self.short_side} exceeds max_size {self.max_size}; raise max_size.")

    def shape(self, width: int, height: int) -> tuple[int, int]:
        """(h, w) of an image of this width and height after resizing."""
        return resized(width, height, resize_factor(width, height, self.short_side, self.max_size))

    def fit(self, image: Image.Image) -> Image.Image:
        return self.resize(self.convert(image), self.shape(*image.size))

    def resize(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """The image at size (h, w): the one resize of training and evaluation."""
        height, width = size
        if image.size == (width, height):
            return image
        return image.resize((width, height), INTERPOLATION[self.interpolation])


def resize_factor(width: int, height: int, short_side: int | None, max_size: int | None) -> float:
    """What the sides are multiplied by for the shorter to be `short_side` (None: as it is), the longer `max_size` at
    most."""
    factor = 1.0 if short_side is None else short_side / min(width, height)
    return factor if max_size is None else min(factor, max_size / max(width, height))


def resized(width: int, height: int, factor: float) -> tuple[int, int]:
    """(h, w), rounded to the nearest pixel and at least 1."""
    return max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1)


def usual_values(bundle: DataBundle[AnySplit], limit: int = 500) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """(mean, std, channels) for a data set: ImageNet's for RGB; of grey images measured over at most `limit` training
    images, evenly spread, in 0..1 and rounded to four places. Unreadable images are passed over."""
    if bundle.in_channels == 3:
        return IMAGENET_MEAN, IMAGENET_STD, 3
    split = bundle.train
    total = squares = pixels = 0.0
    for index in sorted({round(i * (len(split) - 1) / max(limit - 1, 1)) for i in range(min(limit, len(split)))}):
        try:
            values = np.asarray(split.read(index).convert("L"), dtype=np.float64) / 255
        except UserError:
            continue
        # Every image counts the same, whatever its size.
        total, squares, pixels = total + values.mean(), squares + (values**2).mean(), pixels + 1
    if not pixels:
        return (0.5,), (0.5,), 1
    mean = total / pixels
    std = max(squares / pixels - mean**2, 0.0) ** 0.5
    return (round(mean, 4),), (round(max(std, 0.01), 4),), 1
