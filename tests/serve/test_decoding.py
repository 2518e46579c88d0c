"""What decoding takes of the memory, beside what is reserved for it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from band_files import npy, png, tiff
from PIL import Image

from resurge.data.images import read_header
from resurge.serve.decoding import check
from resurge.serve.limits import Limits

SIDE = 2000  # 4 megapixels, so that what the process does besides is little

PROGRAM = """\
import sys
from pathlib import Path
from resurge.serve.limits import Limits
from resurge.serve.decoding import read
def kilobytes(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))
small, large = (Path(path).read_bytes() for path in sys.argv[1:])
read(small, "small", Limits())  # what is loaded once
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = kilobytes("VmRSS")
picture = read(large, "large", Limits())
print((kilobytes("VmHWM") - before) * 1024 / picture.width / picture.height, end=" ")
print((kilobytes("VmRSS") - before) * 1024 / picture.width / picture.height)
"""

TURNED = Image.Exif()
TURNED[0x0112] = 6


def colour_keyed(mode: str, side: int) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, "PNG", transparency=0 if mode == "P" else (0, 0, 0))
    return file.getvalue()


def saved(mode: str, format: str, side: int, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, format, **options)
    return file.getvalue()


def sixteen_bits(side: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((side, side), np.uint16)).save(file, "PNG")
    return file.getvalue()


FILES = {
    "rgba-turned.png": lambda side: saved("RGBA", "PNG", side, exif=TURNED),
    "la.png": lambda side: saved("LA", "PNG", side),
    "palette.png": lambda side: colour_keyed("P", side),
    "key.png": lambda side: colour_keyed("RGB", side),
    "sixteen.png": sixteen_bits,
    "sixteen-rgba.png": lambda side: png(np.full((side, side, 4), 9, np.uint16)),
    "planes.tif": lambda side: tiff(np.zeros((side, side, 5), np.uint16), planar=True, deflate=True, rows=64),
    "differences.tif": lambda side: tiff(np.zeros((side, side, 2), np.float32), deflate=True, predictor=3, rows=64),
    "bands.npy": lambda side: npy(np.zeros((side, side, 3), np.float64)),
    "progressive.jpg": lambda side: saved("CMYK", "JPEG", side, progressive=True, exif=TURNED),
    "rgb.webp": lambda side: saved("RGB", "WEBP", side, method=0),
    "rgba-turned.webp": lambda side: saved("RGBA", "WEBP", side, method=0, exif=TURNED),
    "rgba.avif": lambda side: saved("RGBA", "AVIF", side, speed=10, subsampling="4:4:4"),
}


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="only Linux tells the peak of a moment")
@pytest.mark.parametrize("name", FILES)
def test_decoding_takes_no_more_than_is_reserved_and_keeps_the_picture_only(tmp_path: Path, name: str) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(FILES[name](16))
    large.write_bytes(FILES[name](SIDE))
    command = [sys.executable, "-c", PROGRAM, small, large]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 18)}  # what is freed is given back at once
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    peak, kept = map(float, ended.stdout.split())
    data = large.read_bytes()
    reserved = check(data, name, Limits(max_pixels=SIDE**2 * 16), any_bands=True) / SIDE**2
    assert peak < reserved + 1  # 4 MB for what the process does besides
    assert kept < max(4, read_header(data, name).nbytes / SIDE**2) + 1
