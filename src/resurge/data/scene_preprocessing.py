"""From a picture to the tensor a detector or segmenter sees: resized with its aspect kept, never cropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from PIL import Image

from resurge.data.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    INTERPOLATION,
    Values,
    channel_statistics,
)
from resurge.errors import UserError, suggest

if TYPE_CHECKING:
    import torch

    from resurge.data.bundle import DataBundle

KIND = "scene"
"""What a stored ScenePreprocessing says it is, so that one for classification is not taken for it."""


@dataclass(frozen=True)
class ScenePreprocessing(Values):
    """What evaluation, prediction and export do to an image of a detector or segmenter, exactly.

    The image is resized, with its aspect kept and Pillow's antialiased filter `interpolation`, until its shorter side
    is `short_side`, or less where its longer side would exceed `max_size`; values become v / 255, then
    (v - mean) / std, a channel at a time.

    short_side: pixels; None keeps the size of the image. max_size: bound of the longer side, which also bounds memory;
    None for no bound. mean, std: one number a channel, in units of 0..1. channels: 1 or 3.
    """

    short_side: int | None
    max_size: int | None
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    channels: int = 3
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        for name in ("short_side", "max_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1 pixel, not {value}.")
        if self.short_side is not None and self.max_size is not None and self.short_side > self.max_size:
            raise UserError(f"short_side {self.short_side} exceeds max_size {self.max_size}; raise max_size.")
        self.check_values()
        if self.interpolation not in INTERPOLATION:
            raise UserError(
                f"unknown interpolation {self.interpolation!r}; use one of {', '.join(INTERPOLATION)}."
                f"{suggest(self.interpolation, INTERPOLATION)}"
            )

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """float32 (channels, h, w), with (h, w) as `shape` says."""
        return self.normalise(self.to_tensor(self.fit(image)))

    def shape(self, width: int, height: int) -> tuple[int, int]:
        """(h, w) of an image of this width and height after resizing."""
        return resized(width, height, resize_factor(width, height, self.short_side, self.max_size))

    def fit(self, image: Image.Image) -> Image.Image:
        """Colours and resize: the picture that goes to the network (also what a report shows)."""
        return self.resize(self.convert(image), self.shape(*image.size))

    def resize(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """The image at size (h, w): the one resize of training and evaluation."""
        height, width = size
        if image.size == (width, height):
            return image
        return image.resize((width, height), INTERPOLATION[self.interpolation])

    def to_json(self) -> dict[str, Any]:
        """Plain values that `from_json` turns back into an equal ScenePreprocessing."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {"kind": KIND, **plain}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> ScenePreprocessing:
        """Raises UserError on a missing or unknown field."""
        plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        kind = plain.pop("kind", None)
        if kind != KIND:
            raise UserError(f"expected the preprocessing of a detector or segmenter (kind {KIND!r}), got {kind!r}.")
        names = [field.name for field in fields(ScenePreprocessing)]
        for key in plain:
            if key not in names:
                raise UserError(f"unknown preprocessing field {key!r}.{suggest(key, names)}")
        for key in ("short_side", "max_size"):
            if key not in plain:
                raise UserError(f"the preprocessing lacks its {key}.")
        return ScenePreprocessing(**plain)


def resize_factor(width: int, height: int, short_side: int | None, max_size: int | None) -> float:
    """What the sides are multiplied by for the shorter to be `short_side` (None: as it is), the longer `max_size` at
    most."""
    factor = 1.0 if short_side is None else short_side / min(width, height)
    return factor if max_size is None else min(factor, max_size / max(width, height))


def resized(width: int, height: int, factor: float) -> tuple[int, int]:
    """(h, w), rounded to the nearest pixel and at least 1."""
    return max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1)


def default_scene_preprocessing(
    bundle: DataBundle, short_side: int | None = None, max_size: int | None = None, *, channels: int | None = None,
    interpolation: str = "bilinear",
) -> ScenePreprocessing:  # fmt: skip
    """Sensible preprocessing for a data set: ImageNet's mean and deviation for RGB, measured ones for grey images.

    short_side: pixels, the data set's usual size unless given; 0 keeps the size of the images. max_size: 5/3 of the
    shorter side unless given (COCO's 800 and 1333).
    """
    channels = bundle.in_channels if channels is None else channels
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else channel_statistics(bundle.train)
    short = bundle.default_size if short_side is None else short_side
    if max_size is None:
        max_size = max(round((short or bundle.default_size) * 5 / 3), 1)
    return ScenePreprocessing(min(short, max_size) if short else None, max_size, mean, std, channels, interpolation)
