"""The formats of annotations. A new one is a file beside this one and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from resurge.data.formats.cifar import Cifar
from resurge.data.formats.coco import Coco
from resurge.data.formats.csv_boxes import CsvBoxes
from resurge.data.formats.cvat import Cvat
from resurge.data.formats.datumaro import Datumaro
from resurge.data.formats.folders import Folders
from resurge.data.formats.format import Format
from resurge.data.formats.idx import Idx
from resurge.data.formats.instance_maps import InstanceMaps
from resurge.data.formats.label_maps import Ade20k, Beside, CamVid, Pairs, VocMaps
from resurge.data.formats.label_studio import LabelStudio
from resurge.data.formats.labelme import LabelMe
from resurge.data.formats.nuclei import Nuclei
from resurge.data.formats.tables import Tables
from resurge.data.formats.voc import Voc
from resurge.data.formats.yolo import Yolo
from resurge.plugins import Table, instance_of

_OWN = (
    Coco(), Voc(), Yolo(), CsvBoxes(), Cvat(), LabelStudio(), LabelMe(), Datumaro(), Nuclei(), InstanceMaps(),
    VocMaps(), Ade20k(), CamVid(), Pairs(), Beside(), Tables(), Cifar(), Idx(), Folders(),
)  # fmt: skip


FORMATS: Mapping[str, Format] = Table("data", {format.name: format for format in _OWN}, instance_of(Format))  # type: ignore[type-abstract]
"""By name, in the order in which data is tried for them, but that `particular` ones come first."""
