"""The formats of annotations. A new one is a file beside this one and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from resurge.data.formats.cifar import Cifar
from resurge.data.formats.coco import Coco
from resurge.data.formats.folders import Folders
from resurge.data.formats.format import Format
from resurge.data.formats.idx import Idx
from resurge.data.formats.label_maps import Ade20k, CamVid, Pairs, VocMaps
from resurge.data.formats.nuclei import Nuclei
from resurge.data.formats.tables import Tables
from resurge.data.formats.voc import Voc
from resurge.data.formats.yolo import Yolo
from resurge.errors import UserError
from resurge.plugins import Table

_OWN = (Coco(), Voc(), Yolo(), Nuclei(), VocMaps(), Ade20k(), CamVid(), Pairs(), Tables(), Cifar(), Idx(), Folders())


def _plugin_format(name: str, part: object) -> Format:
    """Raises UserError when the object of a plugin is no format of that name."""
    if not isinstance(part, Format) or part.name != name:
        raise UserError(f"is {part!r}; expected a resurge.data.formats.format.Format with the name {name!r}.")
    return part


FORMATS: Mapping[str, Format] = Table("data", {format.name: format for format in _OWN}, _plugin_format)
"""By name, in the order in which data is tried for them."""
