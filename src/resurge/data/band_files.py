"""Files whose values Pillow does not give as they are: TIFF of several bands or of 32 and 64 bits, 16-bit colours in
PNG and PPM, NumPy arrays. Damage raises whatever comes; `images` makes errors of it.

Pillow's decoders are used for the compression alone: they are told that each row is one of grey bytes, and NumPy reads
the bytes. So everything that libtiff unpacks without loss is read, in any type and number of bands.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

NUMPY = b"\x93NUMPY"
"""How a .npy file begins."""

_LOSSLESS = (1, 5, 8, 32773, 32946, 34925, 50000)  # none, LZW, deflate, PackBits, deflate, LZMA, Zstandard
_KINDS = {1: "u", 2: "i", 3: "f"}  # of TIFF's SampleFormat
_UNASSOCIATED, _ASSOCIATED = 2, 1  # ExtraSamples that are transparency
_MOST_BANDS = 1024


@dataclass(frozen=True)
class Raster:
    """An image in a file that is not decoded yet. `size` is (width, height) as stored; `bands` do not count
    transparency; `read` gives (C, H, W), transparency last where there is one."""

    format: str
    size: tuple[int, int]
    bands: int
    dtype: np.dtype
    read: Callable[[], np.ndarray]
    orientation: int = 1
    transparency: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return self.size[0] * self.size[1] * (self.bands + self.transparency) * self.dtype.itemsize

    def planes(self) -> np.ndarray:
        """(C, H, W) in this machine's byte order, transparent pixels laid over the largest value of their type."""
        planes = np.ascontiguousarray(self.read())
        planes = planes.astype(planes.dtype.newbyteorder("="), copy=False)
        if not self.transparency:
            return planes
        colours, alpha = planes[:-1], planes[-1]
        white = 1.0 if planes.dtype.kind == "f" else float(np.iinfo(planes.dtype).max)
        if (alpha == white).all():
            return colours
        share = (alpha / white).clip(0, 1)

        def laid(plane: np.ndarray) -> np.ndarray:
            flat: np.ndarray = plane * share + white * (1 - share)
            return (flat if plane.dtype.kind == "f" else np.rint(flat)).astype(plane.dtype)

        return np.stack([laid(plane) for plane in colours])  # one at a time: all would take several times the memory


def open_raster(data: bytes) -> Raster | None:
    """The image in a .npy file, or in a TIFF file that Pillow would refuse or cut; None for other files.

    Raises:
        ValueError: it is in a form that is not read.
    """
    if data.startswith(NUMPY):
        return _npy(data)
    return _tiff(data) if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") else None


def deep(image: Image.Image, data: bytes) -> Raster | None:
    """The values of a file that Pillow has opened and not yet decoded, where they have more than 8 bits, else None."""
    tile = image.tile[0] if isinstance(image, ImageFile.ImageFile) and image.tile else None
    arguments = None if tile is None else tile[3]
    size, format = image.size, str(image.format)
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow gives 16-bit files of these two formats as 32-bit integers in some versions.
        sixteen = image.mode == "I" and format in ("PNG", "PPM")
        dtype = np.dtype(np.uint16) if sixteen else np.asarray(Image.new(image.mode, (1, 1))).dtype
        clear = image.info.get("transparency") if format == "PNG" else None

        def grey() -> np.ndarray:
            return _cleared(np.asarray(image).astype(dtype, copy=False)[None], clear)

        return Raster(format, size, 1, dtype, grey, transparency=clear is not None)
    if format == "PNG" and str(arguments).endswith(";16B"):
        bands, alpha, key = (1 if arguments == "LA;16B" else 3), image.mode == "RGBA", image.info.get("transparency")

        def colours() -> np.ndarray:
            return _cleared(_png(data, bands == 1, alpha), key)

        return Raster(format, size, bands, np.dtype(np.uint16), colours, transparency=alpha or key is not None)
    if tile is not None and tile[0] == "ppm" and image.mode == "RGB" and isinstance(arguments, tuple):
        (_, most), offset = arguments, tile[2]

        def read() -> np.ndarray:
            values = np.frombuffer(data, ">u2", size[0] * size[1] * 3, offset).reshape(size[1], size[0], 3)
            scaled: np.ndarray = np.rint(values.transpose(2, 0, 1) * (65535 / most)).astype(np.uint16)  # as its greys
            return scaled

        return Raster(format, size, 3, np.dtype(np.uint16), read) if most > 255 else None
    return None


