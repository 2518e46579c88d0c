"""From what the user names (a folder, a file, "digits") to a `DataBundle`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from resurge.data import cifar, digits, folders, idx, scene_sources, tables
from resurge.data.bundle import ArrayImages, DataBundle, Split, describe, hold_out, peek
from resurge.data.images import MAX_PIXELS
from resurge.data.scenes import ObjectSplit
from resurge.errors import UserError, suggest

FORMATS = ("auto", "digits", "folder", "csv", "cifar", "idx")
"""Of classification; the other tasks' are `scene_sources.SCENE_FORMATS`."""


def open_data(
    source: str | os.PathLike[str],
    *,
    task: str = "classify",
    val: str | os.PathLike[str] | None = None,
    seed: int = 0,
    val_fraction: float | None = None,
    format: str = "auto",
    max_pixels: int = MAX_PIXELS,
) -> DataBundle:
    """Open a data set; images are decoded when they are read.

    Args:
        source: "digits", scikit-learn's 1,797 handwritten digits: by themselves, or composed to scenes. Else, to
            classify: a folder with train/ and val/ or test/, each with one subfolder a class; a folder of class
            folders; a CSV with the columns path, label and perhaps split; a folder or .tar.gz of CIFAR-10 or CIFAR-100
            in their original files; a folder of Fashion-MNIST's idx files. To detect or find instances: a folder or
            file in COCO's, Pascal VOC's or YOLO's format, or with one mask file an object. To segment: a folder of
            images and masks, as pairs or in CamVid's, ADE20K's or Pascal VOC's layout.
        task: "classify", "detect", "instances" or "segment"; decides what the splits of the bundle are.
        val: where the validation images are when `source` has none or others are wanted: a folder of class folders, a
            subfolder's name, a CSV, another data set of the same task, or "test" to validate on the published test
            split. None: what `source` has, else a share of each training class (without classes of images: of all
            images) chosen by `seed`.
        seed: of that choice; has no effect when the source has validation images.
        val_fraction: share of the training images to hold out; None means 0.2, and 0.1 from 10,000 images on.
        format: one of `FORMATS`, or of `scene_sources.SCENE_FORMATS`, when "auto" guesses wrongly.
        max_pixels: largest image that will be decoded.

    Raises:
        UserError: the source is missing, empty, of an unknown kind or inconsistent; the message says what to do.
    """
    if val_fraction is not None and not 0 < val_fraction < 1:
        raise UserError(f"the validation fraction is {val_fraction}; it must lie between 0 and 1, for example 0.2.")
    path = folders.user_path(source)
    scene_sources.require_task(task)
    if task != "classify":
        _require_format(format, scene_sources.SCENE_FORMATS, task)
        return scene_sources.open_scenes(source, task, val, seed, val_fraction, format, max_pixels)
    kind, original = recognise(source, format)
    try:
        bundle = _build(kind, original, path, val, seed, val_fraction, max_pixels)
    except UserError as error:
        hint = _other_task(kind, path)
        if not hint:
            raise
        raise UserError(f"{error} It {hint}.") from error
    hint = _other_task(kind, path)
    return replace(bundle, notes=(*bundle.notes, f"{bundle.name} {hint}")) if hint else bundle


def _other_task(kind: str, path: Path) -> str:
    """Which task a folder seems to be meant for, when it is not to classify; else an empty string."""
    found = scene_sources.recognise_scenes(path) if kind == "folder" else None
    if found is None:
        return ""
    tasks = "segment" if found[0] in scene_sources.MASK_FORMATS else "detect or --task instances"
    return f"looks like data in the format {found[0]}, for --task {tasks}"


def _build(
    kind: str, original: cifar.Original | None, path: Path, val: str | os.PathLike[str] | None, seed: int,
    val_fraction: float | None, max_pixels: int,
) -> DataBundle:  # fmt: skip
    if kind == "digits":
        bundle = digits.open_digits(val, seed)
    elif original is not None:
        bundle = _original(original, val, seed, val_fraction)
    elif kind == "csv":
        bundle = _csv(path, val, seed, val_fraction, max_pixels)
    else:
        bundle = _folder(path, val, seed, val_fraction, max_pixels)
    _require_usable(bundle)
    return bundle


