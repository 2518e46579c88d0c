"""What a format of annotations is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from resurge.data.annotations import Annotation
from resurge.data.label_source import LabelSource, MemorySource
from resurge.data.map_source import MaskSource
from resurge.data.mending import Mending
from resurge.data.object_source import ObjectSource
from resurge.errors import UserError

AnySource = LabelSource | ObjectSource | MaskSource | MemorySource


class Format(ABC):
    """A format of annotations: one subclass each, of which the table in `__init__` lists an instance."""

    name: str
    """What users call it."""
    annotations: tuple[Annotation, ...]
    """The kinds of annotation it may have."""
    expected: str
    """What it looks like, for messages."""

    particular = False
    """Whether data is tried for it before others, as its files may be taken for theirs."""

    @abstractmethod
    def recognise(self, path: Path) -> bool:
        """Whether a folder or file is in it."""

    @abstractmethod
    def read(self, path: Path) -> AnySource:
        """The records, with all that is wrong among the findings and the objects' faults. Raises UserError."""

    def write(self, mending: Mending) -> None:
        """Write a mended copy of the annotations."""
        raise UserError(f"annotations in the format {self.name} cannot be mended. Correct them by hand.")
