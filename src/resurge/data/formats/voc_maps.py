"""Pascal VOC's semantic masks: JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/{train,val}.txt."""

from __future__ import annotations

from pathlib import Path

from resurge.data.formats.format import Format
from resurge.data.formats.label_maps import class_lines, write_maps
from resurge.data.mending import Mending
from resurge.data.paths import find_images, read_lines
from resurge.data.records import MaskRecord, MaskSource, plain_meaning

VOC = ("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
       "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
       "tvmonitor")  # fmt: skip
LISTS = "ImageSets/Segmentation"


def is_voc_segmentation(root: Path) -> bool:
    """Whether a folder has VOC's SegmentationClass/ and JPEGImages/."""
    return (root / "SegmentationClass").is_dir() and (root / "JPEGImages").is_dir()


def read_voc_segmentation(root: Path) -> MaskSource:
    """VOC's semantic masks, PNGs whose palette indices are classes. Classes are the lines of classes.txt, else VOC's
    twenty and background."""
    stems = {Path(name).stem: name for name in find_images(root, "JPEGImages")[0]}
    parts: dict[str, tuple[MaskRecord, ...]] = {}
    for part, options in {"train": ("train", "trainval"), "val": ("val",), "test": ("test",)}.items():
        files = [root / LISTS / f"{option}.txt" for option in options]
        file = next((file for file in files if file.is_file()), None)
        if file is not None:
            wanted = read_lines(file)
            if wanted:
                parts[part] = tuple(_voc_record(stem, stems) for stem in wanted)
    how = f"the lists {', '.join(f'{LISTS}/{part}.txt' for part in parts)}"
    if not parts:
        masks = find_images(root, "SegmentationClass")[0]
        parts, how = {"": tuple(_voc_record(Path(mask).stem, stems) for mask in masks)}, "the folder SegmentationClass/"
    names = class_lines(root) or VOC
    meaning = plain_meaning(len(names))
    return MaskSource(format="voc_segmentation", root=root, classes=names, parts=parts, how=how, meaning=meaning)


def _voc_record(stem: str, stems: dict[str, str]) -> MaskRecord:
    return MaskRecord(stems.get(stem, f"JPEGImages/{stem}.jpg"), f"SegmentationClass/{stem}.png")


def write_voc_segmentation(mending: Mending) -> None:
    """Write the masks that can be used, and the lists of them where there were any."""
    kept = write_maps(mending, listed=True)
    for part, records in kept.items():
        if part:
            mending.write_lines(f"{LISTS}/{part}.txt", [Path(record.mask or "").stem for record in records])


FORMAT = Format(
    name="voc_segmentation",
    annotations=("maps",),
    expected="Pascal VOC: SegmentationClass/*.png with JPEGImages/",
    recognise=is_voc_segmentation,
    read=read_voc_segmentation,
    write=write_voc_segmentation,
)