def _npy(data: bytes) -> Raster:
    header = BytesIO(data)
    version = np.lib.format.read_magic(header)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = reader(header)
    if len(shape) not in (2, 3) or dtype.kind not in "uif" or min(shape) < 1:
        raise ValueError(f"it is an array {shape} of {dtype}; expected numbers, (height, width) or with bands last")
    bands = shape[2] if len(shape) == 3 else 1
    if bands > _MOST_BANDS or (bands > shape[0] and shape[0] <= 16):
        raise ValueError(f"it is an array {shape}, which would have {bands} bands; expected (height, width, bands)")
    kind = np.dtype(np.int16) if dtype == np.int8 else np.dtype(np.float32) if dtype == np.float16 else dtype

    def read() -> np.ndarray:
        array: np.ndarray = np.load(BytesIO(data), allow_pickle=False)
        return array.reshape(shape[0], shape[1], bands).transpose(2, 0, 1).astype(kind, copy=False)

    return Raster("NPY", (shape[1], shape[0]), bands, kind, read)


def _png(data: bytes, grey: bool, alpha: bool) -> np.ndarray:
    """Colours of 16 bits, uint16 (C, H, W): Pillow's decoder gives the upper byte of each, or the lower."""

    def half(raw: str) -> np.ndarray:
        with Image.open(BytesIO(data), formats=["PNG"]) as image:
            assert isinstance(image, ImageFile.ImageFile)
            image.tile = [(*tile[:3], raw) for tile in image.tile]  # type: ignore[misc]
            return np.asarray(image).astype(np.uint16)

    if grey:  # a pixel is four bytes: the upper and lower of its grey and of its transparency
        whole = half("RGBA")
        return np.stack([whole[..., 0] << 8 | whole[..., 1], whole[..., 2] << 8 | whole[..., 3]])
    mode = "RGBA" if alpha else "RGB"
    planes: np.ndarray = (half(f"{mode};16B") << 8 | half(f"{mode};16L")).transpose(2, 0, 1)
    return planes


def _cleared(planes: np.ndarray, clear: int | tuple[int, ...] | None) -> np.ndarray:
    """Values of 16 bits with a last plane that is 0 where they are the transparent colour, if there is one."""
    if clear is None:
        return planes
    solid = (planes != np.reshape(clear, (-1, 1, 1))).any(0, keepdims=True)
    return np.concatenate([planes, solid * np.uint16(65535)])


@dataclass(frozen=True)
class _Tags:
    """What a TIFF file says about its first image, in whole numbers."""

    order: str  # "<" or ">"
    values: dict[int, tuple[int, ...]]
    no_data: float | None  # GDAL's value of pixels without one

    def one(self, tag: int, default: int) -> int:
        return self.values.get(tag, (default,))[0]


_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL, _STRIPS = 256, 257, 258, 259, 262, 266, 273
_ORIENTATION, _SAMPLES, _STRIP_ROWS, _STRIP_BYTES, _PLANAR, _PREDICTOR = 274, 277, 278, 279, 284, 317
_SUBFILE = 254
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _EXTRA, _FORMAT, _NO_DATA = 322, 323, 324, 325, 338, 339, 42113
_READ = (_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL, _STRIPS, _ORIENTATION, _SAMPLES, _STRIP_ROWS,
         _STRIP_BYTES, _PLANAR, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _EXTRA,
         _FORMAT)  # fmt: skip


