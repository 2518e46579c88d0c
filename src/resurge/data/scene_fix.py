"""A mended copy of a data set's annotations: what `scene_checks` found is cut, removed or set to "ignored".

Only annotation, mask and list files are written; the images stay where they are. The copy appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resurge.data import mask_folders, voc, yolo
from resurge.data.coco import load_coco
from resurge.data.index_images import read_indices
from resurge.data.label_maps import MaskRecord, MaskSource, unknown_values
from resurge.data.records import Box, ObjectSource, RawObject, Record, below, examine
from resurge.data.regions import Polygons
from resurge.data.scene_checks import Look
from resurge.data.scenes import IGNORE
from resurge.errors import UserError

Changes = dict[str, Counter[str]]

_COPIED = ("classes.txt", "labels.txt", "obj.names", "objectInfo150.txt", "sceneCategories.txt", *yolo.DESCRIPTIONS)


def mend(look: Look, out: str | os.PathLike[str]) -> list[str]:
    """Write a mended copy of the annotations of `look` into the new or empty folder `out`: what was changed, a line a
    file, and last what to do with the copy.

    Boxes are cut to their images; objects without area, outside, of unknown categories or with masks that do not fit
    are removed, as are images that are missing or cannot be read, and training images that validation or test has too
    (where lists or one file a part say what is in it); indices out of range are set to the ignored one.

    Raises:
        UserError: `out` has something in it, or cannot be written.
    """
    target = Path(out).expanduser()
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise UserError(f"{target} is there already and not empty. Name a new folder for the mended annotations.")
    source = look.source
    if target.resolve().is_relative_to(source.root.resolve()) and source.format in ("nuclei", "voc", "yolo"):
        raise UserError(
            f"{target} lies inside {source.root}, where it would become part of the data. Name another folder."
        )
    changes: Changes = defaultdict(Counter)
    with _whole(target) as place:
        writers: dict[str, Callable[[Look, Any, Path, Changes], None]] = {
            "coco": _mend_coco, "voc": _mend_voc, "yolo": _mend_yolo, "nuclei": _mend_nuclei,
        }  # fmt: skip
        writers.get(source.format, _mend_masks)(look, source, place, changes)
        for name in _COPIED:
            if (source.root / name).is_file() and not (place / name).exists():
                shutil.copyfile(source.root / name, place / name)
    lines = [f"{name}: {', '.join(f'{count} {what}' for what, count in counted.items())}"
             for name, counted in sorted(changes.items())]  # fmt: skip
    if not lines:
        lines = ["nothing needed mending; the annotations were copied as they are"]
    names = {Path(record.name).parent.as_posix() for records in source.parts.values() for record in records}
    folders = sorted({name.split("/")[0] for name in names if not name.startswith("/")} - {"."})
    beside = ", ".join(f"{name}/" for name in folders[:4]) + (" and others" if len(folders) > 4 else "")
    return [*lines, f"the images were not copied: put those of {source.root} ({beside or 'beside the annotations'}) or "
                    f"links to them into {target} to use it"]  # fmt: skip


@contextlib.contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A temporary neighbour of `target` that becomes `target` when the block ends well, and is removed otherwise."""
    place: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"))
        yield place
        umask = os.umask(0)
        os.umask(umask)
        place.chmod(0o777 & ~umask)
        if target.is_dir():
            target.rmdir()
        os.replace(place, target)
        place = None
    except OSError as error:
        raise UserError(
            f"cannot write {target}: {error.strerror or error}. Free some space or choose another place."
        ) from error
    finally:
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)


def _write(place: Path, name: str, data: bytes) -> None:
    file = place / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def _inside(root: Path, path: Path) -> str:
    """The path of an annotation file below the data folder.

    Raises:
        UserError: it lies elsewhere, and so has no place in the copy.
    """
    name = below(root, path)
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(f"{path} lies outside {root}, so it has no place in a copy. Name the folder that holds it all.")
    return name


def _kept(look: Look, record: Record | MaskRecord, part: str, elsewhere: set[bytes], counted: Counter[str]) -> bool:
    """Whether an image stays; counts why it does not."""
    facts = look.images[record.name]
    if facts.error is not None:
        counted["missing image(s) removed" if facts.error.kind == "missing" else "unreadable image(s) removed"] += 1
        return False
    if part == "train" and facts.digest in elsewhere:
        counted["image(s) removed that validation or test has too"] += 1
        return False
    return True


def _held(look: Look) -> set[bytes]:
    """Digests of the validation and test images."""
    parts = look.source.parts
    return {look.images[record.name].digest for part in ("val", "test") for record in parts.get(part, ())} - {b""}


def _mended(thing: RawObject, size: tuple[int, int] | None, counted: Counter[str]) -> Box | None:
    """The box to write, or None for an object to remove; counts what was done."""
    box, fault = examine(thing, size)
    if fault is None:
        return thing.box
    if box is None:
        counted[_REMOVED[fault.kind]] += 1
    else:
        counted["box(es) cut to the image"] += 1
    return box


