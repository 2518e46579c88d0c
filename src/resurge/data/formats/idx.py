"""Fashion-MNIST and its relatives (MNIST, KMNIST, ...) from their original idx files, gzipped or not.

An idx file is: two zero bytes, a type code (8: uint8), the number of dimensions, each dimension as a big-endian
32-bit integer, then the values. Xiao, Rasul, Vollgraf, "Fashion-MNIST", 2017; LeCun's MNIST page for the format.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from resurge.data.formats.cifar import array_split, require_labels
from resurge.data.formats.format import Format
from resurge.data.records import MemorySource
from resurge.errors import UserError

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

_FASHION_TEST_LABELS = bytes((9, 2, 1, 1, 6, 1, 4, 6, 5, 7))
_PARTS = ("train-images", "train-labels", "t10k-images", "t10k-labels")
_MAX_BYTES = 1 << 31


def find_idx(source: Path) -> dict[str, Path] | None:
    """The four files of an idx data set in the folder `source` or in its subfolders raw/ and FashionMNIST/raw/.

    Raises:
        UserError: some of the four are there and others are missing.
    """
    for folder in (source, source / "raw", source / "FashionMNIST" / "raw", source / "MNIST" / "raw"):
        if not folder.is_dir():
            continue
        found: dict[str, Path] = {}
        for part in _PARTS:
            dims = 3 if part.endswith("images") else 1
            for name in (f"{part}-idx{dims}-ubyte", f"{part}.idx{dims}-ubyte"):
                for ending in ("", ".gz"):
                    if (folder / (name + ending)).is_file():
                        found.setdefault(part, folder / (name + ending))
        if len(found) == len(_PARTS):
            return found
        if found:
            missing = ", ".join(part for part in _PARTS if part not in found)
            raise UserError(f"{folder} has {next(iter(found.values())).name}, but {missing} is missing. Add the file.")
    return None


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The uint8 array in an idx or idx.gz file.

    Raises:
        UserError: the file is cut short, has another type or number of dimensions, or is damaged.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            head = file.read(4 + 4 * dimensions)
            if len(head) < 4 + 4 * dimensions or head[:4] != bytes((0, 0, 8, dimensions)):
                raise UserError(f"{path} is no idx file of bytes with {dimensions} dimensions. Download it again.")
            shape = struct.unpack(f">{dimensions}I", head[4:])
            size = math.prod(shape)
            if size > _MAX_BYTES:
                raise UserError(f"{path} announces {size:,} bytes, more than {_MAX_BYTES:,}. It is damaged.")
            data = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged or cut short ({error}). Download it again.") from error
    if len(data) != size:
        raise UserError(f"{path} holds {'more' if len(data) > size else 'fewer'} than the {size:,} bytes it announces.")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def read_idx_dataset(source: Path) -> MemorySource:
    """Read and check the four files. Fashion-MNIST is told from MNIST by its first test labels.

    Raises:
        UserError: a file is damaged, counts differ, or a label is out of range.
    """
    files = find_idx(source)
    if files is None:
        raise UserError(f"{source} has no idx files. Expected {FORMAT.expected}.")
    arrays = {part: read_idx(path, 3 if part.endswith("images") else 1) for part, path in files.items()}
    for split in ("train", "t10k"):
        images, labels = arrays[f"{split}-images"], arrays[f"{split}-labels"]
        if len(images) != len(labels):
            raise UserError(f"{files[f'{split}-images']} has {len(images)} images, its label file {len(labels)}.")
    fashion = arrays["t10k-labels"].tobytes().startswith(_FASHION_TEST_LABELS)
    top = int(max(arrays["train-labels"].max(initial=0), arrays["t10k-labels"].max(initial=0)))
    classes = FASHION_CLASSES if fashion else tuple(str(i) for i in range(top + 1))
    for part in ("train-labels", "t10k-labels"):
        require_labels(arrays[part], len(classes), str(files[part]))
    splits = {
        "train": array_split("train", arrays["train-images"], arrays["train-labels"]),
        "test": array_split("test", arrays["t10k-images"], arrays["t10k-labels"]),
    }
    title = "Fashion-MNIST" if fashion else files["train-images"].parent.name
    side = arrays["train-images"].shape[1]
    return MemorySource(
        format="idx", root=source, classes=classes, how="the published splits", title=title, splits=splits, side=side
    )


FORMAT = Format(
    name="idx",
    annotations=("labels",),
    expected="the original files of MNIST or its relatives such as train-images-idx3-ubyte.gz",
    recognise=lambda path: path.is_dir() and find_idx(path) is not None,
    read=read_idx_dataset,
)
