"""The formats of label maps: images/ beside masks/, masks beside images, ADE20K, Pascal VOC's semantic masks, and
CamVid's lists. What values mean, where a format does not say, is found by `coding`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from resurge.data.class_names import ClassTable, find_classes
from resurge.data.coding import UNKNOWN
from resurge.data.findings import Finding, without_image
from resurge.data.fit import Fit
from resurge.data.formats.format import Format
from resurge.data.formats.voc import part_lists
from resurge.data.images import EXTENSIONS, UnreadableImage, ending, read_indices
from resurge.data.map_source import MaskSource
from resurge.data.mending import Mending
from resurge.data.paths import (
    ANNOTATION_FOLDERS,
    IMAGE_FOLDERS,
    PART_OF,
    PARTS,
    beginning,
    find_images,
    folder_of,
    images_in,
    is_file,
    part_folders,
    read_file,
    read_lines,
    slashed,
    stem_below,
    text_of,
)
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
_VOC_NAME, _VOC_STEM = re.compile(r"VOC\d{4}"), re.compile(r"(19|20)\d\d_\d{6}")
_MASK_ENDINGS = ("_mask", "_masks", "-mask", "_label", "_labels", "_gt", "_seg", "_annotation", "_labelids", "_l")
_CITYSCAPES_ENDINGS = ("_gtFine_labelTrainIds", "_gtFine_labelIds", "_labelIds")  # instead of _leftImg8bit

Parts = dict[str, tuple[MaskRecord, ...]]


class _LabelMaps(Format):
    annotations = ("maps",)

    def write(self, mending: Mending) -> None:
        write_maps(mending)


class Pairs(_LabelMaps):
    """Images and masks in folders of their own. A mask has its image's name, perhaps with an ending such as _mask."""

    name = "pairs"
    expected = "images/ with masks/, each flat or with train/ and val/ inside"

    def recognise(self, path: Path) -> bool:
        return path.is_dir() and bool(find_pairs(path))

    def read(self, path: Path) -> MaskSource:
        folders = find_pairs(path)
        parts, findings = read_pairs(path, folders)
        if not any(record.mask for records in parts.values() for record in records):
            images, masks = next(iter(folders.values()))
            raise UserError(
                f"no mask in {path / masks} has the name of an image in {path / images}. Expected pairs such as "
                f"{images}/a.jpg and {masks}/a.png."
            )
        how = f"the folders {' and '.join(f'{one}/ with {other}/' for one, other in folders.values())}"
        return MaskSource(
            format=self.name, root=path, table=class_table(path, parts), parts=parts, how=how, findings=tuple(findings)
        )


class Beside(_LabelMaps):
    """Masks beside their images, a.jpg with a_mask.png, in train/, valid/ and test/ or in one folder; Roboflow writes
    them so, with the classes in _classes.csv."""

    name = "masks_beside"
    expected = "a.jpg with a_mask.png beside it, in train/, valid/ and test/ or in one folder"

    def recognise(self, path: Path) -> bool:
        return path.is_dir() and bool(_beside(path))

    def read(self, path: Path) -> MaskSource:
        parts: Parts = {}
        findings: list[Finding] = []
        folders = _beside(path)
        for part, folder in folders.items():
            names = [f"{folder}/{name}" if folder else name for name in images_in(path / folder)]
            masks = [name for name in names if _is_mask(name)]
            images = [name for name in names if not _is_mask(name)]
            parts[part], lost = _matched(images, masks, folder, folder)
            findings += without_image("mask", lost)
        how = "masks beside their images" + (f" in {slashed(folders.values())}" if "" not in folders else "")
        return MaskSource(
            format=self.name, root=path, table=class_table(path, parts), parts=parts, how=how, findings=tuple(findings)
        )


def _beside(path: Path) -> dict[str, str]:
    """Folders in which most images have a mask beside them, by part; "" for `path` itself."""
    return part_folders(path, _has_masks_beside) or ({"": ""} if _has_masks_beside(path) else {})


