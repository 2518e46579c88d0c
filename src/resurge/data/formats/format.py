"""What a format of annotations is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from resurge.data.annotations import Annotation
from resurge.data.mending import Writer
from resurge.data.records import LabelSource, MaskSource, MemorySource, ObjectSource

AnySource = LabelSource | ObjectSource | MaskSource | MemorySource


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format of annotations: one file beside this one makes one, and the table in `__init__` lists it.

    Attributes:
        name: what users call it.
        annotations: the kinds of annotation it may have.
        expected: what it looks like, for messages.
        recognise: whether a folder or file is in it.
        read: the records, with all that is wrong among the findings and the objects' faults.
        write: writes a mended copy of the annotations; None where there is none.
        searched: whether annotations are looked for anywhere below the folder, a mended copy included.
    """

    name: str
    annotations: tuple[Annotation, ...]
    expected: str
    recognise: Callable[[Path], bool]
    read: Callable[[Path], AnySource]
    write: Writer | None = None
    searched: bool = False
