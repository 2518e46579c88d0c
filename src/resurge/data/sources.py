"""From what the user names (a folder, a file, "digits") to a `DataBundle` or a split of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from resurge.data.annotations import ANNOTATIONS, WORDS, Annotation, Words
from resurge.data.coding import Coding, Known
from resurge.data.formats import FORMATS
from resurge.data.formats.digits import read_digits
from resurge.data.formats.format import AnySource, Format
from resurge.data.images import ending
from resurge.data.label_source import LabelSource, MemorySource
from resurge.data.map_source import MaskSource
from resurge.data.object_source import ObjectSource
from resurge.data.paths import (
    ANNOTATION_FOLDERS,
    IMAGE_FOLDERS,
    PART_OF,
    Place,
    images_in,
    is_archive,
    part_of,
    require_folder,
    subfolders,
    user_path,
    walk,
)
from resurge.data.reading import AS_IT_IS, Reading
from resurge.data.records import MaskRecord
from resurge.data.source import AnnotatedSplit
from resurge.data.splits import DataBundle, ObjectSplit, Split, hold_out, peek, require_fraction
from resurge.errors import UserError, require_one_of
from resurge.quantities import number_of

_ANNOTATION_FILES = (".xml", ".json", ".csv", ".tsv", ".yaml", ".yml", ".txt")


def open_data(
    source: Place, *, annotation: Annotation = "labels", words: Words = WORDS, val: Place | None = None, seed: int = 0,
    val_fraction: float | None = None, reading: Reading = AS_IT_IS, known: Known | None = None,
) -> DataBundle[Any]:  # fmt: skip
    """Open a data set; images are decoded when they are read.

    Args:
        source: "digits", scikit-learn's 1,797 handwritten digits: by themselves, or composed to scenes. Else, for
            labels: a folder with train/ and val/ or test/, each with one subfolder per class; a folder of class
            folders; a CSV with the columns path, label and perhaps split; a folder or .tar.gz of CIFAR-10 or CIFAR-100
            in their original files; a folder of Fashion-MNIST's idx files. For boxes or masks: a folder or file in
            the format of COCO, Pascal VOC, YOLO, CVAT, Label Studio, LabelMe or Datumaro, a table of boxes, or one mask
            file per object. For maps: a folder of images and masks, as pairs or in CamVid's, ADE20K's or Pascal VOC's
            layout.
        annotation: what is needed of each image; decides what the splits of the bundle are.
        words: how messages call the choice of an annotation.
        val: where the validation images are when `source` has none or others are wanted: another data set of the same
            kind, a subfolder's name, or "test" to validate on the published test split. None: what `source` has, else
            a share of each training class (without classes of images: of all images) chosen by `seed`.
        seed: of that choice; has no effect when the source has validation images.
        val_fraction: share of the training images to hold out; None means 0.2, and 0.1 from 10,000 images on.
        reading: what the user says about the data, where its files leave it open; also holds for `val`.
        known: the classes of a network that is trained already, and what the values of masks mean to it.

    Raises:
        UserError: the source is missing, empty, of an unknown kind or inconsistent; the message says what to do.
    """
    if val_fraction is not None:
        require_fraction(val_fraction)
    hint = _other_annotation(user_path(source), words) if annotation == "labels" else ""
    try:
        found = read_source(source, annotation, words, reading, known)
        held = None if val is None else given_val(found, annotation, val, user_path(source), words, reading)
        return make_bundle(found, annotation, held, val, seed, val_fraction, hint=hint)
    except UserError as error:
        more = f" It {hint}." if hint else strange_annotations(user_path(source)) if annotation == "labels" else ""
        raise UserError(f"{error}{more}") from error


def _other_annotation(path: Path, words: Words) -> str:
    """What data look like that do not seem to be meant for labels; else an empty string."""
    found = recognise(path) if path.exists() else None
    return "" if found is None else f"looks like {_purpose(found[0], words)}"


def _purpose(format: Format, words: Words) -> str:
    meant = " or ".join(words[annotation] for annotation in format.annotations)
    return f"data in the format {format.name}, for {meant}"


def purposes(path: Path, found: AnySource, words: Words) -> tuple[str, list[str]]:
    """What a data set that was read without a wish is for, as the end of a sentence; and what its folder may be
    besides, each as the end of "the folder also"."""
    kinds: tuple[Annotation, ...] = ("labels",)
    if isinstance(found, MaskSource):
        kinds = ("maps",)
    elif isinstance(found, ObjectSource):
        kinds = ("boxes", "masks") if found.has_masks else ("boxes",)
    used = FORMATS.get(found.format)
    others = [f"looks like {_purpose(each, words)}" for each in FORMATS.values()
              if each is not used and "labels" not in each.annotations and each.recognise(found.root)
              and used is not None and not set(each.annotations) & set(used.annotations)]  # fmt: skip
    masks = {
        step for record in found.records if isinstance(record, MaskRecord) for step in (record.mask or "").split("/")
    }
    classes = [name for name in class_folders(path) if name not in masks] if kinds != ("labels",) else []
    if len(classes) > 1:
        others.append(f"has folders that may be classes ({_first(classes)}), for {words['labels']}")
    named = f" in the format {found.format}" if used is not None else ""
    return f"{' and '.join(kinds)}{named}, for {' or '.join(words[kind] for kind in kinds)}", others


def class_folders(path: Path) -> list[str]:
    """The subfolders, in parts or not, that hold images and have no name of a layout's."""
    layout = {*IMAGE_FOLDERS, *ANNOTATION_FOLDERS}
    places = [path] if path.is_dir() else []
    places += [path / name for place in places for name in subfolders(place) if name.lower() in PART_OF]
    names = {
        name for place in places for name in subfolders(place)
        if name.lower() not in layout and not part_of(name)
        and images_in(place / name)
    }  # fmt: skip
    return sorted(names) if len(names) > 1 else []


