"""Reading one image file, whatever it holds, into an upright picture, or saying why not: 8 bits in grey or RGB, or
`Bands` where there are more bits or other bands; and masks, whose values are kept as they are."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Literal, TypeVar

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from resurge import untrusted
from resurge.data.band_files import NUMPY, Raster, deep, open_raster, tiff_pages
from resurge.data.bands import Bands, Depth, Picture, depth_of
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
    ".pnm": "PPM", ".jp2": "JPEG2000", ".j2k": "JPEG2000", ".avif": "AVIF", ".npy": "NPY",
}  # fmt: skip
"""File name endings, in lower case, that are taken for images, and the format they promise."""

Kind = Literal["missing", "permission", "empty", "not-an-image", "truncated", "too-large", "corrupt"]

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n", "PNG"), (b"GIF8", "GIF"), (b"RIFF", "WEBP"), (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"), (NUMPY, "NPY"),
)  # fmt: skip

_MASK_FORMATS = ("PNG", "TIFF", "BMP", "GIF", "PPM", "WEBP")
_BAND = 1 << 18  # pixels that are laid over white at a time
_GREY_MODES = ("1", "L", "LA", "La")
_WIDEST = 8  # bytes a pixel that an image of the largest number of pixels may have
_ORIENTATION_TAG = 0x0112
_TAGGED = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")  # where Pillow keeps the tag of an image
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
    """What a file says about itself before its pixels are decoded. `size` is (width, height) as stored; `bands` and
    `depth` are those of the image as it is read, `nbytes` the bytes of its values where it is read as `Bands`."""

    format: str
    mode: str
    size: tuple[int, int]
    orientation: int
    transparency: bool
    bands: int = 3
    depth: Depth = "8-bit"
    nbytes: int = 0

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


def open_image(source: str | os.PathLike[str] | bytes, draft_size: int | None = None) -> Picture:
    """Decode a file, given by its path or its bytes, upright (EXIF orientation applied).

    8 bits in grey or colour become an image of mode "L" or "RGB": palettes are resolved, CMYK and other colour spaces
    converted. More bits, and other numbers of bands (TIFF, .npy), become `Bands` with the values of the file. What the
    file says is transparency is laid over white. Of an animation or a multi-page file the first picture is taken.

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
) -> tuple[ImageHeader, Picture]:
    """The header of the file, and the image as `open_image` returns it; raises what `open_image` does."""
    with _decoding(name):
        opened, raster = _open_any(data, name, max_pixels)
        if raster is not None:
            header, picture = _header(opened, raster), _picture(raster.planes())
            return header, _turned(picture, header.orientation)
        assert opened is not None
        mode, size = opened.mode, opened.size
        if draft_size is not None and opened.format == "JPEG":
            opened.draft(None, (draft_size, draft_size))
        opened.load()
        # Only now: Pillow may find orientation and transparency of a PNG behind its pixels.
        header = replace(_header(opened), mode=mode, size=size)
        if header.orientation in _UPRIGHT:
            opened = _turned(opened, header.orientation)  # lets go of the one that was stored
            for key in _TAGGED:  # it is upright now: nobody is to turn it again
                opened.info.pop(key, None)
        return header, _eight_bit_grey_or_rgb(opened, header)


def pages(data: bytes, header: ImageHeader) -> int:
    """How many images of its size a TIFF file holds, of which the first is read; 1 for other formats."""
    with pillow_settings:
        try:
            return tiff_pages(data) if header.format == "TIFF" else 1
        except Exception:  # what is damaged behind the first image says nothing about it
            return 1


def read_header(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """Format, mode, size and orientation from the first bytes of a file, without decoding its pixels. Raises
    UnreadableImage when the bytes are no image, or announce more than `max_pixels`."""
    with _decoding(name):
        opened, raster = _open_any(data, name, max_pixels)
        # Pillow looks for the tags of a PNG behind its pixels, all of which it decodes on the way.
        untagged = opened is not None and opened.format == "PNG" and not any(tag in data for tag in LATE_TAGS)
        return _header(opened, raster, untagged)


def _open_any(data: bytes, name: str, max_pixels: int) -> tuple[Image.Image | None, Raster | None]:
    """(what Pillow opened, the values of it that Pillow would change), either of them None."""
    opened, raster = None, open_raster(data)
    if raster is None:
        opened = _open(data, name, max_pixels)
        raster = deep(opened, data)
    else:
        _require_pixels(data, name, raster.size, max_pixels)
    if raster is not None and raster.nbytes > _WIDEST * max_pixels:
        message = f"has {raster.nbytes:,} bytes of values, more than the limit of {_WIDEST * max_pixels:,}."
        raise UnreadableImage("too-large", name, f"{message} Make it smaller.")
    return opened, raster


def _header(opened: Image.Image | None, raster: Raster | None = None, untagged: bool = False) -> ImageHeader:
    turned = 1 if opened is None or untagged else _orientation(opened)
    if raster is None:
        assert opened is not None
        bands = 1 if opened.mode in _GREY_MODES else 3
        return ImageHeader(
            str(opened.format), opened.mode, opened.size, turned, opened.has_transparency_data, bands, "8-bit"
        )
    mode = f"{raster.dtype.name} x {raster.bands}" if opened is None or raster.bands > 1 else opened.mode
    return ImageHeader(
        raster.format, mode, raster.size, raster.orientation if opened is None else turned, raster.transparency,
        raster.bands, depth_of(raster.dtype), raster.nbytes,
    )  # fmt: skip


def _picture(planes: np.ndarray) -> Picture:
    if planes.dtype == np.uint8 and len(planes) in (1, 3):
        pixels = planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0)
        return Image.fromarray(np.ascontiguousarray(pixels))
    return Bands(planes)


