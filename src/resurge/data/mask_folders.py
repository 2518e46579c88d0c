"""Where semantic data sets keep their images and masks.

pairs: images/ beside masks/ (also annotations/, labels/ and the like), each flat or with train/ and val/ inside, or
    train/ and val/ with both inside; a mask has its image's name, perhaps with an ending such as _mask.
camvid: SegNet's CamVid: train.txt, val.txt and test.txt with an image and its mask in each line.
ade20k: ADEChallengeData2016: images/{training,validation} and annotations/{training,validation}; 0 is ignored.
voc_segmentation: JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/{train,val}.txt; 255 is ignored.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from resurge.data.findings import Finding
from resurge.data.folders import TEST_NAMES, TRAIN_NAMES, VAL_NAMES, find_images, subfolders
from resurge.data.images import EXTENSIONS, UnreadableImage, ending
from resurge.data.index_images import read_indices
from resurge.data.label_maps import UNKNOWN, MaskRecord, MaskSource, plain_meaning
from resurge.data.scenes import IGNORE
from resurge.errors import UserError

CAMVID = ("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian",
          "Bicyclist")  # fmt: skip
VOC = ("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
       "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
       "tvmonitor")  # fmt: skip
ADE20K_CLASSES = 150

_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "leftimg8bit")
_MASK_FOLDERS = ("masks", "mask", "annotations", "annotation", "labels", "label", "gt", "gtfine", "segmentation",
                 "segmentationclass", "ann", "ann_dir")  # fmt: skip
_MASK_ENDINGS = ("_mask", "_masks", "-mask", "_label", "_labels", "_gt", "_seg", "_annotation", "_labelids", "_l")
_CITYSCAPES_ENDINGS = ("_gtFine_labelTrainIds", "_gtFine_labelIds", "_labelIds")  # instead of _leftImg8bit
_PARTS = (("train", TRAIN_NAMES), ("val", VAL_NAMES), ("test", TEST_NAMES))
LISTS = "ImageSets/Segmentation"


def _child(root: Path, options: tuple[str, ...]) -> str | None:
    by_lower = {name.lower(): name for name in subfolders(root)} if root.is_dir() else {}
    return next((by_lower[option] for option in options if option in by_lower), None)


# ----------------------------------------------------------------------------------------------------------- pairs


def find_pairs(root: Path) -> dict[str, tuple[str, str]]:
    """Folders of (images, masks) by part; "" when they are not split; {} for another layout."""
    images, masks = _child(root, _IMAGE_FOLDERS), _child(root, _MASK_FOLDERS)
    found: dict[str, tuple[str, str]] = {}
    for part, names in _PARTS:
        if images is not None and masks is not None:
            one, other = _child(root / images, names), _child(root / masks, names)
            if one is not None and other is not None:
                found[part] = (f"{images}/{one}", f"{masks}/{other}")
        inside = _child(root, names)
        if part not in found and inside is not None:
            one, other = _child(root / inside, _IMAGE_FOLDERS), _child(root / inside, _MASK_FOLDERS)
            if one is not None and other is not None:
                found[part] = (f"{inside}/{one}", f"{inside}/{other}")
    if not found and images is not None and masks is not None:
        found[""] = (images, masks)
    return {part: (one, other) for part, (one, other) in found.items() if find_images(root, other)[0]}


def read_pairs(root: Path) -> MaskSource:
    """Images and masks in folders of their own. Classes are the lines of classes.txt, else counted.

    Raises:
        UserError: no mask belongs to an image, or the masks hold no class indices.
    """
    findings: list[Finding] = []
    parts: dict[str, tuple[MaskRecord, ...]] = {}
    folders = find_pairs(root)
    for part, (images, masks) in folders.items():
        parts[part], lost = _paired(root, images, masks)
        if lost:
            message = f"{len(lost)} mask{'s' if len(lost) > 1 else ''} without an image: {', '.join(lost[:3])}"
            remedy = "add the image, or remove the mask; it is not used"
            findings.append(Finding("missing-file", "error", tuple(lost), message, remedy))
    if not any(record.mask for records in parts.values() for record in records):
        images, masks = next(iter(folders.values()))
        raise UserError(
            f"no mask in {root / masks} has the name of an image in {root / images}. Expected pairs such as "
            f"{images}/a.jpg and {masks}/a.png."
        )
    how = f"the folders {' and '.join(f'{one}/ with {other}/' for one, other in folders.values())}"
    classes, meaning = _classes(root, parts)
    return MaskSource("pairs", root, classes, parts, how, meaning, tuple(findings))


def _paired(root: Path, images: str, masks: str) -> tuple[tuple[MaskRecord, ...], list[str]]:
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


def _classes(root: Path, parts: dict[str, tuple[MaskRecord, ...]]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    names = class_lines(root)
    if names:
        return names, plain_meaning(len(names))
    seen = np.zeros(65536, dtype=bool)

    def look(name: str) -> list[int]:
        try:
            return np.flatnonzero(np.bincount(read_indices(root / name).reshape(-1))).tolist()
        except UnreadableImage:
            return []  # whoever reads it for training or checking will say so

    with ThreadPoolExecutor(2) as pool:
        for values in pool.map(look, [record.mask for records in parts.values() for record in records if record.mask]):
            seen[values] = True
    values = np.flatnonzero(seen).tolist()
    if values in ([0, 255], [0, 1], [0, 1, 255]):
        one = 255 if values == [0, 255] else 1
        meaning = plain_meaning(2)
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


def class_lines(root: Path) -> tuple[str, ...]:
    """The lines of classes.txt, class 0 first; empty when there is none.

    Raises:
        UserError: it has more than 255 lines, or a line twice.
    """
    file = root / "classes.txt"
    if not file.is_file():
        return ()
    lines = file.read_bytes().decode("utf-8-sig", "surrogateescape").split("\n")
    names = tuple(line.strip("\r ") for line in lines if line.strip())
    if len(names) > 255 or len(set(names)) < len(names):
        what = f"{len(names)} lines, at most 255 can be" if len(names) > 255 else "a name twice"
        raise UserError(f"{file} has {what}. Expected one class a line, in the order of their indices.")
    return names


# ---------------------------------------------------------------------------------------------------------- camvid


def is_camvid(root: Path) -> bool:
    """Whether a folder has lists of an image and a mask a line."""
    for name in ("train.txt", "val.txt", "test.txt"):
        file = root / name
        if file.is_file():
            with file.open("rb") as opened:
                first = opened.readline(4096).decode("utf-8", "replace").split()
            return len(first) == 2 and all(ending(word) in EXTENSIONS for word in first)
    return False


def read_camvid(root: Path) -> MaskSource:
    """The lists of SegNet's CamVid. What stands before the part of a path that exists below `root` (/SegNet/CamVid/)
    is stripped. Classes are the lines of classes.txt, else CamVid's eleven, with 11 ignored.

    Raises:
        UserError: a line has not two paths.
    """
    parts: dict[str, tuple[MaskRecord, ...]] = {}
    for part in ("train", "val", "test"):
        file = root / f"{part}.txt"
        if not file.is_file():
            continue
        records = []
        for number, line in enumerate(file.read_bytes().decode("utf-8-sig", "surrogateescape").split("\n")):
            words = line.split()
            if words and len(words) != 2:
                raise UserError(
                    f"{file}, line {number + 1}: expected an image and its mask with a space between them; got "
                    f"{line.strip()[:80]!r}. Complete or remove the line."
                )
            if words:
                records.append(MaskRecord(stripped(root, words[0]), stripped(root, words[1])))
        if records:
            parts[part] = tuple(records)
    names = class_lines(root)
    meaning = plain_meaning(len(names)) if names else plain_meaning(len(CAMVID), len(CAMVID))
    how = f"the lists {', '.join(f'{part}.txt' for part in parts)}"
    return MaskSource("camvid", root, names or CAMVID, parts, how, meaning)


def stripped(root: Path, text: str) -> str:
    """The path below `root` that a listed path ends in; the listed path without its first slash if none exists."""
    words = text.strip("/").split("/")
    for at in range(len(words)):
        if (root / "/".join(words[at:])).is_file():
            return "/".join(words[at:])
    return "/".join(words[-2:])


# ---------------------------------------------------------------------------------------------------------- ade20k


def is_ade20k(root: Path) -> bool:
    """Whether a folder is ADEChallengeData2016: by its name, or by the lists that come with it."""
    named = root.resolve().name == "ADEChallengeData2016"
    listed = any((root / name).is_file() for name in ("objectInfo150.txt", "sceneCategories.txt"))
    return (named or listed) and bool(find_pairs(root))


def read_ade20k(root: Path) -> MaskSource:
    """ADE20K as its scene parsing challenge has it: 0 is ignored, k is class k - 1; names from objectInfo150.txt."""
    parts = {part: _paired(root, images, masks)[0] for part, (images, masks) in find_pairs(root).items()}
    meaning = tuple(IGNORE if value == 0 else value - 1 if value <= ADE20K_CLASSES else UNKNOWN for value in range(256))
    how = f"the folders {', '.join(f'{images}/' for images, _ in find_pairs(root).values())}"
    return MaskSource("ade20k", root, _ade20k_classes(root / "objectInfo150.txt"), parts, how, meaning)


def _ade20k_classes(file: Path) -> tuple[str, ...]:
    if not file.is_file():
        return tuple(f"class {index}" for index in range(1, ADE20K_CLASSES + 1))
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    names = [line.split("\t")[-1].split(",")[0].strip() for line in lines if line.split("\t")[0].strip().isdigit()]
    if len(names) != ADE20K_CLASSES:
        raise UserError(
            f"{file} names {len(names)} classes, expected {ADE20K_CLASSES}: lines of a number, …, and a name, with "
            "tabs between them. Restore the file, or remove it to have numbers as names."
        )
    twice = {name for name in names if names.count(name) > 1}
    return tuple(f"{name} ({index})" if name in twice else name for index, name in enumerate(names, 1))


# ------------------------------------------------------------------------------------------------ voc_segmentation


def is_voc_segmentation(root: Path) -> bool:
    """Whether a folder has VOC's SegmentationClass/ and JPEGImages/."""
    return (root / "SegmentationClass").is_dir() and (root / "JPEGImages").is_dir()