def open_split(
    source: str | os.PathLike[str],
    *,
    task: str = "classify",
    split: str = "auto",
    classes: Sequence[str] | None = None,
    seed: int = 0,
    val_fraction: float | None = None,
    format: str = "auto",
    max_pixels: int = MAX_PIXELS,
) -> tuple[Any, tuple[str, ...], str]:
    """Images to evaluate on: (split, class names, sentence that says which images these are).

    `split` is "train", "val", "test", "all", or "auto": the test images if there are any, else the validation images
    the source brings, else, for a source that is not split, all its images. With `classes` (those of a trained
    network) labels are indices into them and the source may lack some; without, the classes are the source's own.

    Raises:
        UserError: as `open_data`; or the source has a class that `classes` lacks, or not the wanted split.
    """
    options = ("auto", "train", "val", "test", "all")
    if split not in options:
        raise UserError(f"unknown split {split!r}; use one of {', '.join(options)}.{suggest(split, options)}")
    path = folders.user_path(source)
    scene_sources.require_task(task)
    if task != "classify":
        _require_format(format, scene_sources.SCENE_FORMATS, task)
        return scene_sources.open_scene_split(source, task, split, classes, seed, val_fraction, format, max_pixels)
    kind, original = recognise(source, format)
    if kind == "folder":
        found = folders.split_folders(path)
        name = _wanted_part(split, found)
        if name == "" or name in found:
            below = found[name] if name else ""
            listing = folders.list_classes(path, below)
            names = tuple(classes) if classes else tuple(sorted(listing.files))
            what = f"the images of {(path / below).resolve().name}/"
            return folders.to_split(listing, names, str(path / below), max_pixels), names, what
    elif kind == "csv":
        rows = tables.read_table(path, check_files=False)
        name = _wanted_part(split, {row.split for row in rows} - {""})
        names = tuple(classes) if classes else tables.class_names(path, rows)
        chosen = tuple(row for row in rows if row.split == name or not name)
        if chosen:
            tables.require_files(path, chosen)
            what = f"the {name or 'whole'} split of {path.name}"
            return tables.to_split(path, chosen, names, max_pixels), names, what
    bundle = _build(kind, original, path, None, seed, val_fraction, max_pixels)
    if classes is not None:
        bundle = _relabel(bundle, tuple(classes))
    splits = bundle.splits()
    if split == "all":
        raise UserError(f"{source} is already split; evaluate on one of {', '.join(splits)}.")
    name = split if split != "auto" else ("test" if "test" in splits else "val")
    if name not in splits:
        raise UserError(f"{source} has no {name} split; it has {', '.join(splits)}.")
    return splits[name], bundle.classes, f"the {name} split of {bundle.name} ({bundle.how})"


def _wanted_part(split: str, found: Sequence[str] | set[str] | dict[str, str]) -> str:
    """Name of the part to open; "" for everything."""
    if split == "all" or (split == "auto" and not found):
        return ""
    return split if split != "auto" else next((name for name in ("test", "val", "train") if name in found), "train")


def _require_format(format: str, formats: Sequence[str], task: str) -> None:
    options = ("auto", *formats) if "digits" in formats else ("auto", "digits", *formats)
    if format not in options:
        names = ", ".join(options)
        raise UserError(
            f"unknown data format {format!r} of the task {task}; use one of {names}.{suggest(format, options)}"
        )


def recognise(source: str | os.PathLike[str], format: str = "auto") -> tuple[str, cifar.Original | None]:
    """Which of `FORMATS` a source is in, and its content if it is a data set in original files.

    Raises:
        UserError: it is missing, or in no known format.
    """
    _require_format(format, FORMATS[1:], "classify")
    text, path = str(source), folders.user_path(source)
    if format == "digits" or (format == "auto" and text == "digits" and not path.exists()):
        return "digits", None
    if format == "csv" or (format == "auto" and path.suffix.lower() in (".csv", ".tsv")):
        return "csv", None
    if not path.exists():
        folders.require_folder(path)
    if format in ("auto", "cifar"):
        found = cifar.find_cifar(path)
        if found is not None:
            return "cifar", cifar.read_cifar(*found)
    if format in ("auto", "idx") and path.is_dir():
        files = idx.find_idx(path)
        if files is not None:
            return "idx", idx.read_idx_dataset(files)
    if format in ("cifar", "idx"):
        wanted = "data_batch_1 (CIFAR-10), train (CIFAR-100)" if format == "cifar" else "train-images-idx3-ubyte.gz"
        raise UserError(f"{path} has none of the original files that format {format!r} reads, such as {wanted}.")
    if path.is_file():
        raise UserError(
            f"{path} is a file that is not understood; expected a folder of images, a .csv, or an original CIFAR "
            ".tar.gz. Unpack other archives first."
        )
    return "folder", None


