"""Reading one image file, whatever it holds, into an upright 8-bit grey or RGB picture, or saying why not; and masks,
whose values are kept as they are."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from resurge import untrusted
from resurge.errors import UserError

MAX_PIXELS = 178_000_000
"""Images with more pixels than this are refused unless the caller allows more (a decompression bomb otherwise)."""

MAX_BYTES = 4 << 30
"""Of an image file; one of `MAX_PIXELS` with four bands of 32 bits has less."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "MPO", "AVIF")
"""Pillow's readers we let near a user's file. Left out on purpose: EPS runs an external program, others are exotic."""

EXTENSIONS = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".mpo": "JPEG", ".png": "PNG", ".webp": "WEBP",
    ".bmp": "BMP", ".gif": "GIF", ".tif": "TIFF", ".tiff": "TIFF", ".ppm": "PPM", ".pgm": "PPM", ".pbm": "PPM",
    ".pnm": "PPM", ".jp2": "JPEG2000", ".j2k": "JPEG2000", ".avif": "AVIF",
}  # fmt: skip
"""File name endings, in lower case, that are taken for images, and the format they promise."""

Kind = Literal["missing", "permission", "empty", "not-an-image", "truncated", "too-large", "corrupt"]

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n", "PNG"), (b"GIF8", "GIF"), (b"RIFF", "WEBP"), (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
)  # fmt: skip

_MASK_FORMATS = ("PNG", "TIFF", "BMP", "GIF", "PPM", "WEBP")
_BAND = 1 << 18  # pixels that are laid over white at a time
_ORIENTATION_TAG = 0x0112
LATE_TAGS = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
"""What a PNG that says its orientation has in it, in one of these ways."""
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(UserError):
    """An image cannot be used. `kind` says why in one word, `name` which file, `reason` what to do."""

    def __init__(self, kind: Kind, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.kind, self.name, self.reason = kind, name, reason

    def __reduce__(self) -> tuple[object, ...]:
        # Loader workers send exceptions to the main process; the default pickling would call __init__ wrongly.
        return (UnreadableImage, (self.kind, self.name, self.reason))


@dataclass(frozen=True)
class ImageHeader:
    """What a file says about itself before its pixels are decoded. `size` is (width, height) as stored."""

    format: str
    mode: str
    size: tuple[int, int]
    orientation: int
    transparency: bool

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) after EXIF orientation is applied."""
        return self.size[::-1] if self.orientation >= 5 else self.size


class _PillowSettings:
    """Pillow's process-wide switches and warnings, set for the time that any thread is inside, then put back.

    Pillow warns and raises at its own pixel limit; the limit here is the caller's, checked by us. Another library may
    have set Pillow to accept truncated files; here they are errors.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._limit, self._truncated = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
                self._warnings = warnings.catch_warnings()
                self._warnings.__enter__()
                warnings.simplefilter("ignore")
                Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = self._limit, self._truncated
                self._warnings.__exit__(None, None, None)


pillow_settings = _PillowSettings()
# Pillow logs details of damaged files as errors, which Python prints when nobody listens; our own error says it all.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def is_image_name(name: str) -> bool:
    """Whether the ending of a file name is that of an image format we read."""
    return ending(name) in EXTENSIONS


def ending(name: str) -> str:
    """The ending of a file name in lower case, with its dot; "" when there is none."""
    stem, dot, last = name.rpartition(".")
    return dot + last.lower() if stem else ""


def open_image(source: str | os.PathLike[str] | bytes, draft_size: int | None = None) -> Image.Image:
    """Decode a file, given by its path or its bytes: upright (EXIF orientation applied), 8 bits, mode "L" or "RGB".

    Transparent pixels are laid over white, palettes are resolved, CMYK and other colour spaces converted; 16-bit
    values are divided by 257, and 32-bit and floating point ones scaled as `to_eight_bits` says. Of an animation or a
    multi-page file the first picture is taken.

    Args:
        draft_size: allow a JPEG to be decoded at 1/2, 1/4 or 1/8 of its size as long as its shorter side keeps at
            least this many pixels. Deterministic, several times faster, but other pixels: for training only.

    Raises:
        UnreadableImage: (a UserError) the file is missing, forbidden, empty, no image, truncated, damaged, too large.
    """
    data, name = (source, "<bytes>") if isinstance(source, bytes) else (read_bytes(source), os.fspath(source))
    return decode(data, name, draft_size=draft_size)[1]


def decode(
    data: bytes, name: str, max_pixels: int = MAX_PIXELS, draft_size: int | None = None
) -> tuple[ImageHeader, Image.Image]:
    """The header of the file, and the image as `open_image` returns it; raises what `open_image` does."""
    with _decoding(name):
        image = _open(data, name, max_pixels)
        format, mode, size = str(image.format), image.mode, image.size
        if draft_size is not None and format == "JPEG":
            image.draft(None, (draft_size, draft_size))
        image.load()
        # Only now: Pillow may find orientation and transparency of a PNG behind its pixels.
        header = ImageHeader(format, mode, size, _orientation(image), image.has_transparency_data)
        if header.orientation in _UPRIGHT:
            image = image.transpose(_UPRIGHT[header.orientation])  # lets go of the one that was stored
        return header, _eight_bit_grey_or_rgb(image, header)


