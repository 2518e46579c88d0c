"""Files of images with other bands than grey or RGB, or more than 8 bits, written without the readers' libraries."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np


def npy(values: np.ndarray) -> bytes:
    file = BytesIO()
    np.save(file, values)
    return file.getvalue()


def tiff(
    values: np.ndarray, *, order: str = "<", planar: bool = False, tile: int = 0, rows: int = 5, deflate: bool = False,
    predictor: int = 1, extra: tuple[int, ...] = (), photometric: int = 1, orientation: int = 1, no_data: str = "",
) -> bytes:  # fmt: skip
    """An array (H, W, C): band after band or pixel after pixel, in strips of some rows or in square tiles."""
    height, width, bands = values.shape
    values = values.astype(values.dtype.newbyteorder(order))
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    side = (tile, tile) if tile else (rows, width)
    blocks = []
    for plane in np.split(values, bands, axis=2) if planar else [values]:
        for top in range(0, height, side[0]):
            for left in range(0, width, side[1]):
                block = plane[top : top + side[0], left : left + side[1]]
                if tile:
                    block = np.pad(block, [(0, tile - block.shape[0]), (0, tile - block.shape[1]), (0, 0)])
                packed = _differences(block, predictor)
                blocks.append(zlib.compress(packed) if deflate else packed)
    data, places = b"", []
    for block in blocks:
        places.append(8 + len(data))
        data += block + bytes(len(block) % 2)
    where, sizes = (324, 325) if tile else (273, 279)
    tags: dict[int, tuple[int, ...]] = {
        256: (width,), 257: (height,), 258: (8 * values.dtype.itemsize,) * bands, 259: (8 if deflate else 1,),
        262: (photometric,), 274: (orientation,), 277: (bands,), 284: (2 if planar else 1,), 317: (predictor,),
        339: (kind,) * bands, where: tuple(places), sizes: tuple(len(block) for block in blocks),
    }  # fmt: skip
    tags |= {322: (tile,), 323: (tile,)} if tile else {278: (rows,)}
    tags |= {338: extra} if extra else {}
    start = 8 + len(data)
    count = len(tags) + bool(no_data)
    entries, behind, after = b"", b"", start + 2 + 12 * count + 4
    for tag, numbers in sorted(tags.items()):
        code = "I" if tag in (where, sizes) else "H"
        packed = struct.pack(f"{order}{len(numbers)}{code}", *numbers)
        entries += struct.pack(f"{order}HHI", tag, 4 if code == "I" else 3, len(numbers))
        entries += packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack(f"{order}I", after + len(behind))
        behind += packed + bytes(len(packed) % 2) if len(packed) > 4 else b""
    if no_data:
        text = no_data.encode().ljust(5, b"\0")
        entries += struct.pack(f"{order}HHII", 42113, 2, len(text), after + len(behind))
        behind += text
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, start)
    return head + data + struct.pack(f"{order}H", count) + entries + bytes(4) + behind


def _differences(block: np.ndarray, predictor: int) -> bytes:
    if predictor == 2:
        whole = block.view(block.dtype.str.replace("i", "u"))
        native = whole.astype(whole.dtype.newbyteorder("="))
        changed = np.concatenate([native[:, :1], np.diff(native, axis=1)], axis=1)
        return changed.astype(whole.dtype).tobytes()
    if predictor == 3:
        rows, width, bands = block.shape
        big = block.astype(block.dtype.newbyteorder(">"))
        bytes_of = np.frombuffer(big.tobytes(), np.uint8).reshape(rows, width * bands, block.dtype.itemsize)
        shuffled = bytes_of.swapaxes(1, 2).reshape(rows, -1, bands)
        return np.concatenate([shuffled[:, :1], np.diff(shuffled, axis=1)], axis=1).astype(np.uint8).tobytes()
    return block.tobytes()


def png(values: np.ndarray, clear: tuple[int, ...] = ()) -> bytes:
    """An array uint16 (H, W, 1 to 4): grey, grey with transparency, RGB, RGBA; `clear` is a transparent colour."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, bands = values.shape
    head = struct.pack(">IIBBBBB", width, height, 16, (0, 4, 2, 6)[bands - 1], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    key = chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear)) if clear else b""
    body = chunk(b"IHDR", head) + key + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def write_classes(folder: Path, kind: str, counts: dict[str, int], side: int = 32) -> Path:
    """Two classes in folders that are told apart by values which 8 bits, or three bands, would lose.

    kind: "xray", 12-bit values in 16-bit PNG and TIFF, of which the classes differ by less than 256; "infrared", TIFF
    of four bands of 8 bits, of which the last differs; "spectrum", arrays of five bands of float32.
    """
    for part, count in counts.items():
        for label, name in enumerate(("dark", "bright")):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                draw = np.random.default_rng([i, label, count])
                place = folder / part / name / str(i)
                if kind == "xray":
                    values = draw.integers(1000, 1060, (side, side, 1)).astype(np.uint16) + np.uint16(150 * label)
                    values[:2, :2] = (0, 4095)[i % 2]
                    data, ending = (png(values), ".png") if i % 2 else (tiff(values), ".tif")
                elif kind == "infrared":
                    values = draw.integers(60, 120, (side, side, 4)).astype(np.uint8)
                    values[..., 3] = draw.integers(20, 60, (side, side)) + 150 * label
                    data, ending = tiff(values, photometric=2, extra=(0,)), ".tif"
                else:
                    values = draw.normal(0.3, 0.05, (side, side, 5)).astype(np.float32)
                    values[..., 4] += 0.2 * label
                    data, ending = npy(values), ".npy"
                place.with_suffix(ending).write_bytes(data)
    return folder
