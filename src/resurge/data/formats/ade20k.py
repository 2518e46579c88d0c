"""ADEChallengeData2016: images/{training,validation} and annotations/{training,validation}; 0 is ignored."""

from __future__ import annotations

from pathlib import Path

from resurge.data.formats.format import Format
from resurge.data.formats.label_maps import find_pairs, paired, write_maps
from resurge.data.records import UNKNOWN, MaskSource
from resurge.data.splits import IGNORE
from resurge.errors import UserError

ADE20K_CLASSES = 150


def is_ade20k(root: Path) -> bool:
    """Whether a folder is ADEChallengeData2016: by its name, or by the lists that come with it."""
    named = root.resolve().name == "ADEChallengeData2016"
    listed = any((root / name).is_file() for name in ("objectInfo150.txt", "sceneCategories.txt"))
    return (named or listed) and bool(find_pairs(root))


def read_ade20k(root: Path) -> MaskSource:
    """ADE20K as its scene parsing challenge has it: 0 is ignored, k is class k - 1; names from objectInfo150.txt."""
    parts = {part: paired(root, images, masks)[0] for part, (images, masks) in find_pairs(root).items()}
    meaning = tuple(IGNORE if value == 0 else value - 1 if value <= ADE20K_CLASSES else UNKNOWN for value in range(256))
    how = f"the folders {', '.join(f'{images}/' for images, _ in find_pairs(root).values())}"
    classes = _classes(root / "objectInfo150.txt")
    return MaskSource(format="ade20k", root=root, classes=classes, parts=parts, how=how, meaning=meaning)


def _classes(file: Path) -> tuple[str, ...]:
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


FORMAT = Format(
    name="ade20k",
    annotations=("maps",),
    expected="ADE20K: ADEChallengeData2016 with images/training/ and annotations/training/",
    recognise=lambda path: path.is_dir() and is_ade20k(path),
    read=read_ade20k,
    write=write_maps,
)
