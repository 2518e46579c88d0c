"""One mask file per object: <id>/images/<id>.png with <id>/masks/*.png, the layout of the 2018 Data Science Bowl."""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from resurge.data.findings import Finding, finding
from resurge.data.formats.format import Format
from resurge.data.images import UnreadableImage, read_indices
from resurge.data.mending import Mending
from resurge.data.object_source import OBJECT, ObjectSource
from resurge.data.paths import PART_OF, below, images_in, part_folders, subfolders
from resurge.data.records import Fault, RawObject, Record
from resurge.data.regions import RunLengths, run_lengths_of

_BOWL = re.compile(r"[0-9a-f]{64}|stage[12]_.*")
"""How the Data Science Bowl names its images and the folders of them."""


class Nuclei(Format):
    """All masks are read, and kept as run lengths; masks that cannot be read are faults of their objects."""

    name = "nuclei"
    annotations = ("boxes", "masks")
    expected = "one mask file per object: <id>/images/<id>.png with <id>/masks/*.png"

    def recognise(self, path: Path) -> bool:
        return path.is_dir() and bool(_parts(path))

    def read(self, path: Path) -> ObjectSource:
        findings: list[Finding] = []
        folders = _parts(path)
        label = _label(path, folders)
        parts = {part: _read_part(path, folder, label, findings) for part, folder in folders.items()}
        how = "the image folders" if "" in parts else f"the folders {', '.join(folders.values())}"
        return ObjectSource(
            format=self.name, root=path, classes=(label,), named=False, parts=parts, how=how, findings=tuple(findings),
            has_masks=True,
        )  # fmt: skip

    def write(self, mending: Mending) -> None:
        """Copy the masks that can be used."""
        for part, record, folder in mending.objects():
            name = mending.inside(folder)
            counted = mending.changes[name]
            if mending.keeps(record, part, counted, listed=False):
                (mending.place / name).mkdir(parents=True, exist_ok=True)
                for thing in record.objects:
                    if mending.box(thing, mending.data.size(record.name), counted) is not None:
                        mask = Path(thing.where).name
                        target = mending.file(f"{name}/{mask}")
                        if thing.changed and isinstance(thing.region, RunLengths):
                            pixels = thing.region.decode(thing.region.height, thing.region.width)
                            Image.fromarray(pixels.astype(np.uint8) * 255).save(target, format="PNG")
                        else:
                            shutil.copyfile(folder / mask, target)


def _parts(path: Path) -> dict[str, str]:
    """Folders that hold image folders, by part; "" for `path` itself."""
    is_split = any(name.lower() in PART_OF for name in subfolders(path))
    return part_folders(path, _holds) or ({} if is_split or not _holds(path) else {"": ""})


def _holds(folder: Path) -> bool:
    """Whether most of the first subfolders are an image's."""
    names = subfolders(folder)[:9]
    whole = [(folder / name / "images").is_dir() and (folder / name / "masks").is_dir() for name in names]
    return sum(whole) * 2 > len(names)


def _label(path: Path, folders: dict[str, str]) -> str:
    """What the masks are of: nuclei in the Data Science Bowl's own folders."""
    names = [path.resolve().name, *(name for folder in folders.values() for name in subfolders(path / folder)[:9])]
    return "nucleus" if any(map(_BOWL.fullmatch, names)) else OBJECT


def _read_part(root: Path, folder: str, label: str, findings: list[Finding]) -> tuple[Record, ...]:
    jobs = []
    for name in subfolders(root / folder):
        place = root / folder / name
        images = images_in(place / "images")
        if len(images) == 1:
            jobs.append((place, place / "images" / images[0]))
            continue
        what = f"has {len(images)} images, expected 1" if (place / "images").is_dir() else "has no images/"
        findings.append(finding(
            "missing-file", (below(root, place),), f"{below(root, place)} {what}",
            remedy="complete it, or remove the folder; it is left out",
        ))  # fmt: skip
    with ThreadPoolExecutor(4) as pool:
        return tuple(pool.map(lambda job: _record(root, label, *job), jobs))


def _record(root: Path, label: str, place: Path, image: Path) -> Record:
    masks = images_in(place / "masks")
    objects = tuple(_object(key, label, place / "masks" / name) for key, name in enumerate(masks))
    return Record(below(root, image), objects, source=place / "masks")


def _object(key: int, label: str, file: Path) -> RawObject:
    thing = RawObject(f"masks/{file.name}", key, label)
    try:
        mask = run_lengths_of(read_indices(file))
    except UnreadableImage as error:
        return replace(thing, fault=Fault("bad-object", f"the mask {error.reason}"))
    if mask.area() == 0:
        return replace(thing, fault=Fault("empty-box", "the mask is empty"))
    return replace(thing, box=mask.box(), region=mask)
