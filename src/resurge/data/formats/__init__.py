"""The formats of annotations. A new one is a file beside this one and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from resurge.data.formats import ade20k, camvid, cifar, coco, folders, idx, nuclei, pairs, tables, voc, voc_maps, yolo
from resurge.data.formats.format import Format
from resurge.errors import UserError
from resurge.plugins import Table


def _plugin_format(name: str, part: object) -> Format:
    """Raises UserError when the object of a plugin is no format of that name."""
    if not isinstance(part, Format) or part.name != name:
        raise UserError(f"is {part!r}; expected a resurge.data.formats.format.Format with the name {name!r}.")
    return part


_OWN = (coco, voc, yolo, nuclei, voc_maps, ade20k, camvid, pairs, tables, cifar, idx, folders)
FORMATS: Mapping[str, Format] = Table("data", {module.FORMAT.name: module.FORMAT for module in _OWN}, _plugin_format)
"""By name, in the order in which data is tried for them."""
