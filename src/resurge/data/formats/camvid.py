"""Lists as in SegNet's CamVid: train.txt, val.txt and test.txt with an image and its mask in each line."""

from __future__ import annotations

from pathlib import Path

from resurge.data.formats.format import Format
from resurge.data.formats.label_maps import class_lines, write_maps
from resurge.data.images import EXTENSIONS, ending
from resurge.data.mending import Mending
from resurge.data.paths import PARTS
from resurge.data.records import MaskRecord, MaskSource, plain_meaning
from resurge.errors import UserError

CAMVID = ("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian",
          "Bicyclist")  # fmt: skip


def is_camvid(root: Path) -> bool:
    """Whether a folder has lists of an image and a mask a line."""
    for part in PARTS:
        file = root / f"{part}.txt"
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
    for part in PARTS:
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
    return MaskSource(format="camvid", root=root, classes=names or CAMVID, parts=parts, how=how, meaning=meaning)


def stripped(root: Path, text: str) -> str:
    """The path below `root` that a listed path ends in; the listed path without its first slash if none exists."""
    words = text.strip("/").split("/")
    for at in range(len(words)):
        if (root / "/".join(words[at:])).is_file():
            return "/".join(words[at:])
    return "/".join(words[-2:])


def write_camvid(mending: Mending) -> None:
    """Write the masks that can be used, and the lists of them."""
    for part, records in write_maps(mending, listed=True).items():
        mending.write_lines(f"{part}.txt", [f"{record.name} {record.mask}" for record in records])


FORMAT = Format(
    name="camvid",
    annotations=("maps",),
    expected="lists: train.txt with an image and its mask in each line",
    recognise=lambda path: path.is_dir() and is_camvid(path),
    read=read_camvid,
    write=write_camvid,
)