SomePicture = TypeVar("SomePicture", Image.Image, Picture)


def _turned(picture: SomePicture, orientation: int) -> SomePicture:
    return picture.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else picture


@dataclass(frozen=True)
class StoredMask:
    """A mask as its file has it.

    values: uint8 (H, W), or int32 (H, W) where they do not fit; of an image of one bit 0 and 1; where it is `coloured`,
    red * 65536 + green * 256 + blue. palette: such colours, int32 (n,), of the values of an image with a palette.
    lossy: the format, where it is one that changes values.
    """

    values: np.ndarray
    coloured: bool = False
    palette: np.ndarray | None = None
    lossy: str = ""

    def as_colours(self) -> np.ndarray:
        """The values as colours, those of the palette or of grey where it has no others; int32, of the same shape."""
        if self.coloured:
            return self.values
        grey = np.arange(256, dtype=np.int32) * 0x010101
        colours = grey if self.palette is None else np.concatenate([self.palette, grey[len(self.palette) :]])
        return np.asarray(colours[np.minimum(self.values.astype(np.int32), 255)], dtype=np.int32)


def read_mask(path: str | os.PathLike[str]) -> StoredMask:
    """Read a mask. A coloured image that holds nothing but grey counts as grey. Raises UnreadableImage as `open_image`,
    or when it holds no whole numbers from 0 to 65535."""
    name, data = os.fspath(path), read_bytes(path)
    if data.startswith(NUMPY):
        raise UnreadableImage("corrupt", name, "is a NumPy array; masks are images of class indices. Save it as PNG.")
    with _decoding(name):
        image = _open(data, name, MAX_PIXELS)
        lossy = "" if image.format in _MASK_FORMATS else str(image.format)
        values = np.asarray(image)
        palette = image.getpalette("RGB") if image.mode == "P" else None
    if values.ndim == 3:
        if values.shape[2] >= 3 and (values[..., :3] != values[..., :1]).any():
            red, green, blue = (values[..., channel].astype(np.int32) for channel in range(3))
            return StoredMask((red << 16) + (green << 8) + blue, coloured=True, lossy=lossy)
        values = values[..., 0]
    if values.dtype in (np.uint8, bool):
        colours = None if palette is None else np.asarray(palette, dtype=np.int32).reshape(-1, 3) @ (1 << 16, 1 << 8, 1)
        return StoredMask(values.astype(np.uint8), palette=colours, lossy=lossy)
    if values.dtype.kind == "f" or values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise UnreadableImage("corrupt", name, "holds values that are no class indices (0 to 65535). Save it as PNG.")
    return StoredMask(values.astype(np.int32), lossy=lossy)


def read_indices(path: str | os.PathLike[str]) -> np.ndarray:
    """The values of a mask as they are stored, as in `StoredMask`; of an image with a palette the palette's indices.

    Raises:
        UnreadableImage: as `read_mask`; or the format is lossy, or it holds colours instead of indices.
    """
    mask = read_mask(path)
    if mask.lossy:
        message = f"is a {mask.lossy}, which changes values; masks hold class indices. Save masks as PNG."
        raise UnreadableImage("corrupt", os.fspath(path), message)
    if mask.coloured:
        message = "holds colours, not class indices. Save the index of each pixel's class as grey or palette PNG."
        raise UnreadableImage("corrupt", os.fspath(path), message)
    return mask.values


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
    _require_pixels(data, name, image.size, max_pixels)
    return image


def _require_pixels(data: bytes, name: str, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        message = (
            f"announces {width} x {height} = {width * height:,} pixels in {len(data):,} bytes, more than the limit of "
            f"{max_pixels:,}. Make it smaller."
        )
        raise UnreadableImage("too-large", name, message)
    if width * height == 0:
        raise UnreadableImage("corrupt", name, f"has no pixels ({width} x {height}). Replace or remove it.")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # a damaged EXIF block says nothing about the pixels, so the image stays as stored
        return 1


def _eight_bit_grey_or_rgb(image: Image.Image, header: ImageHeader) -> Image.Image:
    mode = image.mode
    if mode in ("L", "RGB") and not header.transparency:
        return image
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
