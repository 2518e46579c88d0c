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
from resurge.data.bands import Bands, Depth, OtherBands, Picture, bands_in_words, bands_of, is_plain, same_bands
from resurge.data.seeding import spread
from resurge.errors import UserError, require_one_of

if TYPE_CHECKING:
    import torch

    from resurge.data.splits import AnySplit, DataBundle

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

INTERPOLATION = {name: Image.Resampling[name.upper()] for name in ("nearest", "box", "bilinear", "bicubic", "lanczos")}
_MAX_ASPECT = 16

AnyPicture = TypeVar("AnyPicture", Image.Image, Bands, Picture)


class Values(Section, ABC):
    """What both kinds of preprocessing do to pixel values: colours, then values of 0..1, then (v - mean) / std per
    channel. For frozen dataclasses with these fields.

    Values of 8 bits are divided by 255; others are scaled by `value_range`, that of the training images.
    """

    kind: ClassVar[str | None] = None
    """The word by which the stored form says which class it is of."""

    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    depth: str
    value_range: tuple[float, ...] | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self.mean) == len(self.std) == self.channels or min(self.std) <= 0:
            need = f"mean and std need {self.channels} numbers each, finite, std above 0"
            raise UserError(f"{need}; got {self.mean} and {self.std}.")
        if (self.value_range is None) != (self.depth == "8-bit"):
            raise UserError(f"value_range is for images of more than 8 bits; got {self.value_range} for {self.depth}.")
        if self.value_range is not None and (len(self.value_range) != 2 or not self._low < self._high):
            raise UserError(f"value_range takes two numbers, from and to, not {list(self.value_range)}.")

    @property
    def plain(self) -> bool:
        """Whether images of 8 bits in grey or colour are expected."""
        return is_plain(self.channels, self.depth)

    @property
    def _low(self) -> float:
        return 0.0 if self.value_range is None else self.value_range[0]

    @property
    def _high(self) -> float:
        return 255.0 if self.value_range is None else self.value_range[1]

    @abstractmethod
    def place(self, image: AnyPicture) -> AnyPicture:
        """The part of an image that goes to the network, in its size."""

    def fit(self, image: Picture) -> Picture:
        """The image that goes to the network, in its colours and its size."""
        return self.place(self.convert(image))

    def array(self, image: Picture) -> np.ndarray:
        """float32 (channels, h, w), of the size that `fit` gives, without torch."""
        return self.normalise(self.fit(image))

    def __call__(self, image: Picture) -> torch.Tensor:
        """`array` as a tensor."""
        import torch

        return torch.from_numpy(self.array(image))

    def shown(self, image: Picture) -> Image.Image:
        """The whole image as people are shown it: of other than 8 bits in grey or colour, the first three bands as RGB
        or the first in grey, from black to white over `window`."""
        if isinstance(image, Image.Image):
            return image
        black, white = (self._low + value * (self._high - self._low) for value in self.window)
        return image.shown(black, white)

    def seen(self, image: Picture) -> Image.Image:
        """`fit` as people are shown it."""
        fitted = self.fit(image)
        return fitted if isinstance(fitted, Image.Image) else fitted.shown(*self.window)

    @property
    def window(self) -> tuple[float, float]:
        """What people are shown as black and as white, in units of 0..1: all of it, or, of other images than of 8 bits
        in grey or colour, the bands that are shown within three deviations of their means."""
        if self.plain:
            return 0.0, 1.0
        bands = list(zip(self.mean, self.std, strict=True))[: 3 if self.channels >= 3 else 1]
        black, white = (max(min(m - 3 * s for m, s in bands), 0.0), min(max(m + 3 * s for m, s in bands), 1.0))
        return (black, white) if black < white else (0.0, 1.0)

    def made_of(self, pixels: np.ndarray) -> Picture:
        """An image that can be prepared, of made-up pixels uint8 (h, w, 3): where others are expected than 8 bits in
        grey or colour, their values over `value_range`, in as many bands."""
        if self.plain:
            return Image.fromarray(pixels)
        planes = pixels.transpose(2, 0, 1)[[band % 3 for band in range(self.channels)]]
        values = self._low + planes / 255 * (self._high - self._low)
        if self.depth == "float":
            return Bands(values.astype(np.float32))
        return Bands(np.rint(values).astype(np.uint8 if self.depth == "8-bit" else np.int64))

    def to_json(self) -> dict[str, object]:
        """Plain values that `from_json` turns back into an equal value."""
        plain = to_plain(self) if self.kind is None else {"kind": self.kind, **to_plain(self)}
        if self.value_range is None:  # as versions before wrote it
            del plain["depth"], plain["value_range"]
        return plain

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
    def mean_colour(self) -> tuple[float, ...]:
        """What becomes zero after normalising, per channel of a converted image, as 0..255 or, of `Bands`, 0..1: the
        neutral filling for pixels from outside."""
        return tuple(round(255 * value) for value in self.mean) if self.plain else self.mean

    def convert(self, image: Picture) -> Picture:
        """The image in the network's colours: of mode "L" or "RGB", as `channels` asks, or `Bands` of 0..1.

        Raises:
            OtherBands: it has other bands, or values of another depth, than the training images.
        """
        self.require(image)
        if isinstance(image, Image.Image):
            mode = "L" if self.channels == 1 else "RGB"
            return image if image.mode == mode else image.convert(mode)
        return image.scaled(self._low, self._high, self.mean)

    def require(self, image: Picture) -> None:
        """Raises OtherBands when the network was not trained on images of these bands and this depth."""
        plain = isinstance(image, Image.Image)
        if plain == self.plain and (plain or bands_of(image) == (self.channels, self.depth)):
            return
        expected = "8 bits in grey or colour" if self.plain else bands_in_words(self.channels, self.depth)
        raise OtherBands(
            f"the image has {bands_in_words(*bands_of(image))}; the network was trained on images of {expected}. Give "
            "such images, saved as those of the training were."
        )

    def normalise(self, image: Picture | np.ndarray) -> np.ndarray:
        """A converted image, or its values (channels, H, W), to float32 (channels, H, W): (v - mean) / std."""
        if isinstance(image, Image.Image):
            values = np.asarray(image, dtype=np.uint8)
            planes = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
            found = planes.astype(np.float32, order="C")
            found /= np.float32(255)
        else:
            found = np.array(image, dtype=np.float32, order="C")
        found -= np.asarray(self.mean, dtype=np.float32)[:, None, None]
        found /= np.asarray(self.std, dtype=np.float32)[:, None, None]
        return found


