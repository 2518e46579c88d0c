"""CIFAR-10 and CIFAR-100 from their original files: Python batches, binary batches, or the archive of either.

A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009. An image is 3072 bytes: 1024 red, 1024
green, 1024 blue, row by row.
"""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resurge.data.formats.format import Format
from resurge.data.label_source import MemorySource
from resurge.data.paths import read_file
from resurge.data.splits import ArrayImages, Split
from resurge.errors import UserError

Read = Callable[[str], bytes]
"""Gives the content of a file of the data set by its name."""

_SIDE, _BYTES = 32, 3 * 32 * 32
_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
_FOLDERS = ("cifar-10-batches-py", "cifar-10-batches-bin", "cifar-100-python", "cifar-100-binary")
_MAX_FILE = 1 << 29


@dataclass(frozen=True)
class _Layout:
    """One published form: its files, and where a record keeps its label. `label` is a key of a pickled dictionary, or
    for binary files the number of label bytes before the pixels, the last of which is the class."""

    name: str
    train: tuple[str, ...]
    test: str
    names: str
    label: str | int
    names_key: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test, self.names)


_LAYOUTS = (
    _Layout("CIFAR-10", _BATCHES, "test_batch", "batches.meta", "labels", "label_names"),
    _Layout("CIFAR-10", tuple(f"{b}.bin" for b in _BATCHES), "test_batch.bin", "batches.meta.txt", 1),
    _Layout("CIFAR-100", ("train",), "test", "meta", "fine_labels", "fine_label_names"),
    _Layout("CIFAR-100", ("train.bin",), "test.bin", "fine_label_names.txt", 2),
)


class Cifar(Format):
    name = "cifar"
    annotations = ("labels",)
    expected = "the original files of CIFAR such as data_batch_1 (CIFAR-10), train (CIFAR-100), or their .tar.gz"

    def recognise(self, path: Path) -> bool:
        return _find(path) is not None

    def read(self, path: Path) -> MemorySource:
        found = _find(path)
        if found is None:
            raise UserError(f"{path} has no original files of CIFAR. Expected {self.expected}.")
        layout, read = found
        if isinstance(layout.label, str):
            meta = unpickle(read(layout.names), layout.names)
            listed = meta.get(layout.names_key) if isinstance(meta, dict) else None
            if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
                raise UserError(f"{layout.names} does not list {layout.names_key!r}. Unpack the archive again.")
            classes = tuple(listed)
        else:
            classes = tuple(read(layout.names).decode("ascii", "replace").split())
        train = [_batch(layout, read, name, len(classes)) for name in layout.train]
        pixels, labels = (np.concatenate(part) for part in zip(*train, strict=True))
        test = _batch(layout, read, layout.test, len(classes))
        return MemorySource(
            format=self.name, root=path, classes=classes, how="the published splits", title=layout.name,
            splits={"train": array_split("train", pixels, labels), "test": array_split("test", *test)}, side=_SIDE,
        )  # fmt: skip


def _find(source: Path) -> tuple[_Layout, Read] | None:
    """The layout of the CIFAR files in `source` (a folder, the folder above it, or a .tar.gz), and how to read them.
    Raises UserError when some files of a layout are missing, or the archive is damaged."""
    if source.is_file():
        return _in_archive(source) if source.name.endswith((".tar.gz", ".tgz", ".tar")) else None
    for folder in (source, *(source / name for name in _FOLDERS)):
        for layout in _LAYOUTS:
            missing = [name for name in layout.files if not (folder / name).is_file()]
            if not missing:
                return layout, lambda name, folder=folder: read_file(folder / name)
            if layout.train[0] not in missing:
                raise UserError(
                    f"{folder} looks like {layout.name}, but {', '.join(missing)} is missing. Unpack again."
                )
    return None


def _in_archive(source: Path) -> tuple[_Layout, Read] | None:
    contents: dict[str, bytes] = {}
    wanted = {name for layout in _LAYOUTS for name in layout.files}
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                name = member.name.rsplit("/", 1)[-1]
                file = archive.extractfile(member) if member.isfile() and member.size <= _MAX_FILE else None
                if file is not None and name in wanted:
                    contents[name] = file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{source} is damaged or no tar archive ({error}). Download it again.") from error
    for layout in _LAYOUTS:
        if contents.keys() >= set(layout.files):
            return layout, contents.__getitem__
    return None


def array_split(name: str, pixels: np.ndarray, labels: np.ndarray) -> Split:
    """A split of images in memory, with ids such as "train-00042"."""
    ids = tuple(f"{name}-{i:05d}" for i in range(len(labels)))
    return Split(ids, ArrayImages(pixels), tuple(int(label) for label in labels))