def strange_annotations(path: Path) -> str:
    """A sentence on files in a folder that may be annotations in no known format; empty when there are none."""
    if not path.is_dir():
        return ""
    names = (name for name in walk(path, "") if ending(name) in _ANNOTATION_FILES)
    files = [name for name in names if not Path(name).name.lower().startswith((".", "__", "readme", "licen"))]
    if not files:
        return ""
    are = number_of(len(files), "file that may be annotations", "files that may be annotations")
    expected = "; ".join(each.expected for each in FORMATS.values() if "labels" not in each.annotations)
    return (
        f" {path.name} has {are}, such as {min(files)}, in no format that is known ({expected}). Name a table of "
        "labels as the data, or export annotations again, for example as COCO."
    )


def open_split(
    source: Place, *, annotation: Annotation = "labels", words: Words = WORDS, split: str = "auto",
    classes: Sequence[str] | None = None, seed: int = 0, val_fraction: float | None = None,
    reading: Reading = AS_IT_IS, coding: Coding | None = None,
) -> tuple[AnnotatedSplit, tuple[str, ...], str]:  # fmt: skip
    """Images to evaluate on: (split, class names, sentence that says which images these are).

    `split` is "train", "val", "test", "all", or "auto": the test images if there are any, else the validation images
    the source brings, else, for a source that is not split, all its images. With `classes` (those of a trained
    network) labels are indices into them and the source may lack some; without, the classes are the source's own.
    `coding` is what the network takes the values of masks for that come without names.

    Raises:
        UserError: as `open_data`; or the source has a class that `classes` lacks, or not the wanted split.
    """
    require_one_of("split", split, ("auto", "train", "val", "test", "all"))
    known = None if classes is None else Known(tuple(classes), coding)
    found = read_source(source, annotation, words, reading, known)
    found.require_sound()
    whole = "" in found.sizes
    if split == "all" and not whole:
        if not isinstance(found, LabelSource):
            raise UserError(f"{source} is already split; evaluate on one of {', '.join(found.sizes)}.")
        found, whole = found.whole(), True
    part = "" if whole else next((name for name in ("test", "val", "train") if name in found.sizes), "train")
    part = part if split in ("auto", "all") else split
    # Where validation images are held out, those that are left to train on are the training part.
    if part in found.sizes and (isinstance(found, LabelSource) or part != "train" or "val" in found.sizes):
        which = f"the {part} split" if part else "all images"
        what = f"{which} of {found.name} ({found.how})"
        if not found.sizes[part]:
            raise UserError(f"{what} lists no images. Add their entries, or evaluate on other data.")
        names = tuple(classes) if classes is not None else found.classes_of(part)
        return found.part(part, names, annotation)[0], names, what
    names = tuple(classes or found.classes)
    bundle = make_bundle(found, annotation, None, None, seed, val_fraction, names)
    name = split if split != "auto" else ("test" if bundle.test is not None else "val")
    if name not in bundle.splits():
        raise UserError(f"{source} has no {name} split; it has {', '.join(bundle.splits())}.")
    return bundle.splits()[name], bundle.classes, f"the {name} split of {bundle.name} ({bundle.how})"


