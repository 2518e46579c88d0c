"""Digests of the images of a training and of their annotations, so that it goes on with the same data only."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import partial
from hashlib import blake2b
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from resurge.data.findings import some
from resurge.data.splits import DataBundle, Files, MaskSplit, Split, split_rows
from resurge.errors import UserError
from resurge.files import atomic_write_bytes
from resurge.quantities import number_of
from resurge.untrusted import from_cell, open_regular, read_text

BLOCK = 1 << 14
"""Of a file larger than three blocks, the first, the middle and the last one are read. Another picture differs in them,
and millions of large files need not be read whole."""


class Row(NamedTuple):
    """An image of a training. `label` is empty where images have no single class, `image` and `annotation` are digests:
    empty for what cannot be read, or has none."""

    path: str
    split: str
    label: str
    image: str
    annotation: str


def write_digests(bundle: DataBundle[Any], path: Path) -> None:
    """Write a digest of each image and one of its annotation, in the order of `split.csv`."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "annotation"))
    writer.writerows((row.image, row.annotation) for row in _rows(bundle))
    atomic_write_bytes(path, text.getvalue().encode(), mark="image,annotation\n")


def require_unchanged(bundle: DataBundle[Any], split: Path, digests: Path) -> None:
    """Compare the data with what `write_split` and `write_digests` wrote of it.

    Raises:
        UserError: the data was changed, with what was changed; or one of the files cannot be read.
    """
    listed, known = _table(split), _table(digests)
    if len(listed) != len(known):
        raise UserError(f"{split} has {len(listed)} lines and {digests} {len(known)}: one was cut short. Restore it.")
    rows = ({**one, **other} for one, other in zip(listed, known, strict=True))
    before = [Row(*(row.get(name) or "" for name in Row._fields)) for row in rows]
    now = list(_rows(bundle))
    if before == now:
        return
    found = "; ".join(_changes(before, now)) or "the images are listed in another order"
    raise UserError(
        f"the data is not what it was when this training began, and going on would mix training and validation: "
        f"{found}. Put it back as {split} lists it, or start anew with another --out."
    )


def _table(path: Path) -> list[dict[str, str]]:
    try:
        rows = csv.DictReader(StringIO(read_text(path, errors="surrogateescape"), newline=""))
        return [{key: from_cell(cell or "") for key, cell in row.items()} for row in rows]
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {path}, which says what this training is of: {reason}. Restore it.") from error


def _changes(before: list[Row], now: list[Row]) -> Iterator[str]:
    """What was changed, a text for each kind, with the first names."""
    old, new = ({row.path: row for row in rows} for rows in (before, now))
    gone, come = ({path: one[path] for path in one if path not in other} for one, other in ((old, new), (new, old)))
    by_content = {row.image: row for row in come.values() if row.image}
    moved = [(row, by_content[row.image]) for row in gone.values() if row.image in by_content]
    taken = {path for pair in moved for path in (pair[0].path, pair[1].path)}
    both = [(old[path], new[path]) for path in old if path in new]

    def differing(pairs: list[tuple[Row, Row]], which: Callable[[Row], object]) -> list[tuple[Row, Row]]:
        return [(one, other) for one, other in pairs if which(one) != which(other)]

    kinds = {
        "removed": [path for path in gone if path not in taken],
        "added": [path for path in come if path not in taken],
        "renamed": [f"{one.path}, now {other.path}" for one, other in moved if one.label == other.label],
        "in another class": [
            f"{one.path}, {one.label}, now {other.label}"
            for one, other in differing([*moved, *both], lambda row: row.label)
        ],
        "replaced by another picture": [one.path for one, _ in differing(both, lambda row: row.image)],
        "annotated otherwise": [one.path for one, _ in differing(both, lambda row: row.annotation)],
        "in another split": [
            f"{one.path}, {one.split}, now {other.split}"
            for one, other in differing([*moved, *both], lambda row: row.split)
        ],
    }
    for what, names in kinds.items():
        if names:
            yield f"{number_of(len(names), 'image')} {what} ({some(names, 3)})"


def _rows(bundle: DataBundle[Any]) -> Iterator[Row]:
    """The images of all splits, as `split_rows` has them."""
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
        for (name, split), rows in split_rows(bundle):
            digests = pool.map(partial(_digests, split), range(len(split)))
            for (path, label), (image, annotation) in zip(rows, digests, strict=True):
                yield Row(path, name, label, image, annotation)


def _digests(split: Any, index: int) -> tuple[str, str]:
    file = split.path(index)
    return file_digest(file) if file is not None else _digest(split.read(index).tobytes()), _annotation(split, index)


def _annotation(split: Any, index: int) -> str:
    if isinstance(split, Split):
        return ""  # its label, which is written down
    if isinstance(split, MaskSplit) and isinstance(split.maps, Files):
        maps = split.maps
        others = [getattr(maps, field.name) for field in fields(maps) if field.name not in ("root", "names")]
        return _digest(file_digest(maps.path(index)), *others)
    target = split.target(index)
    parts = [target] if isinstance(target, np.ndarray) else [getattr(target, field.name) for field in fields(target)]
    return _digest(*parts)


def file_digest(path: Path) -> str:
    """A digest of a file's size and content (see BLOCK); empty when it cannot be read."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size <= 3 * BLOCK:
                return _digest(file.read(3 * BLOCK))
            blocks = []
            for start in (0, (size - BLOCK) // 2, size - BLOCK):
                file.seek(start)
                blocks.append(file.read(BLOCK))
            return _digest(size, *blocks)
    except OSError:
        return ""


def _digest(*parts: object) -> str:
    found = blake2b(digest_size=12)
    for part in parts:
        if isinstance(part, np.ndarray):
            found.update(f"{part.dtype} {part.shape}".encode())
            part = part.tobytes()
        found.update(part if isinstance(part, bytes) else repr(part).encode("utf-8", "backslashreplace"))
    return found.hexdigest()
