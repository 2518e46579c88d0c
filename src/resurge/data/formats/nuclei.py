"""One mask file an object: <id>/images/<id>.png with <id>/masks/*.png, the layout of the 2018 Data Science Bowl."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from resurge.data.findings import Finding
from resurge.data.formats.format import Format
from resurge.data.images import UnreadableImage, is_image_name
from resurge.data.index_images import read_object_mask
from resurge.data.mending import Mending
from resurge.data.paths import PART_OF, PARTS, is_hidden, subfolders
from resurge.data.records import Fault, ObjectSource, RawObject, Record, below, upright_size

CLASSES = ("nucleus",)


def is_nuclei(path: Path) -> bool:
    """Whether a folder has subfolders with images/ and masks/, or train/ with such ones."""
    return path.is_dir() and bool(_parts(path))


def _parts(path: Path) -> dict[str, str]:
    """Folders that hold image folders, by part; "" for `path` itself."""
    names = subfolders(path)
    found: dict[str, str] = {}
    for part, options in PARTS.items():
        for name in names:
            if part not in found and name.lower() in options and _holds(path / name):
                found[part] = name
    if not found and not any(name.lower() in PART_OF for name in names) and _holds(path):
        found[""] = ""
    return found


def _holds(folder: Path) -> bool:
    """Whether most of the first subfolders are an image's."""
    names = subfolders(folder)[:9]
    whole = [(folder / name / "images").is_dir() and (folder / name / "masks").is_dir() for name in names]
    return sum(whole) * 2 > len(names)


def read_nuclei(path: Path) -> ObjectSource:
    """The records of a folder of image folders. All masks are read, and kept as run lengths; masks that cannot be read
    are faults of their objects."""
    findings: list[Finding] = []
    parts = {part: _read_part(path, folder, findings) for part, folder in _parts(path).items()}
    how = "the image folders" if "" in parts else f"the folders {', '.join(_parts(path).values())}"
    return ObjectSource(
        format="nuclei", root=path, classes=CLASSES, parts=parts, how=how, findings=tuple(findings), has_masks=True
    )


def _read_part(root: Path, folder: str, findings: list[Finding]) -> tuple[Record, ...]:
    jobs = []
    for name in subfolders(root / folder):
        place = root / folder / name
        if not (place / "images").is_dir():
            findings.append(_incomplete(below(root, place), "has no images/"))
            continue
        images = _image_files(place / "images")
        if len(images) != 1:
            findings.append(_incomplete(below(root, place), f"has {len(images)} images, expected 1"))
            continue
        jobs.append((place, images[0]))
    with ThreadPoolExecutor(4) as pool:
        return tuple(pool.map(lambda job: _record(root, *job), jobs))


def _incomplete(name: str, what: str) -> Finding:
    return Finding(
        "missing-file", "error", (name,), f"{name} {what}", "complete it, or remove the folder; it is left out"
    )


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(item for item in folder.iterdir() if is_image_name(item.name) and not is_hidden(item.name))


def _record(root: Path, place: Path, image: Path) -> Record:
    size = upright_size(image)
    masks = _image_files(place / "masks")
    objects = tuple(_object(root, key, file, size) for key, file in enumerate(masks))
    return Record(below(root, image), objects, size, None, place / "masks")


def _object(root: Path, key: int, file: Path, size: tuple[int, int] | None) -> RawObject:
    where = f"masks/{file.name}"
    try:
        mask = read_object_mask(file)
    except UnreadableImage as error:
        reason = str(error).removeprefix(f"{error.name}: ")
        return RawObject(where, key, CLASSES[0], fault=Fault("bad-object", f"the mask {reason}"))
    if size is not None and (mask.width, mask.height) != size:
        message = f"the mask has {mask.width} x {mask.height} pixels, its image {size[0]} x {size[1]}"
        return RawObject(where, key, CLASSES[0], fault=Fault("mask-size", message))
    if mask.area() == 0:
        return RawObject(where, key, CLASSES[0], fault=Fault("empty-box", "the mask is empty"))
    return RawObject(where, key, CLASSES[0], mask.box(), False, mask)


def write_nuclei(mending: Mending) -> None:
    """Copy the masks that can be used."""
    for part, records in mending.look.source.parts.items():
        for record in records:
            if not isinstance(record, Record) or record.source is None:
                continue
            name = mending.inside(record.source)
            counted = mending.changes[name]
            if mending.keeps(record, part, counted, listed=False):
                (mending.place / name).mkdir(parents=True, exist_ok=True)
                for thing in record.objects:
                    if mending.box(thing, mending.look.size(record.name), counted) is not None:
                        mask = Path(thing.where).name
                        shutil.copyfile(record.source / mask, mending.file(f"{name}/{mask}"))


FORMAT = Format(
    name="nuclei",
    annotations=("boxes", "masks"),
    expected="one mask file an object: <id>/images/<id>.png with <id>/masks/*.png",
    recognise=is_nuclei,
    read=read_nuclei,
    write=write_nuclei,
    searched=True,
)
