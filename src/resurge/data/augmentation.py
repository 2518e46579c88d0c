"""The recipe's section of augmentation: what training does to an image at random. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from resurge.config import Section, option
from resurge.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Augmentation(Section):
    """What is done to a training image at random, as `transforms` says.

    Raises:
        UserError: a value is out of range, or a pair is none; names the field.
    """

    crop_scale: tuple[float, ...] | None = option(
        (0.08, 1.0), "random resized crop: share of the area, from and to; null: off", above=0, high=1
    )
    crop_ratio: tuple[float, ...] = option((0.75, 4 / 3), "random resized crop: aspect ratio, from and to", above=0)
    pad_crop: int = option(0, "pad by this many pixels, then crop at random (CIFAR: 4)", low=0)
    hflip: float = option(0.5, "probability of a left-right flip", low=0, high=1)
    affine_degrees: float = option(0.0, "random rotation, up to this many degrees either way", low=0, high=180)
    affine_translate: float = option(0.0, "random shift, up to this share of the side", low=0, high=1)
    affine_scale: float = option(0.0, "random zoom, up to this share larger or smaller", low=0, below=1)
    affine_shear: float = option(0.0, "random shear, up to this many degrees either way", low=0, below=90)
    auto_augment: str = option(
        "none", "policy of operations", choices=("none", "autoaugment", "randaugment", "trivialaugment")
    )
    auto_policy: str = option(
        "imagenet", "AutoAugment: the data its policy was found on", choices=("imagenet", "cifar10")
    )
    auto_operations: int = option(2, "RandAugment: operations per image", low=1)
    auto_magnitude: int = option(9, "RandAugment: strength, 0 to 30", low=0, high=30)
    color_jitter: float = option(0.0, "strength of random brightness, contrast and saturation", low=0, high=1)
    random_erasing: float = option(0.0, "probability of erasing a rectangle (Zhong et al. 2020)", low=0, high=1)
    vflip: float = option(0.0, "not classify: probability of an upside-down flip", low=0, high=1)
    rotate90: bool = option(False, "not classify: turn by a random number of quarter turns")
    photometric: float = option(
        0.0, "not classify: probability of each of SSD's colour changes (Liu et al. 2016)", low=0, high=1
    )
    short_sides: tuple[int, ...] = option((), "not classify: short sides to draw from; empty: size", low=1, high=4096)
    scale_jitter: tuple[float, ...] | None = option(
        None,
        "not classify: resize by a random factor, from and to, and cut or pad to crop_size (null: a square of size); "
        "null: off",
        above=0,
    )
    crop_size: tuple[int, ...] | None = option(
        None, "not classify: height and width of a random crop after resizing; null: off", low=1, high=4096
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("crop_scale", "crop_ratio", "scale_jitter"):
            pair = getattr(self, name)
            if pair is not None and (len(pair) != 2 or pair[0] > pair[1]):
                raise UserError(f"{name} takes two numbers, from and to (for example [0.5, 1.0]), not {list(pair)}.")
        if self.crop_size is not None and len(self.crop_size) != 2:
            raise UserError(f"crop_size takes two numbers, not {list(self.crop_size)}.")
