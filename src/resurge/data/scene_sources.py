"""From what the user names to the data of a dense task: images with objects, or with a class for every pixel."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from resurge.data import folders, mask_folders
from resurge.data.bundle import AnySplit, DataBundle, hold_out, peek
from resurge.data.coco import find_coco, read_coco
from resurge.data.digit_scenes import open_digit_scenes
from resurge.data.label_maps import MaskRecord, MaskSource, to_mask_split
from resurge.data.nuclei import is_nuclei, read_nuclei
from resurge.data.records import ObjectSource, Record, to_split
from resurge.data.scenes import SCENE_TASKS, MaskSplit, ObjectSplit
from resurge.data.voc import is_voc, read_voc
from resurge.data.yolo import is_yolo, read_yolo
from resurge.errors import UserError, suggest

SceneSource = ObjectSource | MaskSource
AnyRecord = TypeVar("AnyRecord", Record, MaskRecord)
SceneBundle = DataBundle[ObjectSplit] | DataBundle[MaskSplit]

MASK_FORMATS = ("voc_segmentation", "ade20k", "camvid", "pairs")
SCENE_FORMATS = ("coco", "voc", "yolo", "nuclei", *MASK_FORMATS)

_KNOWS: dict[str, Callable[[Path], object]] = {
    "coco": find_coco, "voc": is_voc, "yolo": is_yolo, "nuclei": is_nuclei,
    "voc_segmentation": mask_folders.is_voc_segmentation, "ade20k": mask_folders.is_ade20k,
    "camvid": mask_folders.is_camvid, "pairs": mask_folders.find_pairs,
}  # fmt: skip

_READERS: dict[str, Callable[[Path, bool], ObjectSource]] = {
    "coco": read_coco, "voc": read_voc, "yolo": read_yolo, "nuclei": read_nuclei,
}  # fmt: skip
_MASK_READERS: dict[str, Callable[[Path], MaskSource]] = {
    "pairs": mask_folders.read_pairs, "camvid": mask_folders.read_camvid, "ade20k": mask_folders.read_ade20k,
    "voc_segmentation": mask_folders.read_voc_segmentation,
}  # fmt: skip

_EXPECTED = {
    "coco": "COCO: a .json file, or annotations/instances_train2017.json beside train2017/",
    "voc": "Pascal VOC: Annotations/*.xml with JPEGImages/, or .xml files beside the images",
    "yolo": "YOLO: data.yaml, or images/ with labels/*.txt",
    "nuclei": "one mask file an object: <id>/images/<id>.png with <id>/masks/*.png",
    "voc_segmentation": "Pascal VOC: SegmentationClass/*.png with JPEGImages/",
    "ade20k": "ADE20K: ADEChallengeData2016 with images/training/ and annotations/training/",
    "camvid": "lists: train.txt with an image and its mask in each line",
    "pairs": "images/ with masks/, each flat or with train/ and val/ inside",
}

_LARGEST_DEFAULT = 800  # shorter side, of Lin et al. 2017 (arXiv:1612.03144)


def require_task(task: str) -> None:
    """Raises UserError when there is no such task."""
    tasks = ("classify", *SCENE_TASKS)
    if task not in tasks:
        raise UserError(f"unknown task {task!r}; use one of {', '.join(tasks)}.{suggest(task, tasks)}")


def recognise_scenes(path: Path, task: str | None = None) -> tuple[str, Path] | None:
    """(format, folder or file) of a data set for dense tasks, or None.

    The folder is `path`, or the only one of its subfolders that is in such a format. With a `task`, formats that
    serve it are looked for first.
    """
    order = SCENE_FORMATS if task != "segment" else (*MASK_FORMATS, *SCENE_FORMATS)
    for place in (path, *_inside(path)):
        for format in order:
            if (format == "coco" or place.is_dir() or format == "yolo") and _KNOWS[format](place):
                return format, place
    return None


def _inside(path: Path) -> list[Path]:
    """The subfolder to look into when `path` itself is in no format: there must be a single one."""
    names = folders.subfolders(path) if path.is_dir() else []
    return [path / names[0]] if len(names) == 1 else []


def read_scenes(path: Path, task: str | None, format: str = "auto", *, lenient: bool = False) -> SceneSource:
    """The records of a data set for dense tasks; with a `task`, of one that serves it.

    Raises:
        UserError: it is missing, in no known format, cannot be read, or does not serve the task.
    """
    if not path.exists():
        folders.require_folder(path)
    if format == "auto":
        found = recognise_scenes(path, task)
        if found is None:
            wanted = MASK_FORMATS if task == "segment" else SCENE_FORMATS[:4] if task else SCENE_FORMATS
            options = "; ".join(_EXPECTED[name] for name in wanted)
            raise UserError(f"{path} is in no format of annotations that is known. Expected one of: {options}.")
        format, path = found
    elif not _KNOWS[format](path):
        raise UserError(f"{path} is not in the format {format!r}. Expected {_EXPECTED[format]}.")
    source = _MASK_READERS[format](path) if format in _MASK_READERS else _READERS[format](path, lenient)
    if task is not None:
        _require_served(source, task)
    return source


def _require_served(source: SceneSource, task: str) -> None:
    if isinstance(source, MaskSource) and task != "segment":
        raise UserError(
            f"{source.name} ({source.format}) has a class for every pixel but no objects, which --task {task} needs. "
            "Use --task segment, or give data in COCO's, VOC's or YOLO's format."
        )
    if isinstance(source, ObjectSource) and task == "segment":
        raise UserError(
            f"{source.name} ({source.format}) has objects but no class for every pixel, which --task segment needs. "
            f"Use --task {'instances' if source.has_masks else 'detect'}, or give masks: {_EXPECTED['pairs']}."
        )
    if isinstance(source, ObjectSource) and task == "instances" and not source.has_masks:
        raise UserError(
            f"{source.name} ({source.format}) has boxes but no masks, which --task instances needs. Use --task detect, "
            "or give COCO with polygons, YOLO with outlines, or one mask file an object."
        )


def open_scenes(
    source: str | os.PathLike[str], task: str, val: str | os.PathLike[str] | None, seed: int,
    val_fraction: float | None, format: str, max_pixels: int,
) -> SceneBundle:  # fmt: skip
    """`sources.open_data` for the tasks detect, instances and segment."""
    if is_digits(source, format):
        return open_digit_scenes(task, val, seed)
    path = folders.user_path(source)
    found = read_scenes(path, task, format)
    held = given_val(found, task, val, path) if val is not None else None
    return _open(found, held, val, task, found.classes, seed, val_fraction, max_pixels)


def _open(
    found: SceneSource, held: SceneSource | None, val: str | os.PathLike[str] | None, task: str,
    classes: tuple[str, ...], seed: int, val_fraction: float | None, max_pixels: int,
) -> SceneBundle:  # fmt: skip
    _require_training(found, classes)
    notes = [
        f"the {part} part of {found.name} lists no images and is left out"
        for part, records in found.parts.items()
        if part in ("val", "test") and not records
    ]

    def masks(source: MaskSource, records: Sequence[MaskRecord]) -> MaskSplit:
        split, left_out = to_mask_split(source, records, classes, max_pixels)
        notes.extend(left_out)
        return split

    def objects(source: ObjectSource, records: Sequence[Record]) -> ObjectSplit:
        split, left_out = to_split(source, records, classes, task == "instances", max_pixels)
        notes.extend(left_out)
        return split

    if isinstance(found, MaskSource):
        maps = {part: masks(found, records) for part, records in found.parts.items() if records}
        if isinstance(held, MaskSource):
            maps["val"] = masks(held, _listed(held))
        return _bundle(found, maps, classes, val, task, seed, val_fraction, notes)
    parts = {part: objects(found, records) for part, records in found.parts.items() if records}
    if isinstance(held, ObjectSource):
        parts["val"] = objects(held, _listed(held))
    return _bundle(found, parts, classes, val, task, seed, val_fraction, notes)


def _require_training(found: SceneSource, classes: Sequence[str]) -> None:
    """Raises UserError when there is no training part, no image in it, or no class."""
    images = len(found.parts.get("train", found.parts.get("", ())))
    if not images and ("train" in found.parts or "" in found.parts):
        came = f"{'its training part' if 'train' in found.parts else 'it'} lists none ({found.how})"
        raise UserError(f"{found.name} has no images to train on: {came}. Expected at least two; add their entries.")
    if not images:
        has = " and ".join(part for part, records in found.parts.items() if records) or "nothing"
        raise UserError(f"{found.name} has no images to train on: {found.how} hold {has} only. Add a training part.")
    if not classes and found.format == "coco":
        raise UserError(
            f"{found.name} has no classes: the list of categories is empty ({found.how}). Expected an entry with an id "
            "and a name for each class; export the annotations again with them."
        )
    if not classes:
        raise UserError(f"{found.name} has no object to train on in its {images} training images. Add some.")


def _listed(source: SceneSource) -> tuple[Any, ...]:
    """What to validate on of the data set that --val names.

    Raises:
        UserError: it lists no image.
    """
    parts: dict[str, tuple[Any, ...]] = dict(source.parts)
    records = to_validate(parts)
    if not records:
        raise UserError(
            f"{source.name}, given with --val, lists no images ({source.how}). Add their entries, or leave out --val."
        )
    return records


def is_digits(source: str | os.PathLike[str], format: str) -> bool:
    """Whether the embedded scenes are meant."""
    return format == "digits" or (format == "auto" and str(source) == "digits" and not Path("digits").exists())


def to_validate(parts: dict[str, tuple[AnyRecord, ...]]) -> tuple[AnyRecord, ...]:
    """What to validate on when a data set is named with --val: its validation part, or all of it."""
    return parts.get("val") or tuple(record for records in parts.values() for record in records)


def given_val(
    found: SceneSource, task: str, val: str | os.PathLike[str], path: Path
) -> ObjectSource | MaskSource | None:
    """The other data set that --val names, or None when it names a part of `found`, which was read from `path`.

    Raises:
        UserError: it names neither.
    """
    if str(val) in found.parts and str(val) in ("val", "test"):
        return None
    place = folders.user_path(val)
    inside = path / place
    if not place.exists() and not inside.exists():
        has = ", ".join(name for name in found.parts if name) or "no named parts"
        raise UserError(f"--val {val} is neither a part of {found.name} (it has {has}) nor a file or folder.")
    return read_scenes(inside if inside.exists() else place, task)


def _bundle(
    found: SceneSource, parts: dict[str, AnySplit], classes: tuple[str, ...], val: str | os.PathLike[str] | None,
    task: str, seed: int, val_fraction: float | None, notes: list[str],
) -> DataBundle[AnySplit]:  # fmt: skip
    train = parts["train" if "train" in parts else ""]
    test, how = parts.get("test"), found.how
    if val is not None and str(val) == "test" and test is not None:
        held, test, how = test, None, f"{how}; validating on the test part"
    elif "val" in parts:
        held = parts["val"]
        if val is not None and str(val) != "val":
            how = f"{how}; validating on {Path(val).name}"
    else:
        share = val_fraction if val_fraction is not None else (0.1 if len(train) >= 10_000 else 0.2)
        train, held = hold_out(train, share, seed, len(classes))
        how = f"{how}; {len(held)} images ({share:g}) held out by image with seed {seed}"
    if isinstance(train, ObjectSplit) and not any(len(objects) for objects in train.objects):
        raise UserError(f"{found.name} has no object to train on in its {len(train)} training images. Add some.")
    if isinstance(train, ObjectSplit) and isinstance(held, ObjectSplit):
        notes = notes + _empty_notes(train, held, classes)
    grey, side = peek(train.images)
    size = min(side or _LARGEST_DEFAULT, _LARGEST_DEFAULT)
    channels = 1 if grey else 3
    return DataBundle(found.name, classes, train, held, test, channels, size, how, seed, tuple(notes), task)


def _empty_notes(train: ObjectSplit, val: ObjectSplit, classes: Sequence[str]) -> list[str]:
    notes = []
    empty = sum(len(objects) == 0 for objects in train.objects)
    if empty:
        notes.append(f"{empty} training image{'s have' if empty > 1 else ' has'} no objects")
    for name, split in (("training", train), ("validation", val)):
        seen = {int(label) for objects in split.objects for label in objects.labels}
        lacking = [label for index, label in enumerate(classes) if index not in seen]
        if lacking:
            notes.append(f"no {name} object of {', '.join(lacking[:5])}{' and others' if len(lacking) > 5 else ''}")
    return notes


def open_scene_split(
    source: str | os.PathLike[str], task: str, split: str, classes: Sequence[str] | None, seed: int,
    val_fraction: float | None, format: str, max_pixels: int,
) -> tuple[ObjectSplit | MaskSplit, tuple[str, ...], str]:  # fmt: skip
    """`sources.open_split` for the tasks detect, instances and segment."""
    if not is_digits(source, format):
        path = folders.user_path(source)
        found = read_scenes(path, task, format)
        unsplit = "" in found.parts
        part = split
        if split == "auto":
            part = "" if unsplit else next((name for name in ("test", "val", "train") if name in found.parts), "train")
        elif split == "all":
            if not unsplit:
                raise UserError(f"{source} is already split; evaluate on one of {', '.join(found.parts)}.")
            part = ""
        if part in found.parts and not (part == "train" and "val" not in found.parts):
            names = tuple(classes) if classes is not None else found.classes
            what = f"the {part or 'whole'} part of {found.name} ({found.how})"
            if not found.parts[part]:
                raise UserError(f"{what} lists no images. Add their entries, or evaluate on other data.")
            if isinstance(found, MaskSource):
                return to_mask_split(found, found.parts[part], names, max_pixels)[0], names, what
            return to_split(found, found.parts[part], names, task == "instances", max_pixels)[0], names, what
        bundle = _open(found, None, None, task, tuple(classes or found.classes), seed, val_fraction, max_pixels)
    else:
        bundle = open_digit_scenes(task, None, seed)
        if classes is not None and tuple(classes) != bundle.classes:
            raise UserError(f"the network was trained on {', '.join(classes[:6])}, …; 'digits' has other classes.")
    splits: dict[str, Any] = dict(bundle.splits())
    name = ("test" if "test" in splits else "val") if split == "auto" else split
    if name not in splits:
        raise UserError(f"{source} has no {name} split; it has {', '.join(splits)}.")
    return splits[name], bundle.classes, f"the {name} split of {bundle.name} ({bundle.how})"