def _original(
    data: cifar.Original, val: str | os.PathLike[str] | None, seed: int, val_fraction: float | None
) -> DataBundle:
    images = data.train.images
    if not isinstance(images, ArrayImages):
        raise TypeError("original data sets are held in memory")
    channels = 1 if images.pixels.ndim == 3 else 3
    side = images.pixels.shape[1]
    if val is not None:
        if str(val) != "test":
            raise UserError(f"{data.name} has a training and a test part; --val can only be 'test', not {str(val)!r}.")
        how = "the published training split; validating on the published test split"
        return DataBundle(data.name, data.classes, data.train, data.test, None, channels, side, how, seed)
    train, held, sentence = _hold_out(data.train, val_fraction, seed, len(data.classes))
    how = f"{sentence} of the published training split; the published test split for testing"
    return DataBundle(data.name, data.classes, train, held, data.test, channels, side, how, seed)


def _csv(
    file: Path, val: str | os.PathLike[str] | None, seed: int, val_fraction: float | None, max_pixels: int
) -> DataBundle:
    rows = tables.read_table(file)
    parts = {name: tuple(row for row in rows if row.split == name) for name in ("train", "val", "test", "")}
    train_rows = parts["train"] + parts[""]  # a table either has a split column, filled in each line, or has none
    if not train_rows:
        raise UserError(f"{file} has no training images: no line has the split 'train'.")
    classes = tables.class_names(file, train_rows)
    train = tables.to_split(file, train_rows, classes, max_pixels)
    _require_several(classes, len(train), str(file))
    test = tables.to_split(file, parts["test"], classes, max_pixels) if parts["test"] else None
    if val is not None and str(val) == "test" and test is not None:
        held, test, how = test, None, f"training and, for validation, test lines of {file.name}"
    elif val is not None:
        other = folders.user_path(val)
        held = tables.to_split(other, tables.read_table(other), classes, max_pixels)
        how = f"training lines of {file.name}, validation from {other.name}"
    elif parts["val"]:
        held = tables.to_split(file, parts["val"], classes, max_pixels)
        how = f"the split column of {file.name}"
    else:
        train, held, sentence = _hold_out(train, val_fraction, seed, len(classes))
        how = f"{sentence} of the training lines of {file.name}"
    return _with_peek(file.stem, classes, train, held, test, how, seed, ())


def _folder(
    root: Path, val: str | os.PathLike[str] | None, seed: int, val_fraction: float | None, max_pixels: int
) -> DataBundle:
    found = folders.split_folders(root)
    if found and "train" not in found:
        here = ", ".join(f"{name}/" for name in found.values())
        raise UserError(f"{root} has {here} but no train/. Add train/ with one subfolder a class.")
    listing = folders.list_classes(root, found.get("train", ""))
    place, label = str(root / found.get("train", "")), root.resolve().name
    classes = folders.require_full_classes(listing, place)
    train = folders.to_split(listing, classes, place, max_pixels)
    _require_several(classes, len(train), place)
    ignored = list(listing.ignored)

    def part(name: str) -> Split:
        other = folders.list_classes(root, name)
        ignored.extend(other.ignored)
        return folders.to_split(other, classes, str(root / name), max_pixels)

    test, inside = part(found["test"]) if "test" in found else None, ""
    if val is not None:
        held, inside = _given_val(root, folders.user_path(val), classes, max_pixels)
        if inside == found.get("test"):
            test = None
        where = f"{inside}/ of {label}" if inside else Path(val).name
        how = f"training images from {found.get('train', label)}/, validation images from {where}"
    elif "val" in found:
        held = part(found["val"])
        how = f"the folders {', '.join(f'{name}/' for name in found.values())} of {label}"
    else:
        train, held, sentence = _hold_out(train, val_fraction, seed, len(classes))
        how = f"{sentence} of {found['train'] + '/' if found else label}"
        how += f"; {found['test']}/ for testing" if test else ""
    notes = []
    unused = [name for name in folders.subfolders(root) if name not in (*found.values(), inside)] if found else []
    if unused:
        notes.append(f"not used: {', '.join(f'{name}/' for name in unused)}")
    if ignored:
        what = f"{len(ignored)} files that are no images were" if len(ignored) > 1 else "1 file that is no image was"
        notes.append(f"{what} ignored, the first is {ignored[0]}")
    return _with_peek(label, classes, train, held, test, how, seed, tuple(notes))


