"""The formats of label maps: images/ beside masks/, ADE20K, Pascal VOC's semantic masks, and CamVid's lists."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from resurge.data.findings import Finding, without_image
from resurge.data.fit import Fit
from resurge.data.formats.format import Format
from resurge.data.formats.voc import part_lists
from resurge.data.images import EXTENSIONS, UnreadableImage, ending, read_indices
from resurge.data.map_source import UNKNOWN, MaskSource, plain_meaning, unknown_values
from resurge.data.mending import Mending
from resurge.data.paths import PARTS, below, find_images, read_file, read_lines, slashed, subfolders
from resurge.data.records import MaskRecord
from resurge.data.splits import IGNORE
from resurge.errors import UserError

CAMVID = ("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian",
          "Bicyclist")  # fmt: skip
VOC = ("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
       "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
       "tvmonitor")  # fmt: skip
ADE20K_CLASSES = 150

_VOC_LISTS = "ImageSets/Segmentation"
_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "leftimg8bit")
_MASK_FOLDERS = ("masks", "mask", "annotations", "annotation", "labels", "label", "gt", "gtfine", "segmentation",
                 "segmentationclass", "ann", "ann_dir")  # fmt: skip
_MASK_ENDINGS = ("_mask", "_masks", "-mask", "_label", "_labels", "_gt", "_seg", "_annotation", "_labelids", "_l")
_CITYSCAPES_ENDINGS = ("_gtFine_labelTrainIds", "_gtFine_labelIds", "_labelIds")  # instead of _leftImg8bit

Parts = dict[str, tuple[MaskRecord, ...]]


class _LabelMaps(Format):
    annotations = ("maps",)

    def write(self, mending: Mending) -> None:
        write_maps(mending)


class Pairs(_LabelMaps):
    """Images and masks in folders of their own. A mask has its image's name, perhaps with an ending such as _mask.
    Classes are the lines of classes.txt, else counted."""

    name = "pairs"
    expected = "images/ with masks/, each flat or with train/ and val/ inside"

    def recognise(self, path: Path) -> bool:
        return path.is_dir() and bool(find_pairs(path))

    def read(self, path: Path) -> MaskSource:
        findings: list[Finding] = []
        parts: Parts = {}
        folders = find_pairs(path)
        for part, (images, masks) in folders.items():
            parts[part], lost = paired(path, images, masks)
            findings += without_image("mask", lost, "add the image, or remove the mask; it is not used")
        if not any(record.mask for records in parts.values() for record in records):
            images, masks = next(iter(folders.values()))
            raise UserError(
                f"no mask in {path / masks} has the name of an image in {path / images}. Expected pairs such as "
                f"{images}/a.jpg and {masks}/a.png."
            )
        how = f"the folders {' and '.join(f'{one}/ with {other}/' for one, other in folders.values())}"
        names = class_lines(path)
        classes, meaning = (names, plain_meaning(len(names))) if names else _counted_classes(path, parts)
        return MaskSource(
            format=self.name, root=path, classes=classes, parts=parts, how=how, meaning=meaning,
            findings=tuple(findings),
        )  # fmt: skip


class Ade20k(_LabelMaps):
    """ADE20K as its scene parsing challenge has it: 0 is ignored, k is class k - 1; names from objectInfo150.txt."""

    name = "ade20k"
    expected = "ADE20K: ADEChallengeData2016 with images/training/ and annotations/training/"

    def recognise(self, path: Path) -> bool:
        named = path.resolve().name == "ADEChallengeData2016"
        listed = any((path / name).is_file() for name in ("objectInfo150.txt", "sceneCategories.txt"))
        return path.is_dir() and (named or listed) and bool(find_pairs(path))

    def read(self, path: Path) -> MaskSource:
        folders = find_pairs(path)
        classes = range(1, ADE20K_CLASSES + 1)
        return MaskSource(
            format=self.name, root=path, classes=_ade20k_names(path / "objectInfo150.txt"),
            parts={part: paired(path, images, masks)[0] for part, (images, masks) in folders.items()},
            how=f"the folders {slashed(images for images, _ in folders.values())}",
            meaning=tuple(IGNORE if v == 0 else v - 1 if v in classes else UNKNOWN for v in range(256)),
        )  # fmt: skip


def _ade20k_names(file: Path) -> tuple[str, ...]:
    if not file.is_file():
        return tuple(f"class {index}" for index in range(1, ADE20K_CLASSES + 1))
    lines = read_file(file).decode("utf-8", "replace").splitlines()
    names = [line.split("\t")[-1].split(",")[0].strip() for line in lines if line.split("\t")[0].strip().isdigit()]
    if len(names) != ADE20K_CLASSES:
        raise UserError(
            f"{file} names {len(names)} classes, expected {ADE20K_CLASSES}: lines of a number, …, and a name, with "
            "tabs between them. Restore the file, or remove it to have numbers as names."
        )
    return tuple(f"{name} ({at})" if names.count(name) > 1 else name for at, name in enumerate(names, 1))


class VocMaps(_LabelMaps):
    """Pascal VOC's semantic masks, PNGs whose palette indices are classes. Classes are the lines of classes.txt, else
    VOC's twenty and background."""

    name = "voc_segmentation"
    expected = "Pascal VOC: SegmentationClass/*.png with JPEGImages/"

    def recognise(self, path: Path) -> bool:
        return (path / "SegmentationClass").is_dir() and (path / "JPEGImages").is_dir()

    def read(self, path: Path) -> MaskSource:
        stems = {Path(name).stem: name for name in find_images(path, "JPEGImages")[0]}

        def records(wanted: list[str]) -> tuple[MaskRecord, ...]:
            return tuple(
                MaskRecord(stems.get(stem, f"JPEGImages/{stem}.jpg"), f"SegmentationClass/{stem}.png")
                for stem in wanted
            )

        lists = part_lists(path / _VOC_LISTS)
        parts = {part: records(stems) for part, (_, stems) in lists.items()}
        how = f"the lists {', '.join(f'{_VOC_LISTS}/{part}.txt' for part in parts)}"
        if not parts:
            parts = {"": records([Path(mask).stem for mask in find_images(path, "SegmentationClass")[0]])}
            how = "the folder SegmentationClass/"
        names = class_lines(path) or VOC
        return MaskSource(
            format=self.name, root=path, classes=names, parts=parts, how=how, meaning=plain_meaning(len(names))
        )

    def write(self, mending: Mending) -> None:
        for part, records in write_maps(mending, listed=True).items():
            if part:
                stems = [Path(record.mask or "").stem for record in records]
                mending.write_lines(f"{_VOC_LISTS}/{part}.txt", stems)