def read_source(
    source: Place, annotation: Annotation | None, words: Words = WORDS, reading: Reading = AS_IT_IS,
    known: Known | None = None,
) -> AnySource:  # fmt: skip
    """The records of a data set that has this kind of annotation; of any kind but labels when None. `known` is what a
    trained network, or the training part, knows of its classes. Raises UserError when it is missing, in no known
    format, cannot be read, or has no such annotations."""
    if annotation is not None:
        require_one_of("annotation", annotation, ANNOTATIONS)
    if is_digits(source):
        return read_digits(annotation or "labels").with_classes(reading, known, words)
    path = user_path(source)
    if not path.exists() and not (annotation == "labels" and FORMATS["csv"].recognise(path)):
        require_folder(path)
    recognised = recognise(path, annotation)
    if is_archive(path) and (recognised is None or "labels" not in recognised[0].annotations):
        raise UserError(f"{path} is an archive. Unpack it, and name the folder as the data.")
    if recognised is None:
        labels = recognise(path, "labels") if annotation not in (None, "labels") else None
        is_labelled = labels is not None and (labels[0].name != "folder" or bool(class_folders(path)))
        hint = f" It looks like {_purpose(labels[0], words)}." if labels is not None and is_labelled else ""
        served = (each for each in FORMATS.values()
                  if (annotation in each.annotations if annotation else "labels" not in each.annotations))  # fmt: skip
        expected = "; ".join(each.expected for each in served)
        raise UserError(f"{path} is in no format of annotations that is known. Expected one of: {expected}.{hint}")
    format, place = recognised
    found = format.read(place)
    if annotation is not None:
        _require_served(found, annotation, words)
    found = found.located().kept_inside().with_classes(reading, known, words).reviewed(reading)
    is_listed = isinstance(found, (ObjectSource, MaskSource)) and not found.unused
    return found if not is_listed else replace(found, unused=_unread_parts(found))


def _unread_parts(found: AnySource) -> tuple[str, ...]:
    """Folders of images that are called training, validation or test, and of which the annotations name none."""
    named = {Path(record.name).parent.as_posix() + "/" for record in found.records}
    folders = [*subfolders(found.root), *(f"images/{name}" for name in _subfolders(found.root / "images"))]
    return tuple(
        folder for folder in folders
        if part_of(Path(folder).name) and not any(name.startswith(f"{folder}/") for name in named)
        and images_in(found.root / folder)
    )  # fmt: skip


def _subfolders(folder: Path) -> list[str]:
    return subfolders(folder) if folder.is_dir() else []


def _formats(annotation: Annotation | None) -> list[Format]:
    """The formats to try, in order: those of the kind first, then those that may be taken for it."""
    served = [each for each in FORMATS.values() if ("labels" in each.annotations) == (annotation == "labels")]
    served.sort(key=lambda each: not each.particular)
    return sorted(served, key=lambda each: annotation == "maps" and "maps" not in each.annotations)