def _given_val(root: Path, val: Path, classes: tuple[str, ...], max_pixels: int) -> tuple[Split, str]:
    """The validation images the user points at, and the subfolder of `root` they are in ("" when elsewhere)."""
    if val.suffix.lower() in (".csv", ".tsv"):
        return tables.to_split(val, tables.read_table(val), classes, max_pixels), ""
    inside = str(val) if len(val.parts) == 1 and (root / val).is_dir() else ""
    folder = root / val if inside else val
    folders.require_folder(folder)
    listing = folders.list_classes(root, inside) if inside else folders.list_classes(folder)
    return folders.to_split(listing, classes, str(folder), max_pixels), inside


def _hold_out(split: Split, fraction: float | None, seed: int, num_classes: int) -> tuple[Split, Split, str]:
    share = fraction if fraction is not None else (0.1 if len(split) >= 10_000 else 0.2)
    train, held = hold_out(split, share, seed, num_classes)
    return train, held, f"stratified split with seed {seed}: {len(held)} images ({share:g} of each class) held out"


def _with_peek(
    name: str, classes: tuple[str, ...], train: Split, val: Split, test: Split | None, how: str, seed: int,
    notes: tuple[str, ...],
) -> DataBundle:  # fmt: skip
    """A bundle whose channels and default size come from the headers of some training images."""
    grey, side = peek(train.images)
    side = 224 if side is None else side
    size = 224 if side >= 192 else max(32, side // 32 * 32)
    return DataBundle(name, classes, train, val, test, 1 if grey else 3, size, how, seed, notes)


def _relabel(bundle: DataBundle, classes: tuple[str, ...]) -> DataBundle:
    """The same bundle with labels that are indices into `classes`."""
    index = {name: i for i, name in enumerate(classes)}
    unknown = [name for name in bundle.classes if name not in index]
    if unknown:
        raise UserError(
            f"{bundle.name} has the class {unknown[0]!r}, which the network was not trained on "
            f"({', '.join(classes[:6])}{', …' if len(classes) > 6 else ''}).{suggest(unknown[0], classes)}"
        )

    def moved(split: Split) -> Split:
        return Split(split.ids, tuple(index[bundle.classes[label]] for label in split.labels), split.images)

    return DataBundle(
        bundle.name, classes, moved(bundle.train), moved(bundle.val), bundle.test and moved(bundle.test),
        bundle.in_channels, bundle.default_size, bundle.how, bundle.seed, bundle.notes,
    )  # fmt: skip


def _require_several(classes: tuple[str, ...], images: int, name: str) -> None:
    if len(classes) < 2:
        raise UserError(
            f"{name} has a single class, {classes[0]!r} ({images} image{'s' if images > 1 else ''}); "
            "a classifier needs two or more. Add other images, for example of the background, as a second class."
        )


def _require_usable(bundle: DataBundle) -> None:
    """Refuse to go without validation images; note classes that validation lacks."""
    if len(bundle.val) == 0:
        raise UserError(f"{bundle.name} has no validation images. Add some, or leave out --val to hold some out.")
    counts = bundle.val.counts(bundle.num_classes)
    missing = [name for name, count in zip(bundle.classes, counts, strict=True) if count == 0]
    if missing:
        note = f"no validation images of {', '.join(missing[:5])}{' and others' if len(missing) > 5 else ''}"
        object.__setattr__(bundle, "notes", (*bundle.notes, f"{note}: their accuracy will not be measured"))


def summary(bundle: DataBundle) -> list[str]:
    """Lines for the terminal: what was found, how it was split, and the notes."""
    lines = [f"{bundle.name}: {bundle.num_classes} classes, {bundle.how}"]
    for name, split in bundle.splits().items():
        if isinstance(split, Split):
            what = f", {describe(split.counts(bundle.num_classes))}"
        else:
            what = f", {sum(map(len, split.objects)):,} objects" if isinstance(split, ObjectSplit) else ""
        lines.append(f"  {name}: {len(split):,} images{what}")
    return lines + [f"  note: {note}" for note in bundle.notes]