def unpickle(data: bytes, name: str) -> object:
    """Read a pickle that may hold only numbers, text, bytes, lists, dictionaries and uint8 arrays.

    Nothing a pickle names is ever imported or called: the names that a pickled array needs stand for small classes of
    ours, and any other name is an error. Raises UserError when the pickle is damaged, or asks for anything else (a
    malicious file)."""
    try:
        return _plain(_DataUnpickler(io.BytesIO(data), encoding="latin1").load())
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UserError(f"{name} is damaged or no pickle ({error}). Unpack the archive again.") from error


class _TypeStandIn:
    def __init__(self, code: object = "", *rest: object) -> None:
        self.code = code if isinstance(code, str) else ""

    def __setstate__(self, state: object) -> None:
        """The byte order and field layout; one byte has neither."""


class _ArrayStandIn:
    """Is made as pickle protocol 5 does, or takes the state that older ones carry; bytes only."""

    array: np.ndarray

    def __init__(self, raw: str | bytes, dtype: object, shape: tuple[int, ...], order: str) -> None:
        if not isinstance(dtype, _TypeStandIn) or dtype.code.lstrip("|") not in ("u1", "B"):
            raise UserError(f"an array of type {getattr(dtype, 'code', '')!r}; only bytes (uint8) are read.")
        data = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
        self.array = np.frombuffer(data, dtype=np.uint8).reshape(shape, order="F" if order == "F" else "C")

    def __setstate__(self, state: tuple[int, tuple[int, ...], object, bool, str | bytes]) -> None:
        _, shape, dtype, fortran, raw = state
        _ArrayStandIn.__init__(self, raw, dtype, shape, "F" if fortran else "C")


def _encode(text: str, codec: str = "latin1") -> bytes:
    if codec not in ("latin1", "latin-1"):
        raise UserError(f"text in {codec!r}.")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], object] = {
    ("_codecs", "encode"): _encode, ("numpy", "ndarray"): _ArrayStandIn, ("numpy", "dtype"): _TypeStandIn,
}  # fmt: skip
for _numpy in ("numpy.core", "numpy._core"):
    _STAND_INS[_numpy + ".multiarray", "_reconstruct"] = lambda *_: _ArrayStandIn.__new__(_ArrayStandIn)
    _STAND_INS[_numpy + ".numeric", "_frombuffer"] = _ArrayStandIn


class _DataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise UserError(
                f"the file wants to run {module}.{name}; data never does. Do not trust it, download the data again."
            ) from None


def _plain(value: object) -> object:
    """Replace the stand-ins of arrays in the top two levels, where CIFAR has them, by the arrays."""
    if isinstance(value, _ArrayStandIn):
        return value.array
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def _batch(layout: _Layout, read: Read, name: str, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 32, 32, 3) uint8 and labels (N,) int64 of one file."""
    data = read(name)
    if isinstance(layout.label, str):
        content = unpickle(data, name)
        if not isinstance(content, dict) or "data" not in content or layout.label not in content:
            raise UserError(f"{name} lacks 'data' or {layout.label!r}. Unpack the archive again.")
        rows, labels = np.asarray(content["data"]), np.asarray(content[layout.label])
    else:
        record = layout.label + _BYTES
        if not data or len(data) % record:
            raise UserError(f"{name} has {len(data):,} bytes, no multiple of {record}: it is cut short. Unpack again.")
        table = np.frombuffer(data, dtype=np.uint8).reshape(-1, record)
        rows, labels = table[:, layout.label :], table[:, layout.label - 1]
    if rows.ndim != 2 or rows.shape[1] != _BYTES or rows.dtype != np.uint8 or labels.shape != rows.shape[:1]:
        raise UserError(f"{name} holds data {rows.shape} and labels {labels.shape}; expected (N, {_BYTES}) and (N,).")
    if labels.dtype.kind not in "iu":
        raise UserError(f"{name} has labels that are no whole numbers. Unpack the archive again.")
    require_labels(labels, num_classes, name)
    pixels = rows.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), labels.astype(np.int64)


def require_labels(labels: np.ndarray, num_classes: int, name: str) -> None:
    """Raises UserError when there is no label, or one outside 0 .. num_classes - 1."""
    if labels.size == 0:
        raise UserError(f"{name} holds no images.")
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
        raise UserError(
            f"{name}: image {wrong[0]} has the label {labels[wrong[0]]}, out of range for {num_classes} classes "
            f"(0 to {num_classes - 1}); {wrong.size} such labels. The file is damaged or belongs to another data set."
        )