AnyValues = TypeVar("AnyValues", bound=Values)
_BANDS = {"low": 1, "high": 1024}
_DEPTHS = ("8-bit", "integer", "float")


@dataclass(frozen=True)
class Preprocessing(Values):
    """What evaluation, prediction and export do to an image, exactly, and nothing else does.

    The shorter side is resized to round(size / crop_pct) (the longer side in proportion, rounded down); the middle
    size x size is cut out; values become 0..1, then (v - mean) / std, per channel. An image longer than 16 times its
    width is first cut to that aspect about its middle, so that a 20000 x 10 strip does not grow without bound.
    """

    size: int = option(MISSING, "side of the result in pixels", low=1, high=MOST_PIXELS)
    crop_pct: float = option(0.875, "share of the resized shorter side that is cut out", low=0.05, high=1)
    mean: tuple[float, ...] = option(IMAGENET_MEAN, "one number per channel, in units of 0..1")
    std: tuple[float, ...] = option(IMAGENET_STD, "one number per channel, in units of 0..1")
    channels: int = option(3, "bands of the image", **_BANDS)
    interpolation: str = option("bilinear", "Pillow's antialiased filter", choices=tuple(INTERPOLATION))
    squash: bool = option(False, "resize to the square whatever the aspect (crop_pct 1), as suits tiny images")
    depth: str = option("8-bit", "what the values of an image are", choices=_DEPTHS)
    value_range: tuple[float, ...] | None = option(None, "values that become 0 and 1; null: 0 and 255")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.squash and self.crop_pct != 1:
            raise UserError(f"squash resizes without a crop, so crop_pct must be 1, not {self.crop_pct}.")

    def place(self, image: AnyPicture) -> AnyPicture:
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


def _centre(image: AnyPicture, width: int, height: int) -> AnyPicture:
    left = round((image.width - width) / 2)
    top = round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