class CamVid(_LabelMaps):
    """Lists as in SegNet's CamVid, with an image and its mask in each line. What stands before the part of a path that
    exists in the folder (/SegNet/CamVid/) is stripped. Classes are the lines of classes.txt, else CamVid's eleven, with
    11 ignored."""

    name = "camvid"
    expected = "lists: train.txt with an image and its mask in each line"

    def recognise(self, path: Path) -> bool:
        file = next((path / f"{part}.txt" for part in PARTS if (path / f"{part}.txt").is_file()), None)
        if file is None:
            return False
        with file.open("rb") as opened:
            first = opened.readline(4096).decode("utf-8", "replace").split()
        return len(first) == 2 and all(ending(word) in EXTENSIONS for word in first)

    def read(self, path: Path) -> MaskSource:
        lists = {part: path / f"{part}.txt" for part in PARTS}
        parts = {part: tuple(_listed(path, file)) for part, file in lists.items() if file.is_file()}
        parts = {part: records for part, records in parts.items() if records}
        names = class_lines(path)
        return MaskSource(
            format=self.name, root=path, classes=names or CAMVID, parts=parts,
            how=f"the lists {', '.join(f'{part}.txt' for part in parts)}",
            meaning=plain_meaning(len(names)) if names else plain_meaning(len(CAMVID), len(CAMVID)),
        )  # fmt: skip

    def write(self, mending: Mending) -> None:
        for part, records in write_maps(mending, listed=True).items():
            mending.write_lines(f"{part}.txt", [f"{record.name} {record.mask}" for record in records])


def _listed(root: Path, file: Path) -> list[MaskRecord]:
    records = []
    for number, line in enumerate(read_file(file).decode("utf-8-sig", "surrogateescape").split("\n"), 1):
        words = line.split()
        if words and len(words) != 2:
            raise UserError(
                f"{file}, line {number}: expected an image and its mask with a space between them; got "
                f"{line.strip()[:80]!r}. Complete or remove the line."
            )
        if words:
            records.append(MaskRecord(_stripped(root, words[0]), _stripped(root, words[1])))
    return records


def _stripped(root: Path, text: str) -> str:
    """The path below `root` that a listed path ends in; its last two names if none exists."""
    words = text.strip("/").split("/")
    options = ("/".join(words[at:]) for at in range(len(words)))
    return next((option for option in options if (root / option).is_file()), "/".join(words[-2:]))


Steps = tuple[tuple[str, ...], ...]


def find_pairs(root: Path) -> dict[str, tuple[str, str]]:
    """Folders of (images, masks) by part; "" when they are not split; {} for another layout."""
    found: dict[str, tuple[str, str]] = {}
    for part, names in PARTS.items():
        outside = _pair(root, (_IMAGE_FOLDERS, names), (_MASK_FOLDERS, names))
        if both := outside or _pair(root, (names, _IMAGE_FOLDERS), (names, _MASK_FOLDERS)):
            found[part] = both
    if not found and (both := _pair(root, (_IMAGE_FOLDERS,), (_MASK_FOLDERS,))):
        found[""] = both
    return {part: (images, masks) for part, (images, masks) in found.items() if find_images(root, masks)[0]}


def _pair(root: Path, images: Steps, masks: Steps) -> tuple[str, str] | None:
    one, other = _folder(root, images), _folder(root, masks)
    return (one, other) if one and other else None


