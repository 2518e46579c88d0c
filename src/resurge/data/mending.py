"""What the writers of mended annotations need: a data set with all its images read, and a folder to write into."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from resurge.data.findings import KINDS
from resurge.data.images import ImageHeader, UnreadableImage, decode, pages, read_bytes
from resurge.data.map_source import MaskSource
from resurge.data.object_review import examine
from resurge.data.object_source import ObjectSource
from resurge.data.paths import below
from resurge.data.records import MaskRecord, RawObject, Record
from resurge.data.regions import Box
from resurge.errors import UserError


@dataclass(frozen=True)
class Facts:
    """What reading an image file gave: its size in bytes, a header, a digest of its pixels and the number of its
    pages, or the error."""

    name: str
    size: int
    header: ImageHeader | None = None
    digest: bytes = b""
    pages: int = 1
    error: UnreadableImage | None = None


def examine_file(root: Path, name: str) -> Facts:
    """Decode an image: its header and a digest of its pixels, or why it cannot be read."""
    size = 0
    try:
        data = read_bytes(root / name)
        size = len(data)
        header, image = decode(data, name)
    except UnreadableImage as error:
        return Facts(name, size, error=error)
    digest = hashlib.blake2b(repr((image.mode, image.size)).encode(), digest_size=16)
    digest.update(image.tobytes())
    return Facts(name, size, header, digest.digest(), pages(data, header))


@dataclass(frozen=True)
class Examined:
    """A data set with what reading all its images gave, by name."""

    source: ObjectSource | MaskSource
    images: dict[str, Facts]

    def size(self, name: str) -> tuple[int, int] | None:
        """(width, height) of an image, upright; None when it cannot be read."""
        header = self.images[name].header
        return None if header is None else header.upright_size


class Mending:
    """One mended copy: what is kept, what is written into `place`, and `changes`, counted by file."""

    def __init__(self, data: Examined, place: Path) -> None:
        self.data, self.root, self.place = data, data.source.root, place
        self.changes: dict[str, Counter[str]] = defaultdict(Counter)
        parts = data.source.parts
        self._held = {data.images[record.name].digest for part in ("val", "test") for record in parts.get(part, ())}
        self._held -= {b""}

    def objects(self) -> Iterator[tuple[str, Record, Path]]:
        """(part, record, annotation file) of the images that have such a file."""
        for part, records in self.data.source.parts.items():
            for record in records:
                if isinstance(record, Record) and record.source is not None:
                    yield part, record, record.source

    def by_file(self) -> dict[Path, list[tuple[str, Record]]]:
        """(part, record) of the images of each annotation file."""
        found: dict[Path, list[tuple[str, Record]]] = defaultdict(list)
        for part, record, file in self.objects():
            found[file].append((part, record))
        return found

    def keeps(self, record: Record | MaskRecord, part: str, counted: Counter[str], listed: bool) -> bool:
        """Whether an image stays; counts why it does not. With `listed`, lists or one file per part say what is in it,
        and training images that validation or test has too are removed."""
        facts = self.data.images[record.name]
        if facts.error is not None:
            missing = facts.error.kind == "missing"
            counted["missing image(s) removed" if missing else "unreadable image(s) removed"] += 1
            return False
        if isinstance(record, Record) and record.fault is not None:
            counted[KINDS[record.fault.kind]["mended"]] += 1
            return False
        if listed and part == "train" and facts.digest in self._held:
            counted["image(s) removed that validation or test has too"] += 1
            return False
        return True

    def box(self, thing: RawObject, size: tuple[int, int] | None, counted: Counter[str]) -> Box | None:
        """The box to write, or None for an object to remove; counts what was done."""
        box, fault = examine(thing, size)
        if fault is not None:
            counted[KINDS[fault.kind]["mended"]] += 1
        if box is not None and thing.changed:
            counted[f"object(s) {thing.changed}"] += 1
        return thing.box if fault is None else box

    def left_out(self, kind: str, what: str) -> None:
        """Count the annotation files of the findings of a kind."""
        for finding in self.data.source.findings:
            for name in finding.paths if finding.kind == kind else ():
                self.changes[name][what] += 1

    def inside(self, path: Path) -> str:
        """The path of an annotation file below the data folder. Raises UserError when it lies elsewhere, and so has no
        place in the copy."""
        name = below(self.root, path)
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"{path} lies outside {self.root}, so it has no place in a copy. Name a folder with both.")
        return name

    def file(self, name: str) -> Path:
        """Where a file of the copy is to be written."""
        file = self.place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    def write_lines(self, name: str, lines: Sequence[str], before: Sequence[str] = ()) -> None:
        """Write a list, and count the lines it had before that are gone; names of files may be no text."""
        self.file(name).write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
        if len(lines) < len(before):
            self.changes[name]["line(s) removed"] = len(before) - len(lines)