def read_voc_segmentation(root: Path) -> MaskSource:
    """VOC's semantic masks, PNGs whose palette indices are classes. Classes are the lines of classes.txt, else VOC's
    twenty and background."""
    stems = {Path(name).stem: name for name in find_images(root, "JPEGImages")[0]}
    parts: dict[str, tuple[MaskRecord, ...]] = {}
    for part, options in (("train", ("train", "trainval")), ("val", ("val",)), ("test", ("test",))):
        files = [root / LISTS / f"{option}.txt" for option in options]
        file = next((file for file in files if file.is_file()), None)
        if file is not None:
            lines = file.read_bytes().decode("utf-8-sig", "surrogateescape").split("\n")
            wanted = [line.strip() for line in lines if line.strip()]
            if wanted:
                parts[part] = tuple(_voc_record(stem, stems) for stem in wanted)
    how = f"the lists {', '.join(f'{LISTS}/{part}.txt' for part in parts)}"
    if not parts:
        masks = find_images(root, "SegmentationClass")[0]
        parts, how = {"": tuple(_voc_record(Path(mask).stem, stems) for mask in masks)}, "the folder SegmentationClass/"
    names = class_lines(root) or VOC
    return MaskSource("voc_segmentation", root, names, parts, how, plain_meaning(len(names)))


def _voc_record(stem: str, stems: dict[str, str]) -> MaskRecord:
    return MaskRecord(stems.get(stem, f"JPEGImages/{stem}.jpg"), f"SegmentationClass/{stem}.png")
