"""One mask per image whose values number its objects: images/ beside masks/, 0 for the background, k for object k."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from resurge.data.coding import look_like_ids
from resurge.data.formats.format import Format
from resurge.data.formats.label_maps import class_table, find_pairs, read_pairs
from resurge.data.images import UnreadableImage, read_indices
from resurge.data.object_source import OBJECT, ObjectSource
from resurge.data.records import Fault, MaskRecord, RawObject, Record
from resurge.data.regions import run_lengths_of


class InstanceMaps(Format):
    """Folder pairs as for label maps, but with an object for each value. Told from those by the values themselves; more
    than two names in a class file say that values are classes."""

    name = "instance_maps"
    annotations = ("boxes", "masks")
    expected = "images/ with masks/ whose values 1, 2, 3, … number the objects of each image"

    def recognise(self, path: Path) -> bool:
        if not path.is_dir() or not (pairs := read_pairs(path, find_pairs(path))[0]):
            return False
        table = class_table(path, pairs)
        masks = [path / record.mask for records in pairs.values() for record in records if record.mask]
        return (table is None or len(table.names) <= 2) and look_like_ids(masks)

    def read(self, path: Path) -> ObjectSource:
        pairs, findings = read_pairs(path, find_pairs(path))
        table = class_table(path, pairs)
        label = OBJECT if table is None else table.names[-1]
        with ThreadPoolExecutor(4) as pool:
            parts = {part: tuple(pool.map(lambda pair: _record(path, label, pair), records))
                     for part, records in pairs.items()}  # fmt: skip
        return ObjectSource(
            format=self.name, root=path, classes=(label,), named=table is not None, parts=parts, has_masks=True,
            how="masks whose values number the objects", findings=tuple(findings),
        )  # fmt: skip


def _record(root: Path, label: str, pair: MaskRecord) -> Record:
    if pair.mask is None:
        return Record(pair.name, ())
    thing = RawObject(pair.mask, 0, label)
    try:
        values = read_indices(root / pair.mask)
    except UnreadableImage as error:
        fault = Fault("bad-object", f"the mask {error.reason}")
        return Record(pair.name, (replace(thing, fault=fault),), source=root / pair.mask)
    things = []
    for value in filter(None, np.unique(values).tolist()):
        region = run_lengths_of(values == value)
        things.append(RawObject(f"{pair.mask}, value {value}", value, label, region.box(), region=region))
    return Record(pair.name, tuple(things), source=root / pair.mask)
