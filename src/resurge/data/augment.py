"""Augmentation: what training does to a picture at random before the network sees it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torchvision.transforms import v2

from resurge.data.preprocessing import INTERPOLATION, Preprocessing
from resurge.errors import UserError, suggest

Step = Callable[[Image.Image], Image.Image]

AUTO = ("none", "randaugment", "autoaugment", "trivialaugment")


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What training does to images at random, in this order. All randomness comes from torch's global generator.

    scale, ratio: random resized crop (Szegedy et al., 2015): share of the area and aspect of the cut-out; scale None
        means the evaluation's resize instead.
    padding_crop: pad by that many pixels and cut out the old size at random (CIFAR; He et al., 2015, section 4.2).
    hflip, vflip: probability of mirroring left-right, top-bottom.
    rotate (degrees), translate (share of the side), zoom (1 ± zoom), shear (degrees): a random affine map.
    auto: "none", "randaugment" (Cubuk et al., 2019; auto_ops operations at auto_magnitude of 30), "autoaugment"
        (Cubuk et al., 2018; with auto_policy "imagenet" or "cifar10"), "trivialaugment" (Müller, Hutter, 2021).
    jitter, hue: brightness, contrast and saturation times 1 ± jitter; hue ± hue turns.
    erase: probability of random erasing (Zhong et al., 2017) of 2 to 33 % of the area, with the mean colour.
    """

    scale: tuple[float, float] | None = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    padding_crop: int = 0
    hflip: float = 0.5
    vflip: float = 0.0
    rotate: float = 0.0
    translate: float = 0.0
    zoom: float = 0.0
    shear: float = 0.0
    auto: str = "none"
    auto_policy: str = "imagenet"
    auto_ops: int = 2
    auto_magnitude: int = 9
    jitter: float = 0.0
    hue: float = 0.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        if self.scale is not None:
            object.__setattr__(self, "scale", tuple(self.scale))
        object.__setattr__(self, "ratio", tuple(self.ratio))
        if self.auto not in AUTO:
            raise UserError(f"unknown auto {self.auto!r}; use one of {', '.join(AUTO)}.{suggest(self.auto, AUTO)}")
        if self.auto_policy not in ("imagenet", "cifar10"):
            raise UserError(f"unknown auto_policy {self.auto_policy!r}; use imagenet or cifar10.")
        for name in ("hflip", "vflip", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is a probability between 0 and 1, not {getattr(self, name)}.")
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(f"scale is a range of area shares such as (0.08, 1.0), not {self.scale}.")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise UserError(f"ratio is a range of aspects such as (0.75, 1.333), not {self.ratio}.")
        if not 0 <= self.auto_magnitude <= 30 or self.auto_ops < 1:
            got = f"{self.auto_magnitude} and {self.auto_ops}"
            raise UserError(f"auto_magnitude is 0 to 30 and auto_ops at least 1, not {got}.")
        for name, top in (("translate", 1.0), ("zoom", 0.99), ("hue", 0.5), ("rotate", 180.0), ("shear", 89.0)):
            if not 0 <= getattr(self, name) <= top:
                raise UserError(f"{name} lies between 0 and {top:g}, not {getattr(self, name)}.")
        if self.padding_crop < 0 or self.jitter < 0:
            raise UserError("padding_crop and jitter are 0 or more.")

    @staticmethod
    def off() -> Augment:
        """No randomness at all: training then sees what evaluation sees."""
        return Augment(scale=None, hflip=0.0)


def train_transform(pre: Preprocessing, augment: Augment) -> TrainTransform:
    """A picklable function from a PIL image to float32 (channels, size, size), random by torch's global generator."""
    return TrainTransform(pre, augment)


class TrainTransform:
    """See `train_transform`. With `Augment.off()` it gives exactly what `pre` gives."""

    def __init__(self, pre: Preprocessing, augment: Augment) -> None:
        self.pre, self.augment = pre, augment
        self.steps = _geometry(pre, augment) + _colours(pre, augment)
        self.erase = v2.RandomErasing(augment.erase, value=0) if augment.erase else None

    @property
    def draft_size(self) -> int | None:
        """Shorter side that a decoded image should keep for crops to stay sharp; None: every pixel matters."""
        return None if self.augment.scale is None else 2 * self.pre.size

    def __call__(self, image: Image.Image) -> torch.Tensor:
        image = self.pre.convert(image)
        for step in self.steps:
            image = step(image)
        tensor = self.pre.normalise(self.pre.to_tensor(image))
        return tensor if self.erase is None else self.erase(tensor)


@dataclass(frozen=True)
class ResizedCrop:
    """Cut out a random rectangle and resize it to the square (Szegedy et al., "Going deeper with convolutions", 2015).

    The area is uniform in `scale` times the image's, the logarithm of the aspect uniform in that of `ratio`. When ten
    draws do not fit into the image, the largest centred rectangle with an aspect in `ratio` is taken.
    """

    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    interpolation: str

    def __call__(self, image: Image.Image) -> Image.Image:
        # A giant image is averaged down by a whole factor first, so that it costs no more than a photo.
        factor = min(image.size) // (8 * self.size)
        if factor > 1:
            image = image.reduce(factor)
        left, top, width, height = self.rectangle(image.width, image.height)
        box = (left, top, left + width, top + height)
        return image.resize((self.size, self.size), INTERPOLATION[self.interpolation], box)

    def rectangle(self, width: int, height: int) -> tuple[int, int, int, int]:
        """(left, top, width, height) in pixels of an image of that width and height."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for area, aspect, x, y in torch.rand(10, 4).tolist():
            target = width * height * (self.scale[0] + area * (self.scale[1] - self.scale[0]))
            ratio = math.exp(low + aspect * (high - low))
            w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(x * (width - w + 1)), int(y * (height - h + 1)), w, h
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        w, h = max(min(width, round(height * ratio)), 1), max(min(height, round(width / ratio)), 1)
        return (width - w) // 2, (height - h) // 2, w, h


@dataclass(frozen=True)
class PaddingCrop:
    """Pad all sides with the mean colour and cut out the old size at random (He et al., 2015, section 4.2)."""

    padding: int
    fill: tuple[int, ...]

    def __call__(self, image: Image.Image) -> Image.Image:
        dx, dy = (int(v * (2 * self.padding + 1)) - self.padding for v in torch.rand(2).tolist())
        canvas = Image.new(image.mode, image.size, self.fill if len(self.fill) > 1 else self.fill[0])
        canvas.paste(image, (dx, dy))
        return canvas


@dataclass(frozen=True)
class Flip:
    """Mirror with probability `p`."""

    p: float
    way: Image.Transpose

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.transpose(self.way) if torch.rand(()).item() < self.p else image


def _geometry(pre: Preprocessing, augment: Augment) -> tuple[Step, ...]:
    steps: list[Step] = [pre.fit]
    if augment.scale is not None:
        steps = [ResizedCrop(pre.size, augment.scale, augment.ratio, pre.interpolation)]
    if augment.padding_crop:
        steps.append(PaddingCrop(augment.padding_crop, pre.mean_colour))
    if augment.hflip:
        steps.append(Flip(augment.hflip, Image.Transpose.FLIP_LEFT_RIGHT))
    if augment.vflip:
        steps.append(Flip(augment.vflip, Image.Transpose.FLIP_TOP_BOTTOM))
    if augment.rotate or augment.translate or augment.zoom or augment.shear:
        shift, zoom = augment.translate, augment.zoom
        steps.append(
            v2.RandomAffine(
                augment.rotate,
                translate=(shift, shift) if shift else None,
                scale=(1 - zoom, 1 + zoom) if zoom else None,
                shear=augment.shear or None,
                interpolation=v2.InterpolationMode.BILINEAR,
                fill=list(pre.mean_colour),
            )
        )
    return tuple(steps)


def _colours(pre: Preprocessing, augment: Augment) -> tuple[Step, ...]:
    warp, fill = v2.InterpolationMode.BILINEAR, list(pre.mean_colour)
    steps: list[Step] = []
    if augment.auto == "randaugment":
        steps.append(v2.RandAugment(augment.auto_ops, augment.auto_magnitude, interpolation=warp, fill=fill))
    elif augment.auto == "autoaugment":
        steps.append(v2.AutoAugment(v2.AutoAugmentPolicy(augment.auto_policy), interpolation=warp, fill=fill))
    elif augment.auto == "trivialaugment":
        steps.append(v2.TrivialAugmentWide(interpolation=warp, fill=fill))
    if augment.jitter or augment.hue:
        coloured = pre.channels == 3  # saturation and hue mean nothing for grey images
        saturation, hue = (augment.jitter, augment.hue) if coloured else (0.0, 0.0)
        steps.append(v2.ColorJitter(augment.jitter, augment.jitter, saturation, hue))
    return tuple(steps)