def recognise(path: Path, annotation: Annotation | None = None) -> tuple[Format, Path] | None:
    """(format, folder or file) of a data set, or None. Without an annotation, formats of labels are not looked for.

    The folder is `path`, or, but for labels, the only one of its subfolders that is in such a format.
    """
    names = subfolders(path) if path.is_dir() and annotation != "labels" else []
    places = (path, path / names[0]) if len(names) == 1 else (path,)
    found = ((each, place) for place in places for each in _formats(annotation) if each.recognise(place))
    return next(found, None)


def _require_served(found: AnySource, annotation: Annotation, words: Words) -> None:
    if isinstance(found, MaskSource) and annotation != "maps":
        has = "a class for every pixel but no objects"
        use = f"{words['maps']}, or give data in COCO's, VOC's or YOLO's format"
    elif isinstance(found, ObjectSource) and annotation == "maps":
        has = "objects but no class for every pixel"
        kind: Annotation = "masks" if found.has_masks else "boxes"
        use = f"{words[kind]}, or give masks: {FORMATS['pairs'].expected}"
    elif isinstance(found, ObjectSource) and annotation == "masks" and not found.has_masks:
        has = "boxes but no masks"
        use = f"{words['boxes']}, or give COCO with polygons, YOLO with outlines, or one mask file per object"
    else:
        return
    raise UserError(f"{found.name} ({found.format}) has {has}, which {words[annotation]} needs. Use {use}.")


def is_digits(source: Place) -> bool:
    """Whether the embedded images are meant."""
    return str(source) == "digits" and not Path("digits").exists()


def given_val(
    found: AnySource, annotation: Annotation, val: Place, path: Path, words: Words, reading: Reading
) -> AnySource | None:
    """The other data set that --val names, as its part "val", or None when it names a part of `found`, which was read
    from `path`. Raises UserError when it names neither, or lists no images."""
    if str(val) in found.sizes and str(val) in ("val", "test"):
        return None
    if isinstance(found, MemorySource):
        raise UserError(f"{found.name!r} has its own split; --val can only be 'test', not {str(val)!r}. Leave it out.")
    place = user_path(val)
    is_inside = (path / place).exists() and not place.is_absolute()
    if not place.exists() and not is_inside:
        has = ", ".join(name for name in found.sizes if name) or "no named parts"
        raise UserError(f"--val {val} is neither a part of {found.name} (it has {has}) nor a file or folder.")
    known = Known(found.classes, found.coding if isinstance(found, MaskSource) else None)
    held = read_source(path / place if is_inside else place, annotation, words, reading, known).validation()
    if not held.sizes.get("val"):
        raise UserError(f"{held.name}, given with --val, lists no images ({held.how}). Add some, or leave out --val.")
    return held.moved(found.root) if is_inside else held


def make_bundle(
    found: AnySource, annotation: Annotation, held: AnySource | None = None, val: Place | None = None, seed: int = 0,
    val_fraction: float | None = None, classes: tuple[str, ...] | None = None, hint: str = "",
) -> DataBundle[Any]:  # fmt: skip
    """The splits of a data set, with validation images held out where it has none; `held` is what `val` names."""
    for each in (found, held):
        if each is not None:
            each.require_sound()
    _require_training(found)
    classes = found.classes if classes is None else classes
    notes = [
        f"the {part} part of {found.name} lists no images and is left out"
        for part, count in found.sizes.items() if part in ("val", "test") and not count
    ]  # fmt: skip
    parts: dict[str, Split] = {}
    sources = {part: found for part, count in found.sizes.items() if count} | ({"val": held} if held else {})
    for part, each in sources.items():
        split, left_out = each.part(part, classes, annotation)
        parts[part] = cast(Split, split)  # all of one kind, whatever it is
        notes += left_out
    train, test, how = parts["train" if "train" in parts else ""], parts.get("test"), found.how
    if val is not None and str(val) == "test" and test is not None:
        validation, test, how = test, None, f"{how}; validating on the test part"
    elif "val" in parts:
        validation = parts["val"]
        if held is not None:
            how = f"{how}; validating on {Path(str(val)).name}"
    else:
        share = val_fraction if val_fraction is not None else (0.1 if len(train) >= 10_000 else 0.2)
        train, validation = hold_out(train, share, seed, len(classes))
        means = f"{share:g} of each class) held out" if annotation == "labels" else f"{share:g}) held out by image"
        how = f"{how}; {number_of(len(validation), 'image')} ({means} with seed {seed}"
    used = None if val is None else Path(str(val)).name
    notes += [note for each in (found, held) if each is not None for note in each.notes]
    notes += _other_files(found, used) + _class_notes(found.name, train, validation, classes)
    notes += [f"{found.name} {hint}"] if hint else []
    bands, depth, side = peek(*(split.images for split in (train, validation, test) if split is not None))
    size = found.default_size(side)
    return DataBundle(found.name, classes, train, validation, test, bands, size, how, seed,
                      tuple(notes), annotation, depth, found.values)  # fmt: skip


