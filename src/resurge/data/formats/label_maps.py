"""What the formats of label maps share: names of classes, pairs of images and masks, and writing masks again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from resurge.data.images import ending
from resurge.data.index_images import read_indices
from resurge.data.mending import Mending
from resurge.data.paths import PARTS, find_images, read_lines, subfolders
from resurge.data.records import MaskRecord, MaskSource, unknown_values
from resurge.data.splits import IGNORE
from resurge.errors import UserError

_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "leftimg8bit")
_MASK_FOLDERS = ("masks", "mask", "annotations", "annotation", "labels", "label", "gt", "gtfine", "segmentation",
                 "segmentationclass", "ann", "ann_dir")  # fmt: skip
_MASK_ENDINGS = ("_mask", "_masks", "-mask", "_label", "_labels", "_gt", "_seg", "_annotation", "_labelids", "_l")
_CITYSCAPES_ENDINGS = ("_gtFine_labelTrainIds", "_gtFine_labelIds", "_labelIds")  # instead of _leftImg8bit


def child(root: Path, options: tuple[str, ...]) -> str | None:
    by_lower = {name.lower(): name for name in subfolders(root)} if root.is_dir() else {}
    return next((by_lower[option] for option in options if option in by_lower), None)


def find_pairs(root: Path) -> dict[str, tuple[str, str]]:
    """Folders of (images, masks) by part; "" when they are not split; {} for another layout."""
    images, masks = child(root, _IMAGE_FOLDERS), child(root, _MASK_FOLDERS)
    found: dict[str, tuple[str, str]] = {}
    for part, names in PARTS.items():
        if images is not None and masks is not None:
            one, other = child(root / images, names), child(root / masks, names)
            if one is not None and other is not None:
                found[part] = (f"{images}/{one}", f"{masks}/{other}")
        inside = child(root, names)
        if part not in found and inside is not None:
            one, other = child(root / inside, _IMAGE_FOLDERS), child(root / inside, _MASK_FOLDERS)
            if one is not None and other is not None:
                found[part] = (f"{inside}/{one}", f"{inside}/{other}")
    if not found and images is not None and masks is not None:
        found[""] = (images, masks)
    return {part: (one, other) for part, (one, other) in found.items() if find_images(root, other)[0]}


def paired(root: Path, images: str, masks: str) -> tuple[tuple[MaskRecord, ...], list[str]]:
    by_key: dict[str, str] = {}
    for name in reversed(find_images(root, masks)[0]):
        by_key[_key(name, masks)] = name
    used = set()
    records = []
    for name in find_images(root, images)[0]:
        key = _key(name, images)
        options = [key, *(key + suffix for suffix in _MASK_ENDINGS)]
        options += [key.removesuffix("_leftImg8bit") + suffix for suffix in _CITYSCAPES_ENDINGS]
        match = next((option for option in options if option in by_key), None)
        if match is not None:
            used.add(match)
        records.append(MaskRecord(name, None if match is None else by_key[match]))
    return tuple(records), sorted(name for key, name in by_key.items() if key not in used)


def _key(name: str, folder: str) -> str:
    """Name below `folder` without its ending."""
    rest = name.removeprefix(f"{folder}/")
    return rest[: len(rest) - len(ending(rest.rsplit("/", 1)[-1]))]


def class_lines(root: Path) -> tuple[str, ...]:
    """The lines of classes.txt, class 0 first; empty when there is none.

    Raises:
        UserError: it has more than 255 lines, or a line twice.
    """
    file = root / "classes.txt"
    if not file.is_file():
        return ()
    names = tuple(read_lines(file))
    if len(names) > 255 or len(set(names)) < len(names):
        what = f"{len(names)} lines, at most 255 can be" if len(names) > 255 else "a name twice"
        raise UserError(f"{file} has {what}. Expected one class a line, in the order of their indices.")
    return names


def write_maps(mending: Mending, listed: bool = False) -> dict[str, list[MaskRecord]]:
    """Write the masks again that can be used, with unknown values ignored; which images are left, by part. With
    `listed`, lists say what is in a part."""
    look = mending.look
    source = look.source
    if not isinstance(source, MaskSource):
        raise TypeError("these are no label maps")
    ignored = source.meaning.index(IGNORE) if IGNORE in source.meaning else IGNORE
    kept: dict[str, list[MaskRecord]] = {part: [] for part in source.parts}
    for part, records in source.parts.items():
        for record in records:
            counted = mending.changes[record.mask or record.name]
            if not mending.keeps(record, part, counted, listed) or record.mask is None:
                continue
            facts = look.masks[record.mask]
            if facts.counts is None:
                counted["missing or unreadable mask left out"] += 1
                continue
            if facts.size != look.size(record.name):
                counted["mask of another size than its image left out"] += 1
                continue
            kept[part].append(record)
            file = mending.root / record.mask
            target = mending.file(mending.inside(file))
            strange = unknown_values(facts.counts, source.meaning)
            if strange:
                counted["pixels with an index out of range set to ignored"] = int(facts.counts[strange].sum())
                _write_mask(file, target, strange, ignored)
            else:
                target.write_bytes(file.read_bytes())
    return kept


def _write_mask(file: Path, target: Path, strange: list[int], ignored: int) -> None:
    values = read_indices(file)
    values[np.isin(values, strange)] = ignored
    image = Image.fromarray(values.astype(np.uint8))
    with Image.open(file) as before:
        if before.mode == "P":
            image.putpalette(before.getpalette() or [])  # makes it mode P, with the same indices
    image.save(target, format="PNG")