def _has_masks_beside(folder: Path) -> bool:
    names = images_in(folder)
    return sum(map(_is_mask, names)) * 3 > len(names)


def _is_mask(name: str) -> bool:
    return name.lower().endswith("_mask.png")


def class_table(root: Path, parts: Parts) -> ClassTable | None:
    """What the class files in the folder, or in those of the masks, say."""
    masks = [Path(record.mask).parent for records in parts.values() for record in records if record.mask]
    folders = {Path(), *(above for folder in dict.fromkeys(masks) for above in (folder, *folder.parents))}
    return find_classes(root / folder for folder in sorted(folders, key=lambda folder: len(folder.parts)))


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
        values = {0: IGNORE} | {value: value - 1 for value in range(1, ADE20K_CLASSES + 1)}
        return MaskSource(
            format=self.name, root=path, table=ClassTable(_ade20k_names(path / "objectInfo150.txt"), "ADE20K", values),
            parts=read_pairs(path, folders)[0],
            how=f"the folders {slashed(images for images, _ in folders.values())}",
        )  # fmt: skip


def _ade20k_names(file: Path) -> tuple[str, ...]:
    if not file.is_file():
        return tuple(f"class {index}" for index in range(1, ADE20K_CLASSES + 1))
    lines = read_lines(file)
    names = [line.split("\t")[-1].split(",")[0].strip() for line in lines if line.split("\t")[0].strip().isdigit()]
    if len(names) != ADE20K_CLASSES:
        raise UserError(
            f"{file} names {len(names)} classes, expected {ADE20K_CLASSES}: lines of a number, …, and a name, with "
            "tabs between them. Restore the file, or remove it to have numbers as names."
        )
    return tuple(f"{name} ({at})" if names.count(name) > 1 else name for at, name in enumerate(names, 1))


class VocMaps(_LabelMaps):
    """Pascal VOC's semantic masks, PNGs whose palette indices are classes, and what other tools write in its folders.
    VOC's twenty classes and background are meant where its own pictures are there."""

    name = "voc_segmentation"
    expected = "Pascal VOC: SegmentationClass/*.png with JPEGImages/"

    def recognise(self, path: Path) -> bool:
        return (path / "SegmentationClass").is_dir() and (path / "JPEGImages").is_dir()

    def read(self, path: Path) -> MaskSource:
        images, folder = "JPEGImages", "SegmentationClass"
        pairs = {stem_below(record.name, images): record for record in paired(path, images, folder)[0]}
        masks = {stem_below(name, folder): name for name in find_images(path, folder)[0]}

        def records(wanted: list[str]) -> tuple[MaskRecord, ...]:
            bare = ((stem, f"{images}/{stem}.jpg", f"{folder}/{stem}.png") for stem in wanted)
            return tuple(pairs.get(stem, MaskRecord(name, masks.get(stem, mask))) for stem, name, mask in bare)

        lists = part_lists(path / _VOC_LISTS)
        parts = {part: records(stems) for part, (_, stems) in lists.items()}
        how = f"the lists {', '.join(f'{_VOC_LISTS}/{file.name}' for file, _ in lists.values())}"
        if not parts:
            parts = {"": records(list(masks))}
            how = "the folder SegmentationClass/"
        values = {index: index for index in range(len(VOC))}
        return MaskSource(
            format=self.name, root=path, table=class_table(path, parts), parts=parts, how=how,
            usual=ClassTable(VOC, "Pascal VOC", values) if _is_voc(path, list(masks)) else None,
        )  # fmt: skip

    def write(self, mending: Mending) -> None:
        for part, records in write_maps(mending, listed=True).items():
            if part:
                stems = [Path(record.mask or "").stem for record in records]
                mending.write_lines(f"{_VOC_LISTS}/{part}.txt", stems)


