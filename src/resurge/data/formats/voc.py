"""Pascal VOC's XML: one file of boxes per image.

The format is that of the VOC2007 development kit (Everingham, Van Gool, Williams, Winn, Zisserman). Its coordinates
count pixels from 1 and include the last one; xmin..xmax becomes xmin - 1 <= x < xmax here. A box whose maxima do not
exceed its minima has no area: it would be a single pixel wide by the letter, but is a slip of the tool that wrote it.
Objects marked `difficult` become crowds, so that they count neither as hits nor as misses, which is VOC's rule.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

from resurge.data.findings import Finding, broken_annotations, finding
from resurge.data.formats.format import Format
from resurge.data.images import EXTENSIONS
from resurge.data.mending import Mending
from resurge.data.object_source import ObjectSource, counted_classes
from resurge.data.paths import below, by_part, read_file, read_lines, slashed
from resurge.data.records import Fault, RawObject, Record
from resurge.errors import UserError

ANNOTATIONS, IMAGES, LISTS = "Annotations", "JPEGImages", "ImageSets/Main"

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class Voc(Format):
    """A folder in VOC's layout: JPEGImages/, Annotations/ and ImageSets/Main/{train,val,test}.txt; or XML files beside
    their images, perhaps in train/ and val/."""

    name = "voc"
    annotations = ("boxes",)
    expected = "Pascal VOC: Annotations/*.xml with JPEGImages/, or .xml files beside the images"

    def recognise(self, path: Path) -> bool:
        return path.is_dir() and bool(_folders(path))

    def read(self, path: Path) -> ObjectSource:
        findings: list[Finding] = []
        parts: dict[str, tuple[Record, ...]] = {}
        folders = _folders(path)
        how = "the folder" if "" in folders else f"the folders {slashed(name for name, _ in folders.values())}"
        for part, (beside, images) in folders.items():
            stems = {part: sorted(file.stem for file in (path / beside).glob("*.xml"))}
            if lists := _lists(path, findings) if not part and beside else {}:
                stems, how = lists, f"the lists {', '.join(f'{LISTS}/{name}.txt' for name in lists)}"
            files = _image_names(path / images)
            read: dict[str, Record | None] = {}
            for name, members in stems.items():
                for stem in members:
                    if stem not in read:
                        read[stem] = _record(path, beside, images, stem, files, findings)
                parts[name] = tuple(record for stem in members if (record := read[stem]) is not None)
        return ObjectSource(
            format=self.name, root=path, classes=counted_classes(parts), parts=parts, how=how,
            findings=tuple(findings),
        )  # fmt: skip

    def write(self, mending: Mending) -> None:
        """Copy the XML files, corrected, and the lists without the images that are gone."""
        data, root = mending.data, mending.root
        lists = sorted((root / LISTS).glob("*.txt"))
        mending.left_out("broken-annotations", "file that cannot be read left out")
        written: set[str] = set()
        removed: set[str] = set()
        for part, record, file in mending.objects():
            name = mending.inside(file)
            counted = mending.changes[name]
            if not mending.keeps(record, part, counted, listed=(root / LISTS).is_dir()):
                removed.add(f"{part}/{file.stem}")
            elif name not in written:
                written.add(name)
                mending.file(name).write_bytes(_mended(mending, record, file, counted))
        for file in lists:
            part = {"trainval": "train", "valid": "val"}.get(file.stem, file.stem)
            lines = read_lines(file)
            keep = []
            for line in dict.fromkeys(lines):
                stem = line if part in data.source.parts else line.split()[0]  # a list of one class has a mark as well
                if f"{part}/{stem}" not in removed and f"{ANNOTATIONS}/{stem}.xml" in written:
                    keep.append(line)
            mending.write_lines(f"{LISTS}/{file.name}", keep, lines)


def _folders(path: Path) -> dict[str, tuple[str, str]]:
    """Folders of (annotations, images) by part; "" for all of them."""
    if _has_xml(path / ANNOTATIONS):
        return {"": (ANNOTATIONS, next((name for name in (IMAGES, "images") if (path / name).is_dir()), IMAGES))}
    if _has_xml(path):
        return {"": ("", "")}
    return by_part(lambda name: (name, name) if _has_xml(path / name) else None)


def _has_xml(folder: Path) -> bool:
    return folder.is_dir() and next(folder.glob("*.xml"), None) is not None


def part_lists(folder: Path) -> dict[str, tuple[Path, list[str]]]:
    """The lists of images in a folder by part; trainval counts as training where there is no train."""
    names = {"trainval": "train", "train": "train", "valid": "val", "val": "val", "test": "test"}
    files = ((part, folder / f"{name}.txt") for name, part in names.items())
    found = ((part, file, read_lines(file)) for part, file in files if file.is_file())
    return {part: (file, lines) for part, file, lines in found if lines}


def _lists(path: Path, findings: list[Finding]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for part, (file, stems) in part_lists(path / LISTS).items():
        found[part] = list(dict.fromkeys(stems))
        if len(found[part]) < len(stems):
            twice = sorted({stem for stem in stems if stems.count(stem) > 1})
            message = f"{below(path, file)} lists {len(twice)} image(s) more than once: {', '.join(twice[:3])}"
            findings.append(finding("listed-twice", twice, message))
    return found


def _image_names(folder: Path) -> dict[str, str]:
    """File names of images by stem, the first by name where a stem has two."""
    if not folder.is_dir():
        return {}
    names = sorted((item.name for item in folder.iterdir() if item.suffix.lower() in EXTENSIONS), reverse=True)
    return {Path(name).stem: name for name in names}


def _record(
    root: Path, beside: str, images: str, stem: str, files: dict[str, str], findings: list[Finding]
) -> Record | None:
    file = root / beside / f"{stem}.xml"
    name = below(root, file)
    if not file.is_file():
        message = f"{name}: the list names this image, but its annotation file is missing"
        findings.append(finding("missing-annotation", (name,), message))
        return None
    try:
        document = load_voc(file)
    except UserError as error:
        findings.append(broken_annotations(name, error))
        return None
    named = (document.findtext("filename") or "").strip()
    image = Path(images) / files.get(stem, named if named in files.values() else f"{stem}.jpg")
    objects = tuple(_object(item, key) for key, item in enumerate(document.findall("object")))
    return Record(image.as_posix(), objects, _size(document), None, file)


def load_voc(file: Path) -> ElementTree.Element:
    """The <annotation> of a VOC file. Raises UserError when it cannot be read, or is cut short."""
    data = read_file(file)
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        what = "is damaged" if data.rstrip().endswith(b"</annotation>") else "is cut short"
        raise UserError(f"{file} {what}: {error}. Copy or write it again.") from error
    if root.tag != "annotation":
        raise UserError(f"{file} is no VOC annotation: its first element is <{root.tag}>, expected <annotation>.")
    return root


def _size(document: ElementTree.Element) -> tuple[int, int] | None:
    try:
        width, height = (int(float(document.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def _object(item: ElementTree.Element, key: int) -> RawObject:
    label = (item.findtext("name") or "").strip()
    difficult = (item.findtext("difficult") or "0").strip() == "1"
    texts = {corner: (item.findtext(f"bndbox/{corner}") or "").strip() for corner in _CORNERS}
    fault, box = None, (0.0, 0.0, 0.0, 0.0)
    try:
        x1, y1, x2, y2 = map(float, texts.values())
        box = (x1 - 1, y1 - 1, x2, y2)
        if x2 <= x1 or y2 <= y1:
            shown = ", ".join(f"{corner} {text}" for corner, text in texts.items())
            fault = Fault("empty-box", f"the box has no area ({shown})")
    except ValueError:
        lacking = ", ".join(corner for corner, text in texts.items() if not text)
        fault = Fault("bad-object", f"its bndbox lacks {lacking}" if lacking else "its bndbox holds no numbers")
    if not label:
        fault = Fault("unknown-category", "it has no name")
    return RawObject(f"object {key + 1}", key, label, box, difficult, fault=fault)


def _mended(mending: Mending, record: Record, file: Path, counted: Counter[str]) -> bytes:
    before = counted.total()
    document = load_voc(file)
    size = mending.data.size(record.name)
    if size is not None and _size(document) not in (None, size):
        counted["image size corrected"] += 1
        for side, pixels in zip(("width", "height"), size, strict=True):
            _set_text(document, f"size/{side}", str(pixels))
    items = document.findall("object")
    for thing in record.objects:
        item = items[thing.key]
        box = mending.box(thing, size, counted)
        if box is None:
            document.remove(item)
        elif box != thing.box or thing.changed:
            _set_text(item, "difficult", str(int(thing.crowd)))
            from_one = (box[0] + 1, box[1] + 1, box[2], box[3])
            for corner, value in zip(_CORNERS, from_one, strict=True):
                _set_text(item, f"bndbox/{corner}", f"{value:g}")
    return file.read_bytes() if counted.total() == before else ElementTree.tostring(document, encoding="utf-8")


def _set_text(root: ElementTree.Element, path: str, text: str) -> None:
    element = root.find(path)
    if element is not None:
        element.text = text