def tiff_pages(data: bytes) -> int:
    """How many images of the first one's size a TIFF file holds; masks and smaller copies do not count."""
    file, directory = _directory(data)
    seen: set[int] = set()
    sizes = []
    while directory.next and directory.next not in seen and len(seen) < _MOST_BANDS:
        seen.add(directory.next)
        file.seek(directory.next)
        directory.load(file)
        if not int(directory.get(_SUBFILE, 0)) & 5:
            sizes.append((directory.get(_WIDTH), directory.get(_HEIGHT)))
    return sizes.count(sizes[0]) if sizes else 1


def _directory(data: bytes) -> tuple[BytesIO, TiffImagePlugin.ImageFileDirectory_v2]:
    """The file, and where its first directory is."""
    file = BytesIO(data)
    start = file.read(8)
    if start[3] == 43:
        raise ValueError("a BigTIFF with the most significant byte first is not read")
    if start[2] == 43:  # BigTIFF
        start += file.read(8)
    return file, TiffImagePlugin.ImageFileDirectory_v2(start)


def _read_tags(data: bytes) -> _Tags | None:
    """None when the directory is not complete."""
    file, directory = _directory(data)
    first = directory.next
    file.seek(first)
    directory.load(file)
    if directory.next == first:
        return None
    empty = str(directory.get(_NO_DATA, "")).strip("\0 ")
    values = {}
    for tag in _READ:
        found = directory.get(tag)
        if found is not None:
            values[tag] = tuple(map(int, found)) if isinstance(found, tuple) else (int(found),)
    try:
        no_data = float(empty)
    except ValueError:
        no_data = None
    return _Tags("<" if data[:2] == b"II" else ">", values, no_data)


def _tiff(data: bytes) -> Raster | None:
    tags = _read_tags(data)
    if tags is None or _WIDTH not in tags.values or _HEIGHT not in tags.values:
        return None  # Pillow says what is wrong with it
    size = tags.one(_WIDTH, 0), tags.one(_HEIGHT, 0)
    samples, photometric = tags.one(_SAMPLES, 1), tags.one(_PHOTOMETRIC, 1)
    bits, extra = tags.values.get(_BITS, (1,)), tags.values.get(_EXTRA, ())
    formats = tags.values.get(_FORMAT, (1,))
    if photometric > 2:
        return None  # palettes, CMYK and the like
    alpha = [i for i, kind in enumerate(extra) if kind in (_ASSOCIATED, _UNASSOCIATED)]
    usual = (3 if photometric == 2 else 1) + len(alpha)
    plain = max(bits) <= 8 and samples == usual and len(alpha) <= 1 and formats[0] in (1, 4)
    lossless = tags.one(_COMPRESSION, 1) in _LOSSLESS
    grey = samples == 1 and max(bits) <= 16 and formats[0] in (1, 4) and not (lossless and bits[0] == 16)
    if plain or grey:
        return None
    kind = _KINDS.get(formats[0])
    if len(set(bits)) > 1 or len(set(formats)) > 1 or kind is None or bits[0] not in (8, 16, 32, 64):
        raise ValueError(f"its bands have {bits} bits in the sample formats {formats}; expected one of 8 to 64 bits")
    if not lossless:
        raise ValueError(f"its {samples} bands are compressed by a method (number {tags.one(_COMPRESSION, 1)}) that is "
                         "not read; expected none, LZW, deflate, PackBits, LZMA or Zstandard")  # fmt: skip
    if len(alpha) > 1 or (alpha and alpha[0] != len(extra) - 1) or not 0 < samples <= _MOST_BANDS:
        raise ValueError(f"it has {samples} samples a pixel, {len(alpha)} of them transparency; expected one, the last")
    if _STRIPS not in tags.values and _TILES not in tags.values:
        raise ValueError("its header names no place of pixels")
    dtype = np.dtype(f"{tags.order}{kind}{bits[0] // 8}")

    def read() -> np.ndarray:
        planes = _planes(data, tags, size, samples, dtype)
        if kind == "f" and tags.no_data is not None:
            planes = np.where(planes == dtype.type(tags.no_data), np.nan, planes)
        if tags.one(_PHOTOMETRIC, 1) == 0 and kind == "u":  # white is zero
            return np.iinfo(planes.dtype).max - planes
        return planes

    return Raster("TIFF", size, samples - len(alpha), dtype, read, tags.one(_ORIENTATION, 1), bool(alpha))


