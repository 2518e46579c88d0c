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
from resurge.data.label_source import MemorySource
from resurge.errors import UserError

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

_FASHION_TEST_LABELS = bytes((9, 2, 1, 1, 6, 1, 4, 6, 5, 7))
_PARTS = {"train-images": 3, "train-labels": 1, "t10k-images": 3, "t10k-labels": 1}  # and their dimensions
_MAX_BYTES = 1 << 31


def find_idx(source: Path) -> dict[str, Path]:
    """The four files of an idx data set in the folder `source` or where torchvision has them below it; {} where there
    are none. Raises UserError when some of the four are missing."""
    for folder in (source, source / "raw", source / "FashionMNIST" / "raw", source / "MNIST" / "raw"):
        found: dict[str, Path] = {}
        for part, dims in _PARTS.items():
            names = [f"{part}{dot}idx{dims}-ubyte{ending}" for dot in "-." for ending in ("", ".gz")]
            file = next((folder / name for name in names if (folder / name).is_file()), None)
            if file is not None:
                found[part] = file
        if len(found) == len(_PARTS):
            return found
        if found:
            missing = ", ".join(part for part in _PARTS if part not in found)
            raise UserError(f"{folder} has {next(iter(found.values())).name}, but {missing} is missing. Add the file.")
    return {}


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The uint8 array in an idx or idx.gz file. Raises UserError when it is damaged or of another type."""
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


class Idx(Format):
    name = "idx"
    annotations = ("labels",)
    expected = "the original files of MNIST or its relatives such as train-images-idx3-ubyte.gz"

    def recognise(self, path: Path) -> bool:
        return path.is_dir() and bool(find_idx(path))

    def read(self, path: Path) -> MemorySource:
        """Fashion-MNIST is recognised by its first test labels."""
        files = find_idx(path)
        arrays = {part: read_idx(file, _PARTS[part]) for part, file in files.items()}
        for split in ("train", "t10k"):
            images, labels = arrays[f"{split}-images"], arrays[f"{split}-labels"]
            if len(images) != len(labels):
                raise UserError(f"{files[f'{split}-images']} has {len(images)} images, its label file {len(labels)}.")
        fashion = arrays["t10k-labels"].tobytes().startswith(_FASHION_TEST_LABELS)
        top = max(int(arrays[f"{split}-labels"].max(initial=0)) for split in ("train", "t10k"))
        classes = FASHION_CLASSES if fashion else tuple(str(i) for i in range(top + 1))
        for part in ("train-labels", "t10k-labels"):
            require_labels(arrays[part], len(classes), str(files[part]))
        return MemorySource(
            format=self.name, root=path, classes=classes, how="the published splits",
            title="Fashion-MNIST" if fashion else files["train-images"].parent.name,
            splits={
                "train": array_split("train", arrays["train-images"], arrays["train-labels"]),
                "test": array_split("test", arrays["t10k-images"], arrays["t10k-labels"]),
            },
            side=arrays["train-images"].shape[1],
        )  # fmt: skip