def _is_voc(path: Path, stems: list[str]) -> bool:
    """Whether a folder is Pascal VOC's own: by its name, or those of most images. Objects in XML files that have names
    of VOC's prove nothing: others have cars and dogs too, with other indices."""
    return bool(_VOC_NAME.fullmatch(path.resolve().name)) or (
        sum(map(bool, map(_VOC_STEM.fullmatch, stems))) * 2 > len(stems)
    )


class CamVid(_LabelMaps):
    """Lists as in SegNet's CamVid, with an image and its mask in each line. What stands before the part of a path that
    exists in the folder (/SegNet/CamVid/) is stripped. CamVid's eleven classes, with 11 ignored, are meant where the
    folder has its name, or has its folders trainannot/ and so on and no other values."""

    name = "camvid"
    expected = "lists: train.txt with an image and its mask in each line"

    def recognise(self, path: Path) -> bool:
        return bool(_pair_lists(path))

    def read(self, path: Path) -> MaskSource:
        lists = _pair_lists(path)
        parts = {part: tuple(_listed(path, file)) for part, file in lists.items()}
        parts = {part: records for part, records in parts.items() if records}
        masks = [record.mask for records in parts.values() for record in records if record.mask]
        values = {index: index for index in range(len(CAMVID))} | {len(CAMVID): IGNORE}
        own = ClassTable(CAMVID, "CamVid", values)
        named = path.resolve().name.lower() == "camvid"
        like = all(Path(mask).parent.name in ("trainannot", "valannot", "testannot") for mask in masks)
        return MaskSource(
            format=self.name, root=path, table=class_table(path, parts) or (own if named else None), parts=parts,
            how=f"the lists {', '.join(file.name for file in lists.values())}", usual=own if like else None,
        )  # fmt: skip

    def write(self, mending: Mending) -> None:
        lists = _pair_lists(mending.root)
        for part, records in write_maps(mending, listed=True).items():
            mending.write_lines(lists[part].name, [f"{record.name} {record.mask}" for record in records])


def _pair_lists(path: Path) -> dict[str, Path]:
    """The lists with an image and its mask in each line, by part; where none is a part's, one of another name, such as
    CVAT's default.txt, is that of all images."""
    files = {file: PART_OF.get(file.stem.lower(), "") for file in sorted(path.glob("*.txt"), reverse=True)}
    firsts = {file: next(iter(text_of(beginning(file)).split("\n")), "").split() for file in files}
    good = {
        file for file, first in firsts.items() if len(first) == 2 and all(ending(each) in EXTENSIONS for each in first)
    }
    found = {part: file for file, part in files.items() if part or file in good}
    if len(found) > 1:
        found.pop("", None)
    return {part: found[part] for part in (*PARTS, "") if part in found} if good & set(found.values()) else {}


def _listed(root: Path, file: Path) -> list[MaskRecord]:
    records = []
    for number, line in enumerate(text_of(read_file(file)).split("\n"), 1):
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
    return next((option for option in options if is_file(root / option)), "/".join(words[-2:]))


Steps = tuple[tuple[str, ...], ...]


def find_pairs(root: Path) -> dict[str, tuple[str, str]]:
    """Folders of (images, masks) by part; "" when they are not split; {} for another layout."""
    found: dict[str, tuple[str, str]] = {}
    for part, names in PARTS.items():
        outside = _pair(root, (IMAGE_FOLDERS, names), (ANNOTATION_FOLDERS, names))
        inside = _pair(root, (names, IMAGE_FOLDERS), (names, ANNOTATION_FOLDERS))
        beside = tuple(f"{name}{ending}" for name in names for ending in ("_labels", "_label", "_masks", "_mask"))
        if both := outside or inside or _pair(root, (names,), (beside,)):
            found[part] = both
    if not found and (both := _pair(root, (IMAGE_FOLDERS,), (ANNOTATION_FOLDERS,))):
        found[""] = both
    return {part: (images, masks) for part, (images, masks) in found.items() if find_images(root, masks)[0]}