def _planes(data: bytes, tags: _Tags, size: tuple[int, int], samples: int, dtype: np.dtype) -> np.ndarray:
    """(C, H, W) of any layout: pixel after pixel or band after band, in strips or tiles."""
    if tags.one(_PLANAR, 1) == 1 or samples == 1:
        return _rows(data, tags.order, tags.values, size, samples, dtype).transpose(2, 0, 1)
    planes = []
    for plane in range(samples):
        own = dict(tags.values)
        for tag in (_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES):
            if tag in own:
                each = len(own[tag]) // samples
                own[tag] = own[tag][plane * each : (plane + 1) * each]
        planes.append(_rows(data, tags.order, own, size, 1, dtype)[..., 0])
    return np.stack(planes)


def _rows(
    data: bytes, order: str, tags: dict[int, tuple[int, ...]], size: tuple[int, int], samples: int, dtype: np.dtype
) -> np.ndarray:
    """(H, W, samples), from strips or tiles of grey bytes whose differences are summed up again."""
    width, height = size
    block = tags[_TILE_WIDTH][0] if _TILES in tags else width
    whole = -(-width // block) * block  # tiles at the edge are complete in the file
    scale = samples * dtype.itemsize
    kept = (_HEIGHT, _COMPRESSION, _FILL, _STRIPS, _STRIP_ROWS, _STRIP_BYTES, _TILE_HEIGHT, _TILES, _TILE_BYTES)
    grey = {tag: tags[tag] for tag in kept if tag in tags}
    grey |= {_WIDTH: (whole * scale,), _BITS: (8,), _PHOTOMETRIC: (1,), _SAMPLES: (1,), _PLANAR: (1,)}
    if _TILES in tags:
        grey[_TILE_WIDTH] = (block * scale,)
    with Image.open(BytesIO(_with_tags(data, order, grey)), formats=["TIFF"]) as image:
        stored = np.asarray(image).reshape(height, whole // block, block * scale)
    predictor = tags.get(_PREDICTOR, (1,))[0]
    if predictor == 3:  # floating point: differences of bytes, the most significant of all values first
        summed = np.cumsum(stored.reshape(height, -1, block * dtype.itemsize, samples), axis=2, dtype=np.uint8)
        bytes_first = summed.reshape(height, -1, dtype.itemsize, block * samples).swapaxes(2, 3)
        values = np.ascontiguousarray(bytes_first).view(dtype.newbyteorder(">"))
    else:
        values = np.ascontiguousarray(stored).view(dtype)
    values = values.reshape(height, -1, block, samples)
    if predictor == 2:
        native = values.astype(dtype.newbyteorder("="))
        unsigned = native.view(f"u{dtype.itemsize}")
        values = np.cumsum(unsigned, axis=2, dtype=unsigned.dtype).view(native.dtype)
    return values.reshape(height, whole, samples)[:, :width]


def _with_tags(data: bytes, order: str, tags: dict[int, tuple[int, ...]]) -> bytes:
    """The file with another directory, at its end; places in the file stay what they are."""
    start = len(data) + len(data) % 2
    entries, values = b"", b""
    after = start + 2 + 12 * len(tags) + 4
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        where = packed if len(numbers) == 1 else struct.pack(f"{order}I", after + len(values))
        entries += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + where
        values += packed if len(numbers) > 1 else b""
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, start)
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + values
    return head + data[8:] + bytes(len(data) % 2) + directory
