"""What users give a `Predictor` as images: files, folders, Pillow's images, arrays, and lists of them. No torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from resurge.data.bands import Bands, Picture
from resurge.data.images import open_image
from resurge.data.paths import find_images
from resurge.errors import UserError

Given = str | os.PathLike[str] | bytes | Picture | np.ndarray
"""A file, a folder of them, the bytes of a file, an image of any mode, or an array: uint8 (H, W) or
(H, W, 3) in RGB order, or (H, W, bands) of the type of the training images."""

_ORIENTATION = 0x0112  # EXIF's tag


def opened(images: Given | Iterable[Given]) -> Iterator[Picture]:
    """The images one after the other, upright, as `open_image` gives those of files.

    Raises:
        UserError: something else was given, or a file cannot be read.
    """
    if isinstance(images, (str, os.PathLike)):
        path = Path(images)
        if not path.is_dir():
            yield open_image(path)
            return
        names, _ = find_images(path, "")
        if not names:
            raise UserError(f"{path} has no images in it. Expected files such as {path / '1.jpg'}.")
        yield from (open_image(path / name) for name in names)
    elif isinstance(images, bytes):
        yield open_image(images)
    elif isinstance(images, Image.Image):
        yield _as_of_a_file(images)
    elif isinstance(images, Bands):
        yield images
    elif isinstance(images, np.ndarray):
        yield _of_array(images)
    elif isinstance(images, Iterable) and not hasattr(images, "dtype"):  # a tensor would be taken apart
        for each in images:
            yield from opened(each)
    else:
        raise _unknown(images)


def _unknown(given: Any, what: str = "") -> UserError:
    kind = what or f"{type(given).__module__.partition('.')[0]}.{type(given).__name__}".removeprefix("builtins.")
    hint = " Call .permute(1, 2, 0).numpy() on a tensor (C, H, W) of 0..255." if hasattr(given, "permute") else ""
    return UserError(
        "expected an image as a path, a PIL image, a uint8 array (H, W, 3) in RGB order or (H, W) in grey, or a list "
        f"of them; got {kind}.{hint}"
    )


def _of_array(values: np.ndarray) -> Picture:
    channels_first = values.ndim == 3 and values.shape[0] in (1, 3) and min(values.shape[1:]) > 4
    if values.ndim not in (2, 3) or values.dtype.kind not in "uif" or channels_first:
        raise _unknown(values, f"an array {tuple(values.shape)} of {values.dtype}")
    if values.size == 0:
        raise _unknown(values, f"an array {tuple(values.shape)} without pixels")
    if values.dtype == np.uint8 and (values.ndim == 2 or values.shape[2] == 3):
        return Image.fromarray(values)
    file = BytesIO()
    np.save(file, values)
    return open_image(file.getvalue())


def _as_of_a_file(image: Image.Image) -> Picture:
    """An image as it would be read from its file: upright, its transparency laid over white, and so on."""
    upright = image if image.getexif().get(_ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)
    if upright.mode in ("L", "RGB") and not upright.has_transparency_data:
        return upright
    file = BytesIO()
    upright.save(file, "TIFF" if upright.mode in ("F", "CMYK", "YCbCr", "LAB") else "PNG")
    return open_image(file.getvalue())