def read_pairs(root: Path, folders: dict[str, tuple[str, str]]) -> tuple[Parts, list[Finding]]:
    """The images with their masks in the folders of `find_pairs`, and findings about masks of no image."""
    parts, findings = {}, []
    for part, (images, masks) in folders.items():
        parts[part], lost = paired(root, images, masks)
        findings += without_image("mask", lost)
    return parts, findings


def _pair(root: Path, images: Steps, masks: Steps) -> tuple[str, str] | None:
    one, other = folder_of(root, images), folder_of(root, masks)
    return (one, other) if one and other else None


def paired(root: Path, images: str, masks: str) -> tuple[tuple[MaskRecord, ...], list[str]]:
    """The images with their masks, and the masks that belong to no image."""
    return _matched(find_images(root, images)[0], find_images(root, masks)[0], images, masks)


def _matched(names: list[str], masks: list[str], images: str, beside: str) -> tuple[tuple[MaskRecord, ...], list[str]]:
    by_key = {stem_below(name, beside).lower(): name for name in reversed(masks)}
    used = set()
    records = []
    for name in names:
        key = stem_below(name, images)
        options = [key, *(key + suffix for suffix in _MASK_ENDINGS)]
        options += [key.removesuffix("_leftImg8bit") + suffix for suffix in _CITYSCAPES_ENDINGS]
        match = next((by_key[option.lower()] for option in options if option.lower() in by_key), None)
        used.add(match)
        records.append(MaskRecord(name, match))
    return tuple(records), sorted(name for name in by_key.values() if name not in used)


def write_maps(mending: Mending, listed: bool = False) -> dict[str, list[MaskRecord]]:
    """Write the masks again that can be used, with unknown values ignored; which images are left, by part. With
    `listed`, lists say what is in a part."""
    data, source = mending.data, mending.data.source
    if not isinstance(source, MaskSource):
        raise TypeError("these are no label maps")
    kept: dict[str, list[MaskRecord]] = {part: [] for part in source.parts}
    for part, records in source.parts.items():
        for record in records:
            counted = mending.changes[record.mask or record.name]
            if not mending.keeps(record, part, counted, listed) or record.mask is None:
                continue
            facts, coding = source.facts_of(record), source.coding_of(part)
            if isinstance(facts, UnreadableImage):
                counted["missing or unreadable mask left out"] += 1
                continue
            if record.fit is None and facts.size != data.size(record.name):
                counted["mask of another size than its image left out"] += 1
                continue
            kept[part].append(record)
            file = mending.root / record.mask
            target = mending.file(mending.inside(file))
            strange = [value for value, index, _ in facts.coded(coding) if index == UNKNOWN]
            if strange and coding.colours:
                raise UserError(f"{file} has colours that mean nothing: {', '.join(strange[:5])}. Name them first.")
            if record.fit is not None:
                counted["mask written as it lies in its image"] += 1
            if coding.colours and record.fit is not None:
                with Image.open(file) as image:
                    planes = [record.fit.array(np.asarray(band)) for band in image.convert("RGB").split()]
                Image.fromarray(np.stack(planes, axis=-1)).save(target, format="PNG")
            elif strange or record.fit is not None:
                ignored = next((value for value, index in coding.indices.items() if index == IGNORE), IGNORE)
                wrong = _write_mask(file, target, strange, ignored, record.fit)
                counted["pixels with an index out of range set to ignored"] += wrong
            else:
                target.write_bytes(file.read_bytes())
    return kept


def _write_mask(file: Path, target: Path, strange: list[str], ignored: int, fit: Fit | None) -> int:
    """Write a mask as it lies in its image, with its strange values ignored; their pixels."""
    values = read_indices(file)
    values = values if fit is None else fit.array(values)
    wrong = np.isin(values, list(map(int, strange)))
    values[wrong] = ignored
    image = Image.fromarray(values.astype(np.uint8))
    with Image.open(file) as before:
        if before.mode == "P":
            image.putpalette(before.getpalette() or [])  # makes it mode P, with the same indices
    image.save(target, format="PNG")
    return int(wrong.sum())