def _folder(root: Path, steps: Steps) -> str:
    """The folder below `root` that has one of the names of each step, whatever their case; "" for none."""
    place = root
    for names in steps:
        by_lower = {name.lower(): name for name in subfolders(place)}
        name = next((by_lower[name] for name in names if name in by_lower), None)
        if name is None:
            return ""
        place /= name
    return below(root, place)


def paired(root: Path, images: str, masks: str) -> tuple[tuple[MaskRecord, ...], list[str]]:
    """The images with their masks, and the masks that belong to no image."""
    by_key = {_key(name, masks): name for name in reversed(find_images(root, masks)[0])}
    used = set()
    records = []
    for name in find_images(root, images)[0]:
        key = _key(name, images)
        options = [key, *(key + suffix for suffix in _MASK_ENDINGS)]
        options += [key.removesuffix("_leftImg8bit") + suffix for suffix in _CITYSCAPES_ENDINGS]
        match = next((by_key[option] for option in options if option in by_key), None)
        used.add(match)
        records.append(MaskRecord(name, match))
    return tuple(records), sorted(name for name in by_key.values() if name not in used)


def _key(name: str, folder: str) -> str:
    """Name below `folder` without its ending."""
    rest = name.removeprefix(f"{folder}/")
    return rest[: len(rest) - len(ending(rest.rsplit("/", 1)[-1]))]


def class_lines(root: Path) -> tuple[str, ...]:
    """The lines of classes.txt, class 0 first; empty when there is none. Raises UserError when it has more than 255
    lines, or a line twice."""
    file = root / "classes.txt"
    names = tuple(read_lines(file)) if file.is_file() else ()
    if len(names) > 255 or len(set(names)) < len(names):
        what = f"{len(names)} lines, at most 255 can be" if len(names) > 255 else "a name twice"
        raise UserError(f"{file} has {what}. Expected one class per line, in the order of their indices.")
    return names


def _counted_classes(root: Path, parts: Parts) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Classes and their meaning by the values that occur in the masks."""

    def values_of(name: str) -> set[int]:
        try:
            return set(np.flatnonzero(np.bincount(read_indices(root / name).reshape(-1))).tolist())
        except UnreadableImage:
            return set()  # whoever reads it for training or checking will say so

    with ThreadPoolExecutor(2) as pool:
        masks = [record.mask for records in parts.values() for record in records if record.mask]
        values = sorted(set().union(*pool.map(values_of, masks)))
    if values in ([0, 255], [0, 1], [0, 1, 255]):
        one, meaning = 255 if values == [0, 255] else 1, plain_meaning(2)
        return ("background", "foreground"), tuple(1 if value == one else meaning[value] for value in range(256))
    classes = [value for value in values if value != IGNORE]
    if not classes or classes[-1] > 254:
        reason = "they cannot be read" if not classes else f"they hold values up to {classes[-1]}"
        raise UserError(
            f"the masks in {root} hold no class indices: {reason}. Expected grey or palette PNGs with values 0, 1, 2, "
            "… for the classes and 255 for pixels to ignore."
        )
    names = tuple(f"class {value}" for value in range(classes[-1] + 1))
    return names, plain_meaning(len(names))


def write_maps(mending: Mending, listed: bool = False) -> dict[str, list[MaskRecord]]:
    """Write the masks again that can be used, with unknown values ignored; which images are left, by part. With
    `listed`, lists say what is in a part."""
    data, source = mending.data, mending.data.source
    if not isinstance(source, MaskSource):
        raise TypeError("these are no label maps")
    ignored = source.meaning.index(IGNORE) if IGNORE in source.meaning else IGNORE
    kept: dict[str, list[MaskRecord]] = {part: [] for part in source.parts}
    for part, records in source.parts.items():
        for record in records:
            counted = mending.changes[record.mask or record.name]
            if not mending.keeps(record, part, counted, listed) or record.mask is None:
                continue
            facts = data.masks[record.mask]
            if isinstance(facts, UnreadableImage):
                counted["missing or unreadable mask left out"] += 1
                continue
            if facts.size != data.size(record.name):
                counted["mask of another size than its image left out"] += 1
                continue
            kept[part].append(record)
            file = mending.root / record.mask
            target = mending.file(mending.inside(file))
            strange = unknown_values(facts.counts, source.meaning)
            if strange:
                counted["pixels with an index out of range set to ignored"] = int(facts.counts[strange].sum())
            if record.fit is not None:
                counted["mask written as it lies in its image"] += 1
            if strange or record.fit is not None:
                _write_mask(file, target, strange, ignored, record.fit)
            else:
                target.write_bytes(file.read_bytes())
    return kept


def _write_mask(file: Path, target: Path, strange: list[int], ignored: int, fit: Fit | None) -> None:
    values = read_indices(file)
    values = values if fit is None else fit.array(values)
    values[np.isin(values, strange)] = ignored
    image = Image.fromarray(values.astype(np.uint8))
    with Image.open(file) as before:
        if before.mode == "P":
            image.putpalette(before.getpalette() or [])  # makes it mode P, with the same indices
    image.save(target, format="PNG")
