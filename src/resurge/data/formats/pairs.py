"""Pairs of images and masks: images/ beside masks/ (also annotations/, labels/ and the like), each flat or with train/
and val/ inside, or train/ and val/ with both inside. A mask has its image's name, perhaps with an ending such as _mask.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from resurge.data.findings import Finding, number_of
from resurge.data.formats.format import Format
from resurge.data.formats.label_maps import class_lines, find_pairs, paired, write_maps
from resurge.data.images import UnreadableImage
from resurge.data.index_images import read_indices
from resurge.data.records import MaskRecord, MaskSource, plain_meaning
from resurge.data.splits import IGNORE
from resurge.errors import UserError


def read_pairs(root: Path) -> MaskSource:
    """Images and masks in folders of their own. Classes are the lines of classes.txt, else counted.

    Raises:
        UserError: no mask belongs to an image, or the masks hold no class indices.
    """
    findings: list[Finding] = []
    parts: dict[str, tuple[MaskRecord, ...]] = {}
    folders = find_pairs(root)
    for part, (images, masks) in folders.items():
        parts[part], lost = paired(root, images, masks)
        if lost:
            message = f"{number_of(len(lost), 'mask', 'masks')} without an image: {', '.join(lost[:3])}"
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
    return MaskSource(
        format="pairs", root=root, classes=classes, parts=parts, how=how, meaning=meaning, findings=tuple(findings)
    )


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


FORMAT = Format(
    name="pairs",
    annotations=("maps",),
    expected="images/ with masks/, each flat or with train/ and val/ inside",
    recognise=lambda path: path.is_dir() and bool(find_pairs(path)),
    read=read_pairs,
    write=write_maps,
)
