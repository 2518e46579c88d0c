"""The formats of annotations. A new one is a file beside this one and a line here."""

from __future__ import annotations

from resurge.data.formats import ade20k, camvid, cifar, coco, folders, idx, nuclei, pairs, tables, voc, voc_maps, yolo
from resurge.data.formats.format import Format

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (coco, voc, yolo, nuclei, voc_maps, ade20k, camvid, pairs, tables, cifar, idx, folders)
}
"""By name, in the order in which data is tried for them."""
