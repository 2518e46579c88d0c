"""Reading images whose values are class indices, or marks of an object: nothing is converted, scaled or turned."""

from __future__ import annotations

import os
from io import BytesIO

import numpy as np
from PIL import Image

from resurge.data.images import MAX_PIXELS, UnreadableImage, pillow_settings, read_bytes, read_header
from resurge.data.regions import RunLengths, run_lengths_of_part

_READERS = ("PNG", "TIFF", "BMP", "GIF", "PPM", "WEBP", "JPEG")


def read_indices(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The values of a mask: uint8 (H, W), or int32 (H, W) where they do not fit. Of an image with a palette the
    palette's indices; of a coloured one that holds grey the grey; of an image of one bit 0 and 1.

    Raises:
        UnreadableImage: the file is missing, no image, damaged, too large, lossy, or holds colours instead of indices.
    """
    return _values(_load(path, max_pixels), os.fspath(path))


def read_object_mask(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> RunLengths:
    """The pixels of a mask that are not 0.

    Raises:
        UnreadableImage: see `read_indices`.
    """
    image = _load(path, max_pixels)
    box = image.getbbox() if image.mode in ("1", "L", "P") else (0, 0, *image.size)
    if box is None:
        box = (0, 0, 1, 1)
    return run_lengths_of_part(_values(image.crop(box), os.fspath(path)) > 0, box[1], box[0], image.height, image.width)


def _load(path: str | os.PathLike[str], max_pixels: int) -> Image.Image:
    name = os.fspath(path)
    data = read_bytes(path)
    with pillow_settings:
        try:
            image = Image.open(BytesIO(data), formats=_READERS)
        except Exception:  # whatever is wrong with it, this reader has the words for it
            read_header(data, name, max_pixels)
            raise UnreadableImage("corrupt", name, "is of a kind that masks are not kept in. Save it as PNG.") from None
        if image.format == "JPEG":
            message = "is a JPEG, which changes values; masks hold class indices. Save masks as PNG."
            raise UnreadableImage("corrupt", name, message)
        if image.width * image.height > max_pixels:
            message = f"announces {image.width} x {image.height} pixels, more than the limit of {max_pixels:,}."
            raise UnreadableImage("too-large", name, message)
        try:
            image.load()
        except MemoryError as error:
            raise UnreadableImage("too-large", name, "does not fit into memory. Make it smaller.") from error
        except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
            message = f"cannot be decoded ({error}). Replace or remove it."
            if "truncated" in str(error).lower():
                raise UnreadableImage("truncated", name, message) from error
            raise UnreadableImage("corrupt", name, message) from error
        return image


def _values(image: Image.Image, name: str) -> np.ndarray:
    values = np.asarray(image)
    if values.ndim == 3:
        colours = values[..., :3] if values.shape[2] >= 3 else values[..., :1]
        if (colours != colours[..., :1]).any():
            message = "holds colours, not class indices. Save the index of each pixel's class as grey or palette PNG."
            raise UnreadableImage("corrupt", name, message)
        values = colours[..., 0]
    if values.dtype in (np.uint8, bool):
        return values.astype(np.uint8)
    if values.dtype.kind == "f" or values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise UnreadableImage("corrupt", name, "holds values that are no class indices (0 to 65535). Save it as PNG.")
    return values.astype(np.int32)
