"""Heat maps on images: a colour scale, overlays, and tensors turned back into images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from resurge.files import MARK, atomic_write

if TYPE_CHECKING:
    from torch import Tensor

# From dark violet over red to pale yellow; lightness rises all along, so that it reads in grey as well.
SCALE = np.array(
    [
        [20, 76, 137, 193, 236, 250, 249, 253],
        [11, 16, 28, 50, 91, 153, 217, 250],
        [53, 104, 105, 82, 48, 42, 110, 205],
    ]
)


def colors(heat: np.ndarray) -> np.ndarray:
    """Values in 0..1 of any shape as RGB, uint8, with a last axis of 3."""
    at = np.clip(np.nan_to_num(heat.astype(np.float64)), 0.0, 1.0) * (SCALE.shape[1] - 1)
    channels = [np.interp(at, np.arange(SCALE.shape[1]), channel) for channel in SCALE]
    result: np.ndarray = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return result


def overlay(image: Image.Image, heat: Tensor) -> Image.Image:
    """The image with a heat map over it: (h, w) in 0..1, of any size, stretched over the image.

    The image is shown in grey, so that colour means heat alone, and cold places keep it visible.
    """
    values = np.clip(np.nan_to_num(heat.detach().float().cpu().numpy()), 0.0, 1.0)
    stretched = Image.fromarray(values).resize(image.size, Image.Resampling.BICUBIC)
    smooth = np.clip(np.asarray(stretched), 0.0, 1.0)
    grey = np.asarray(image.convert("L"), dtype=np.float64)[..., None].repeat(3, axis=2)
    # Never wholly covered, never wholly bare: shape and heat can both be read everywhere.
    alpha = (0.7 * (0.35 + 0.65 * smooth))[..., None]
    return Image.fromarray(np.rint(grey * (1 - alpha) + colors(smooth) * alpha).astype(np.uint8))


def to_image(
    tensor: Tensor, mean: Sequence[float], std: Sequence[float], window: tuple[float, float] = (0.0, 1.0)
) -> Image.Image:
    """A normalised input (C, H, W) as the image it was made of: the first three channels in RGB, or one in grey; black
    and white are the values of `window`."""
    pixels = tensor.detach().double().cpu()
    pixels = pixels * pixels.new_tensor(list(std)).view(-1, 1, 1) + pixels.new_tensor(list(mean)).view(-1, 1, 1)
    stretched = (np.nan_to_num(pixels.numpy()) - window[0]) / (window[1] - window[0])
    values = np.rint(np.clip(stretched, 0.0, 1.0) * 255)
    shown = values[:3].transpose(1, 2, 0) if len(values) >= 3 else values[0]
    return Image.fromarray(shown.astype(np.uint8))


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
    """Images side by side, each under its name."""
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


def save_image(image: Image.Image, path: str | Path) -> Path:
    """Write a JPEG where `path` ends in .jpg, else a PNG, wholly or not at all.

    Raises:
        UserError: another picture than one of ours is there, or the file cannot be written.
    """
    target = Path(path)
    with atomic_write(target) as file:
        if target.suffix == ".jpg":
            image.convert("RGB").save(file, "JPEG", quality=85, comment=MARK)
        else:
            about = PngInfo()
            about.add_text("Software", MARK)
            image.save(file, "PNG", optimize=True, pnginfo=about)
    return target
