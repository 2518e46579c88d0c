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
from typing import Any

import numpy as np

from resurge.data.formats.format import Format
from resurge.data.records import MemorySource
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


_LAYOUTS = (
    _Layout("CIFAR-10", _BATCHES, "test_batch", "batches.meta", "labels", "label_names"),
    _Layout("CIFAR-10", tuple(f"{b}.bin" for b in _BATCHES), "test_batch.bin", "batches.meta.txt", 1),
    _Layout("CIFAR-100", ("train",), "test", "meta", "fine_labels", "fine_label_names"),
    _Layout("CIFAR-100", ("train.bin",), "test.bin", "fine_label_names.txt", 2),
)


def find_cifar(source: Path) -> tuple[_Layout, Read] | None:
    """The layout of the CIFAR files in `source` (a folder, the folder above it, or a .tar.gz), or None.

    Raises:
        UserError: some files of a layout are there and others are missing, or the archive is damaged.
    """
    if source.is_file():
        return _in_archive(source) if source.name.endswith((".tar.gz", ".tgz", ".tar")) else None
    for folder in (source, *(source / name for name in _FOLDERS)):
        for layout in _LAYOUTS:
            files = (*layout.train, layout.test, layout.names)
            missing = [name for name in files if not (folder / name).is_file()]
            if not missing:
                return layout, lambda name, folder=folder: _read_file(folder / name)
            if len(missing) < len(files) and (folder / layout.train[0]).is_file():
                raise UserError(
                    f"{folder} looks like {layout.name}, but {', '.join(missing)} is missing. Unpack the archive again."
                )
    return None


def read_cifar(source: Path) -> MemorySource:
    """Read and check all files.

    Raises:
        UserError: a file is damaged, has a wrong length, or a label outside the classes.
    """
    found = find_cifar(source)
    if found is None:
        raise UserError(f"{source} has no original files of CIFAR. Expected {FORMAT.expected}.")
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
    test_pixels, test_labels = _batch(layout, read, layout.test, len(classes))
    splits = {"train": array_split("train", pixels, labels), "test": array_split("test", test_pixels, test_labels)}
    return MemorySource(
        format="cifar", root=source, classes=classes, how="the published splits", title=layout.name, splits=splits,
        side=_SIDE,
    )  # fmt: skip


def array_split(name: str, pixels: np.ndarray, labels: np.ndarray) -> Split:
    """A split of images in memory, with ids such as "train-00042"."""
    ids = tuple(f"{name}-{i:05d}" for i in range(len(labels)))
    return Split(ids, tuple(int(label) for label in labels), ArrayImages(pixels))


def unpickle(data: bytes, name: str) -> Any:
    """Read a pickle that may hold only numbers, text, bytes, lists, dictionaries and uint8 arrays.

    Nothing a pickle names is ever imported or called: the three names that a pickled array needs stand for small
    classes of ours, and any other name is an error.

    Raises:
        UserError: the pickle is damaged, or asks for anything else (a malicious file).
    """
    try:
        return _plain(_DataUnpickler(io.BytesIO(data), encoding="latin1").load())
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UserError(f"{name} is damaged or no pickle ({error}). Unpack the archive again.") from error


class _ArrayStandIn:
    """Takes the state that a pickled NumPy array carries: (version, shape, dtype, Fortran order, bytes)."""

    array: np.ndarray

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _TypeStandIn):
            raise UserError("an array without a type.")
        self.array = _array(raw, dtype, shape, "F" if fortran else "C")


class _TypeStandIn:
    def __init__(self, code: Any = "", *rest: Any) -> None:
        self.code = code if isinstance(code, str) else ""

    def __setstate__(self, state: Any) -> None:
        """The byte order and field layout; one byte has neither."""


def _array(raw: Any, dtype: _TypeStandIn, shape: Any, order: str) -> np.ndarray:
    if dtype.code.lstrip("|") not in ("u1", "B"):
        raise UserError(f"an array of type {dtype.code!r}; only bytes (uint8) are read.")
    data = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
    return np.frombuffer(data, dtype=np.uint8).reshape(tuple(shape), order="F" if order == "F" else "C")


class _Buffered:
    """What `_frombuffer` (pickle protocol 5) makes."""

    def __init__(self, raw: Any, dtype: _TypeStandIn, shape: Any, order: str) -> None:
        self.array = _array(raw, dtype, shape, order)


def _encode(text: str, codec: str = "latin1") -> bytes:
    if codec not in ("latin1", "latin-1"):
        raise UserError(f"text in {codec!r}.")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {("_codecs", "encode"): _encode}
for _numpy in ("numpy.core", "numpy._core"):
    _STAND_INS[_numpy + ".multiarray", "_reconstruct"] = lambda *_: _ArrayStandIn()
    _STAND_INS[_numpy + ".numeric", "_frombuffer"] = _Buffered
_STAND_INS["numpy", "ndarray"] = _ArrayStandIn
_STAND_INS["numpy", "dtype"] = _TypeStandIn


class _DataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise UserError(
                f"the file wants to run {module}.{name}; data never does. Do not trust it, download the data again."
            ) from None


def _plain(value: Any) -> Any:
    """Replace the stand-ins of arrays in the top two levels, where CIFAR has them, by the arrays."""
    if isinstance(value, (_ArrayStandIn, _Buffered)):
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


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error


def _in_archive(source: Path) -> tuple[_Layout, Read] | None:
    contents: dict[str, bytes] = {}
    wanted = {name for layout in _LAYOUTS for name in (*layout.train, layout.test, layout.names)}
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                name = member.name.rsplit("/", 1)[-1]
                if member.isfile() and name in wanted and member.size <= _MAX_FILE:
                    file = archive.extractfile(member)
                    contents[name] = b"" if file is None else file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{source} is damaged or no tar archive ({error}). Download it again.") from error
    for layout in _LAYOUTS:
        if all(name in contents for name in (*layout.train, layout.test, layout.names)):
            return layout, contents.__getitem__
    return None


FORMAT = Format(
    name="cifar",
    annotations=("labels",),
    expected="the original files of CIFAR such as data_batch_1 (CIFAR-10), train (CIFAR-100), or their .tar.gz",
    recognise=lambda path: find_cifar(path) is not None,
    read=read_cifar,
)