def read_header(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """Format, mode, size and orientation from the first bytes of a file, without decoding its pixels. Raises
    UnreadableImage when the bytes are no image, or announce more than `max_pixels`."""
    with _decoding(name):
        image = _open(data, name, max_pixels)
        # Pillow looks for the tags of a PNG behind its pixels, all of which it decodes on the way.
        untagged = image.format == "PNG" and not any(tag in data for tag in LATE_TAGS)
        orientation = 1 if untagged else _orientation(image)
        return ImageHeader(str(image.format), image.mode, image.size, orientation, image.has_transparency_data)


def read_indices(path: str | os.PathLike[str]) -> np.ndarray:
    """The values of a mask as they are stored: uint8 (H, W), or int32 (H, W) where they do not fit. Of an image with a
    palette the palette's indices; of a coloured one that holds grey the grey; of an image of one bit 0 and 1.

    Raises:
        UnreadableImage: as `open_image`; or the format is lossy, or it holds colours instead of indices.
    """
    name, data = os.fspath(path), read_bytes(path)
    with _decoding(name):
        image = _open(data, name, MAX_PIXELS)
        if image.format not in _MASK_FORMATS:
            message = f"is a {image.format}, which changes values; masks hold class indices. Save masks as PNG."
            raise UnreadableImage("corrupt", name, message)
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


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a file. Raises UnreadableImage when it is missing, a folder, or may not be read."""
    name = os.fspath(path)
    try:
        return untrusted.read_bytes(path, MAX_BYTES)
    except FileNotFoundError as error:
        message = "there is no such file. Correct the path or remove the entry."
        raise UnreadableImage("missing", name, message) from error
    except PermissionError as error:
        message = "may not be read by this user. Change its permissions (chmod +r) or remove it."
        raise UnreadableImage("permission", name, message) from error
    except OSError as error:
        raise UnreadableImage("corrupt", name, f"cannot be read ({error.strerror or error}).") from error


def to_eight_bits(values: np.ndarray) -> np.ndarray:
    """Grey values of any depth (H, W) as uint8 (H, W), by a rule that depends on type and largest value only.

    uint16, and integers up to 65535: divided by 257 and rounded. Integers up to 255: kept. Larger integers: the range
    from smallest to largest is stretched over 0..255. Floats: 0..1 is multiplied by 255, up to 255 kept, anything
    else stretched; values that are not finite become 0.
    """
    if values.dtype == np.uint16:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    wide = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(wide.min()), float(wide.max())
    if low < 0 or high > (65535 if values.dtype.kind in "iu" else 255):
        wide = (wide - low) * (255 / max(high - low, 1e-12))
    elif values.dtype.kind == "f" and high <= 1:
        wide = wide * 255
    elif high > 255:
        wide = wide / 257
    return np.rint(wide).astype(np.uint8)


@contextlib.contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Pillow's decoders raise nearly anything on damaged files: here it becomes an UnreadableImage."""
    with pillow_settings:
        try:
            yield
        except UnreadableImage:
            raise
        except MemoryError as error:
            raise UnreadableImage("too-large", name, "does not fit into memory. Make the image smaller.") from error
        except Exception as error:
            text = str(error) or type(error).__name__
            if "truncated" in text.lower() or isinstance(error, EOFError):
                message = f"the file is cut short ({text}). Copy it again or remove it."
                raise UnreadableImage("truncated", name, message) from error
            raise UnreadableImage("corrupt", name, f"cannot be decoded ({text}). Replace or remove it.") from error


def _open(data: bytes, name: str, max_pixels: int) -> Image.Image:
    if not data:
        raise UnreadableImage("empty", name, "the file is empty (0 bytes). Copy it again or remove it.")
    Image.init()
    try:
        image = Image.open(BytesIO(data), formats=[reader for reader in FORMATS if reader in Image.OPEN])
    except UnidentifiedImageError as error:
        format = next((format for start, format in _SIGNATURES if data.startswith(start)), None)
        if format is not None:
            message = f"starts as {format} does, but its header is damaged or cut short. Replace or remove it."
            raise UnreadableImage("corrupt", name, message) from error
        start = data[:24].decode("ascii", "replace")
        shown = repr(start) if start.isprintable() and start.isascii() else f"the bytes {data[:8].hex(' ')}"
        message = f"is not an image, whatever its name says (it starts with {shown}). Remove or replace it."
        raise UnreadableImage("not-an-image", name, message) from error
    width, height = image.size
    if width * height > max_pixels:
        message = (
            f"announces {width} x {height} = {width * height:,} pixels in {len(data):,} bytes, more than the limit of "
            f"{max_pixels:,}. Make it smaller."
        )
        raise UnreadableImage("too-large", name, message)
    if width * height == 0:
        raise UnreadableImage("corrupt", name, f"has no pixels ({width} x {height}). Replace or remove it.")
    return image


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # a damaged EXIF block says nothing about the pixels, so the image stays as stored
        return 1


def _eight_bit_grey_or_rgb(image: Image.Image, header: ImageHeader) -> Image.Image:
    mode = image.mode
    if mode in ("L", "RGB") and not header.transparency:
        return image
    if mode.startswith("I") or mode == "F":
        values = np.asarray(image)
        # Pillow gives 16-bit files of these two formats as 32-bit integers in some versions.
        sixteen = mode == "I" and header.format in ("PNG", "PPM")
        return Image.fromarray(to_eight_bits(values.astype(np.uint16) if sixteen else values))
    if mode == "1":
        return image.convert("L")
    if header.transparency:
        return _over_white(image, "L" if mode in ("L", "LA", "La") else "RGB")
    if mode == "LAB":
        raise ValueError("CIE LAB colours are not read, save it as RGB")
    return image.convert("RGB")


def _over_white(image: Image.Image, mode: str) -> Image.Image:
    """The picture without its transparency. A band at a time: whole layers would take four times its memory."""
    width, height = image.size
    rows = max(1, _BAND // width)
    flat = Image.new(mode, image.size)
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(top + rows, height)))
        layer = (band.convert("LA") if band.mode == "La" else band).convert("RGBA")
        laid = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
        flat.paste(laid if mode == "RGB" else laid.convert(mode), (0, top))
    return flat
