"""Heat maps on images: a colour scale, overlays, and tensors turned back into images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from resurge.errors import UserError
from resurge.files import atomic_write_bytes

if TYPE_CHECKING:
    from torch import Tensor

# From dark violet over red to pale yellow; lightness rises all along, so that it reads in grey as well.
SCALE = np.array(
    [
        (20, 11, 53),
        (76, 16, 104),
        (137, 28, 105),
        (193, 50, 82),
        (236, 91, 48),
        (250, 153, 42),
        (249, 217, 110),
        (253, 250, 205),
    ],
    dtype=np.float64,
)


def colors(heat: np.ndarray) -> np.ndarray:
    """Values in 0..1 of any shape as RGB, uint8, with a last axis of 3."""
    at = np.clip(np.nan_to_num(heat.astype(np.float64)), 0.0, 1.0) * (len(SCALE) - 1)
    low = np.minimum(at.astype(int), len(SCALE) - 2)
    part = (at - low)[..., None]
    return np.rint(SCALE[low] * (1 - part) + SCALE[low + 1] * part).astype(np.uint8)


def overlay(image: Image.Image, heat: Tensor | np.ndarray, strength: float = 0.7) -> Image.Image:
    """The image with a heat map over it: (h, w) in 0..1, of any size, stretched over the image.

    The image is shown in grey, so that colour means heat alone, and cold places keep it visible.

    Raises:
        UserError: the heat map is not two-dimensional.
    """
    values = np.asarray(heat, dtype=np.float32) if isinstance(heat, np.ndarray) else heat.detach().float().cpu().numpy()
    if values.ndim != 2 or values.size == 0:
        raise UserError(f"a heat map has two dimensions, height and width; got shape {tuple(values.shape)}.")
    values = np.clip(np.nan_to_num(values.astype(np.float32)), 0.0, 1.0)
    stretched = Image.fromarray(values).resize(image.size, Image.Resampling.BICUBIC)
    smooth = np.clip(np.asarray(stretched), 0.0, 1.0)
    grey = np.asarray(image.convert("L"), dtype=np.float64)[..., None].repeat(3, axis=2)
    # Never wholly covered, never wholly bare: shape and heat can both be read everywhere.
    alpha = (strength * (0.35 + 0.65 * smooth))[..., None]
    return Image.fromarray(np.rint(grey * (1 - alpha) + colors(smooth) * alpha).astype(np.uint8))


def to_image(tensor: Tensor, mean: Sequence[float], std: Sequence[float]) -> Image.Image:
    """A normalised input (C, H, W) as the image it was made of: RGB for three channels, else grey (their mean).

    Raises:
        UserError: the tensor has another number of dimensions, or mean and std do not fit its channels.
    """
    if tensor.ndim != 3 or len(mean) not in (1, tensor.shape[0]) or len(std) != len(mean):
        raise UserError(
            f"expected a tensor (C, H, W) and a mean and std for each channel; got shape {tuple(tensor.shape)}, "
            f"{len(mean)} means and {len(std)} deviations."
        )
    pixels = tensor.detach().double().cpu()
    pixels = pixels * pixels.new_tensor(list(std)).view(-1, 1, 1) + pixels.new_tensor(list(mean)).view(-1, 1, 1)
    values = np.rint(np.clip(np.nan_to_num(pixels.numpy()), 0.0, 1.0) * 255).astype(np.uint8)
    return (
        Image.fromarray(values.transpose(1, 2, 0))
        if values.shape[0] == 3
        else Image.fromarray(np.rint(values.mean(0)).astype(np.uint8))
    )


def enlarge(image: Image.Image, at_least: int = 96, at_most: int = 224) -> Image.Image:
    """The image with its longer side in at_least..at_most: small ones grow by a whole factor, with square pixels."""
    longer = max(image.size)
    if longer < at_least:
        factor = -(-at_least // longer)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    if longer > at_most:
        size = (max(1, round(image.width * at_most / longer)), max(1, round(image.height * at_most / longer)))
        return image.resize(size, Image.Resampling.LANCZOS)
    return image


def sheet(images: dict[str, Image.Image]) -> Image.Image:
    """Images side by side, each under its name.

    Raises:
        UserError: there are none.
    """
    if not images:
        raise UserError("there are no images to put side by side.")
    gap, caption = 8, 22
    height = max(image.height for image in images.values())
    width = sum(image.width for image in images.values()) + gap * (len(images) + 1)
    page = Image.new("RGB", (width, height + caption + gap), "#ffffff")
    pen, font, x = ImageDraw.Draw(page), ImageFont.load_default(13), gap
    for name, image in images.items():
        pen.text((x, 4), name, fill="#1f2933", font=font)
        page.paste(image.convert("RGB"), (x, caption))
        x += image.width + gap
    return page


def save_png(image: Image.Image, path: str | Path) -> Path:
    """Write a PNG, wholly or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    atomic_write_bytes(path, buffer.getvalue())
    return Path(path)