_REMOVED = {
    "empty-box": "box(es) without area removed", "box-outside": "box(es) outside the image removed",
    "unknown-category": "object(s) of unknown categories removed", "bad-object": "damaged object(s) removed",
    "mask-size": "mask(s) of another size removed",
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ COCO


def _mend_coco(look: Look, source: ObjectSource, place: Path, changes: Changes) -> None:
    held = _held(look)
    for file in source.broken:
        changes[below(source.root, file)]["file that cannot be read left out"] += 1
    for part, records in source.parts.items():
        origin = next((record.source for record in records if record.source is not None), None)
        if origin is None:
            continue
        name = _inside(source.root, origin)
        document = load_coco(origin)
        counted: Counter[str] = Counter()
        images, annotations = [], []
        for record in records:
            if not _kept(look, record, part, held, counted):
                continue
            entry = dict(document["images"][record.key])
            size = look.size(record.name)
            if size is not None and record.size != size:
                counted["image size(s) corrected"] += 1
                entry |= {"width": size[0], "height": size[1]}
            images.append(entry)
            for thing in record.objects:
                box = _mended(thing, size, counted)
                if box is not None:
                    annotation = document["annotations"][thing.key]
                    annotations.append(annotation if box == thing.box else annotation | {"bbox": _width_height(box)})
        stray = len(document["annotations"]) - sum(len(record.objects) for record in records)
        if stray:
            counted["annotation(s) of no image removed"] += stray
        if len(document["images"]) > len(records):
            counted["damaged image entr(ies) removed"] += len(document["images"]) - len(records)
        text = json.dumps(document | {"images": images, "annotations": annotations})
        _write(place, name, text.encode("utf-8", "backslashreplace"))
        if counted:
            changes[name] = counted


def _width_height(box: Box) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


# ------------------------------------------------------------------------------------------------------------- VOC


def _mend_voc(look: Look, source: ObjectSource, place: Path, changes: Changes) -> None:
    held = _held(look)
    listed = (source.root / voc.LISTS).is_dir()
    for file in source.broken:
        changes[below(source.root, file)]["file that cannot be read left out"] += 1
    written: set[str] = set()
    removed: set[str] = set()
    for part, records in source.parts.items():
        for record in records:
            if record.source is None:
                continue
            name = _inside(source.root, record.source)
            counted = changes[name]
            if not _kept(look, record, part, held if listed else set(), counted):
                removed.add(f"{part}/{record.source.stem}")
                continue
            if name not in written:
                written.add(name)
                _write(place, name, _voc_file(record, look.size(record.name), counted))
    for file in sorted((source.root / voc.LISTS).glob("*.txt")) if listed else []:
        broken = {path.stem for path in source.broken}
        part = {"trainval": "train", "valid": "val"}.get(file.stem, file.stem)
        keep: dict[str, None] = {}
        for line in file.read_bytes().decode("utf-8-sig", "surrogateescape").split("\n"):
            stem = line.split()[0] if part not in source.parts and line.split() else line.strip()
            gone = f"{part}/{stem}" in removed or stem in broken or f"{voc.ANNOTATIONS}/{stem}.xml" not in written
            if stem and not gone and line not in keep:
                keep[line] = None
            elif stem:
                changes[f"{voc.LISTS}/{file.name}"]["line(s) removed"] += 1
        _write(
            place, f"{voc.LISTS}/{file.name}", "".join(f"{line}\n" for line in keep).encode("utf-8", "surrogateescape")
        )
    for name in [name for name, counted in changes.items() if not counted]:
        del changes[name]


def _voc_file(record: Record, size: tuple[int, int] | None, counted: Counter[str]) -> bytes:
    if record.source is None:
        raise TypeError("this record comes from no file")
    before = sum(counted.values())
    root = voc.load_voc(record.source)
    if size is not None and record.size != size:
        counted["image size corrected"] += 1
        for side, pixels in zip(("width", "height"), size, strict=True):
            _set_text(root, f"size/{side}", str(pixels))
    items = root.findall("object")
    for thing in record.objects:
        item = items[thing.key]
        box = _mended(thing, size, counted)
        if box is None:
            root.remove(item)
        elif box != thing.box:
            from_one = (box[0] + 1, box[1] + 1, box[2], box[3])
            for corner, value in zip(("xmin", "ymin", "xmax", "ymax"), from_one, strict=True):
                _set_text(item, f"bndbox/{corner}", f"{value:g}")
    if sum(counted.values()) == before:
        return record.source.read_bytes()
    return ElementTree.tostring(root, encoding="utf-8")


def _set_text(root: ElementTree.Element, path: str, text: str) -> None:
    element = root.find(path)
    if element is not None:
        element.text = text


# ------------------------------------------------------------------------------------------------------------ YOLO


def _mend_yolo(look: Look, source: ObjectSource, place: Path, changes: Changes) -> None:
    done: set[Path] = set()
    for part, records in source.parts.items():
        for record in records:
            if record.source is None or record.source in done:
                continue
            done.add(record.source)
            name = _inside(source.root, record.source)
            counted: Counter[str] = Counter()
            if _kept(look, record, part, set(), counted):
                _write(place, name, _yolo_lines(record, look.size(record.name), counted))
            if counted:
                changes[name] = counted
    for finding in source.findings:
        if finding.kind == "missing-file":
            for name in finding.paths:
                changes[name]["label file without an image left out"] += 1
    for file in yolo.list_files(source.root):
        name = _inside(source.root, file)
        lines = file.read_bytes().split(b"\n")
        texts = [line.decode("utf-8-sig", "surrogateescape").strip() for line in lines]
        found = [look.images.get(yolo.listed(file, text, source.root)) if text else None for text in texts]
        keep_lines = [line for line, facts in zip(lines, found, strict=True) if facts is None or facts.error is None]
        _write(place, name, b"\n".join(keep_lines))
        if len(keep_lines) < len(lines):
            changes[name]["line(s) removed"] = len(lines) - len(keep_lines)


def _yolo_lines(record: Record, size: tuple[int, int] | None, counted: Counter[str]) -> bytes:
    if record.source is None or size is None:
        raise TypeError("this record comes from no file")
    things = {thing.key: thing for thing in record.objects}
    out = []
    for number, line, _ in yolo.lines_of(record.source.read_bytes()):
        thing = things[number]
        box = _mended(thing, size, counted)
        if box is None:
            continue
        if box != thing.box:
            line = _yolo_line(line.split()[0], thing, box, size)
        out.append(line + "\n")
    return "".join(out).encode("utf-8")


def _yolo_line(index: str, thing: RawObject, box: Box, size: tuple[int, int]) -> str:
    width, height = size
    if isinstance(thing.region, Polygons):
        points = np.clip(np.asarray(thing.region.points()[0]).reshape(-1, 2) / (width, height), 0, 1)
        return " ".join([index, *(f"{value:.6g}" for value in points.reshape(-1))])
    x1, y1, x2, y2 = box
    shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
    return " ".join([index, *(f"{value:.6g}" for value in shares)])


# --------------------------------------------------------------------------------------------------------- nuclei


def _mend_nuclei(look: Look, source: ObjectSource, place: Path, changes: Changes) -> None:
    for part, records in source.parts.items():
        for record in records:
            if record.source is None:
                continue
            name = _inside(source.root, record.source)
            counted: Counter[str] = Counter()
            if _kept(look, record, part, set(), counted):
                (place / name).mkdir(parents=True, exist_ok=True)
                for thing in record.objects:
                    if _mended(thing, look.size(record.name), counted) is not None:
                        mask = Path(thing.where).name
                        shutil.copyfile(record.source / mask, place / name / mask)
            if counted:
                changes[name] = counted


# ------------------------------------------------------------------------------------------------------ label maps


def _mend_masks(look: Look, source: MaskSource, place: Path, changes: Changes) -> None:
    held = _held(look)
    listed = source.format in ("camvid", "voc_segmentation")
    ignored = source.meaning.index(IGNORE) if IGNORE in source.meaning else IGNORE
    kept: dict[str, set[str]] = {}
    for part, records in source.parts.items():
        kept[part] = set()
        for record in records:
            name = record.mask or record.name
            counted = changes[name]
            if not _kept(look, record, part, held if listed else set(), counted) or record.mask is None:
                continue
            facts = look.masks[record.mask]
            if facts.counts is None:
                counted["missing or unreadable mask left out"] += 1
            elif facts.size != look.size(record.name):
                counted["mask of another size than its image left out"] += 1
            else:
                kept[part].add(record.name)
                strange = unknown_values(facts.counts, source.meaning)
                if strange:
                    counted["pixels with an index out of range set to ignored"] = int(facts.counts[strange].sum())
                    _write_mask(source.root / record.mask, place / _inside(source.root, source.root / record.mask),
                                strange, ignored)  # fmt: skip
                else:
                    data = (source.root / record.mask).read_bytes()
                    _write(place, _inside(source.root, source.root / record.mask), data)
    if source.format == "camvid":
        for part, records in source.parts.items():
            lines = [f"{record.name} {record.mask}\n" for record in records if record.name in kept[part]]
            _write(place, f"{part}.txt", "".join(lines).encode("utf-8", "surrogateescape"))
    elif listed and "" not in source.parts:
        for part, records in source.parts.items():
            lines = [f"{Path(record.mask or '').stem}\n" for record in records if record.name in kept[part]]
            _write(place, f"{mask_folders.LISTS}/{part}.txt", "".join(lines).encode("utf-8", "surrogateescape"))
    for name in [name for name, counted in changes.items() if not counted]:
        del changes[name]


def _write_mask(file: Path, target: Path, strange: list[int], ignored: int) -> None:
    values = read_indices(file)
    values[np.isin(values, strange)] = ignored
    image = Image.fromarray(values.astype(np.uint8))
    with Image.open(file) as before:
        if before.mode == "P":
            image.putpalette(before.getpalette() or [])  # makes it mode P, with the same indices
    target.parent.mkdir(parents=True, exist_ok=True)
    image.save(target, format="PNG")