@dataclass(frozen=True)
class ScenePreprocessing(Values):
    """What evaluation, prediction and export do to an image of a detector or segmenter, exactly.

    The image is resized, with its aspect kept, until its shorter side is `short_side`, or less where its longer side
    would exceed `max_size`, which also bounds memory; values become 0..1, then (v - mean) / std, per channel.
    """

    kind: ClassVar[str | None] = "scene"

    short_side: int | None = option(MISSING, "pixels; null keeps the size of the image", low=1, high=MOST_PIXELS)
    max_size: int | None = option(MISSING, "bound of the longer side; null for none", low=1, high=LONGEST_SIDE)
    mean: tuple[float, ...] = option(IMAGENET_MEAN, "one number per channel, in units of 0..1")
    std: tuple[float, ...] = option(IMAGENET_STD, "one number per channel, in units of 0..1")
    channels: int = option(3, "bands of the image", **_BANDS)
    interpolation: str = option("bilinear", "Pillow's antialiased filter", choices=tuple(INTERPOLATION))
    depth: str = option("8-bit", "what the values of an image are", choices=_DEPTHS)
    value_range: tuple[float, ...] | None = option(None, "values that become 0 and 1; null: 0 and 255")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.short_side is not None and self.max_size is not None and self.short_side > self.max_size:
            raise UserError(f"short_side {self.short_side} exceeds max_size {self.max_size}; raise max_size.")

    def shape(self, width: int, height: int) -> tuple[int, int]:
        """(h, w) of an image of this width and height after resizing."""
        return resized(width, height, resize_factor(width, height, self.short_side, self.max_size))

    def place(self, image: AnyPicture) -> AnyPicture:
        return self.resize(image, self.shape(*image.size))

    def resize(self, image: AnyPicture, size: tuple[int, int]) -> AnyPicture:
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


@dataclass(frozen=True)
class PixelValues:
    """The fields of a preprocessing that depend on the values of the training images."""

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    channels: int = 3
    depth: Depth = "8-bit"
    value_range: tuple[float, float] | None = None


def value_notes(values: PixelValues | Values) -> list[str]:
    """What is done to values that are not of 8 bits in grey or colour, in a sentence."""
    if is_plain(values.channels, values.depth):
        return []
    low, high = values.value_range or (0, 255)
    of = "" if values.value_range is None else ", the range of the training images,"
    mean, std = (" ".join(f"{value:g}" for value in numbers) for numbers in (values.mean, values.std))
    return [
        f"images have {bands_in_words(values.channels, values.depth)}, all of which are used: {low:g} to {high:g}{of} "
        f"becomes 0 to 1, of which mean {mean} and deviation {std} become 0 and 1"
    ]


def usual_values(bundle: DataBundle[AnySplit], limit: int = 500) -> PixelValues:
    """Those for a data set: ImageNet's for RGB of 8 bits; of other images measured over at most `limit` training
    images, evenly spread, mean and deviation in 0..1 and rounded. Unreadable images are passed over.

    Raises:
        OtherBands: an image has other bands, or values of another depth, than the first ones.
    """
    channels, depth = bundle.in_channels, bundle.depth
    plain = is_plain(channels, depth)
    if plain and channels == 3:
        return PixelValues()
    split = bundle.train
    count, scale = 0, 255.0 if depth == "8-bit" else 1.0
    total, squares = np.zeros(channels), np.zeros(channels)
    low, high = np.inf, -np.inf
    for index in spread(len(split), limit):
        try:
            image = split.read(index)
        except UserError:
            continue
        if isinstance(image, Image.Image) and plain:
            planes = np.asarray(image.convert("L"), dtype=np.float64)[None] / scale
        else:
            same_bands({split.ids[index]: bands_of(image), "others": (channels, depth)})
            planes = np.asarray(image, dtype=np.float64) / scale
        flat = [band[np.isfinite(band)] for band in planes]
        if not all(len(band) for band in flat):
            continue
        # Every image counts the same, whatever its size.
        total += [band.mean() for band in flat]
        squares += [(band**2).mean() for band in flat]
        low, high = min(low, *(band.min() for band in flat)), max(high, *(band.max() for band in flat))
        count += 1
    if depth == "8-bit":
        low, high = 0.0, 1.0
    elif not count or low == high:
        low, high = (0.0, 1.0) if not count else (low, low + 1.0)
    if not count:
        total, squares, count = np.full(channels, 0.5), np.full(channels, 0.5), 1
    mean, span = total / count, high - low
    std = np.maximum(squares / count - mean**2, 0.0) ** 0.5
    mean, std = (mean - low) / span, std / span
    if plain:
        return PixelValues((round(float(mean[0]), 4),), (round(max(float(std[0]), 0.01), 4),), 1)
    return PixelValues(
        tuple(float(f"{value:.6g}") for value in mean),
        tuple(float(f"{value:.6g}") if value > 0 else 1.0 for value in std),
        channels, depth, None if depth == "8-bit" else (float(low), float(high)),
    )  # fmt: skip