def _require_training(found: AnySource) -> None:
    """Raises UserError when there is no training part, no image in it, or too few classes."""
    sizes = found.sizes
    images = sizes.get("train", sizes.get("", 0))
    if not images and ("train" in sizes or "" in sizes):
        came = f"{'its training part' if 'train' in sizes else 'it'} lists none ({found.how})"
        raise UserError(f"{found.name} has no images to train on: {came}. Expected at least two; add their entries.")
    if not images:
        has = " and ".join(part for part, count in sizes.items() if count) or "nothing"
        raise UserError(f"{found.name} has no images to train on: {found.how} hold {has} only. Add a training part.")
    if isinstance(found, LabelSource) and len(found.classes) < 2:
        raise UserError(
            f"{found.name} has a single class, {found.classes[0]!r} ({number_of(images, 'image')}); a "
            "classifier needs two or more. Add other images, for example of the background, as a second class."
        )
    if not found.classes and found.format == "coco":
        raise UserError(
            f"{found.name} has no classes: the list of categories is empty ({found.how}). Expected an entry with an id "
            "and a name for each class; export the annotations again with them."
        )
    if not found.classes:
        raise UserError(f"{found.name} has no object to train on in its {images} training images. Add some.")


def _other_files(found: AnySource, val: str | None) -> list[str]:
    """Notes on folders and files that are not used; `val` is the folder that is validated on."""
    unused = ", ".join(f"{name}/" for name in found.unused if name != val)
    notes = [f"not used: {unused}"] if unused else []
    ignored = [path for finding in found.findings if finding.kind == "other-file" for path in finding.paths]
    if ignored:
        what = number_of(len(ignored), "file that is no image was", "files that are no images were")
        notes.append(f"{what} ignored, the first is {ignored[0]}")
    return notes


def _class_notes(name: str, train: AnnotatedSplit, val: AnnotatedSplit, classes: Sequence[str]) -> list[str]:
    """Notes on classes without images or objects. Raises UserError when there is no image to validate on, or no object
    to train on."""
    if not len(val):
        raise UserError(f"{name} has no validation images. Add some, or leave out --val to hold some out.")
    notes = []
    if isinstance(val, Split):
        missing = [label for label, count in zip(classes, val.counts(len(classes)), strict=True) if count == 0]
        if missing:
            notes.append(f"no validation images of {_first(missing)}: their accuracy will not be measured")
    if isinstance(train, ObjectSplit) and isinstance(val, ObjectSplit):
        if not any(map(len, train.objects)):
            raise UserError(f"{name} has no object to train on in its {len(train)} training images. Add some.")
        for part, split in (("training", train), ("validation", val)):
            if empty := sum(len(objects) == 0 for objects in split.objects):
                notes.append(f"{number_of(empty, f'{part} image has', f'{part} images have')} no objects")
        for part, split in (("training", train), ("validation", val)):
            seen = {int(label) for objects in split.objects for label in objects.labels}
            lacking = [label for index, label in enumerate(classes) if index not in seen]
            if lacking:
                notes.append(f"no {part} object of {_first(lacking)}")
    return notes


def _first(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}{' and others' if len(names) > 5 else ''}"
