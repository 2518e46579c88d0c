"""Pascal VOC's XML: one file of boxes per image.

The format is that of the VOC2007 development kit (Everingham, Van Gool, Williams, Winn, Zisserman). Its coordinates
count pixels from 1 and include the last one; xmin..xmax becomes xmin - 1 <= x < xmax here. Annotation tools write the
same files with coordinates that count from 0: a 0 among them, or decimals in most, tell them. A box whose maxima do not
exceed its minima has no area: it would be a single pixel wide by the letter, but is a slip of the tool that wrote it.
Objects marked `difficult` become crowds, so that they count neither as hits nor as misses, which is VOC's rule. A
<polygon>, as LabelMe and others write it, is a mask.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path

from resurge.data.findings import Finding, broken_annotations, finding, some
from resurge.data.fit import Size, size_of
from resurge.data.formats.format import Format
from resurge.data.images import EXTENSIONS, ending
from resurge.data.mending import Mending
from resurge.data.object_source import ObjectSource, any_mask, counted_classes
from resurge.data.paths import (
    ANNOTATION_FOLDERS,
    IMAGE_FOLDERS,
    PART_OF,
    PARTS,
    beginning,
    below,
    find_files,
    find_images,
    folder_of,
    is_hidden,
    listed_name,
    read_file,
    read_lines,
    slashed,
    stem_below,
    subfolders,
    walk,
)
from resurge.data.records import Fault, RawObject, Record
from resurge.data.regions import polygons
from resurge.errors import UserError
from resurge.quantities import number_of
from resurge.untrusted import parse_xml

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_FROM_0 = "from-0"
_Steps = tuple[tuple[str, ...], ...]
_POINT = re.compile(r"[xy]\d*")
_MARK = re.compile(r"\s+(-1|0|1)$")


class Voc(Format):
    """A folder in VOC's layout: JPEGImages/, Annotations/ and ImageSets/Main/{train,val,test}.txt, under these or the
    usual other names, with or without folders in them; or XML files beside their images."""

    name = "voc"
    annotations = ("boxes", "masks")
    expected = "Pascal VOC: Annotations/*.xml with JPEGImages/, or .xml files beside the images"

    def recognise(self, path: Path) -> bool:
        return path.is_dir() and bool(_folders(path))

    def read(self, path: Path) -> ObjectSource:
        findings: list[Finding] = []
        parts: dict[str, tuple[Record, ...]] = {}
        folders = _folders(path)
        how = (
            f"the folder {path.resolve().name}"
            if "" in folders
            else f"the folders {slashed(name for name, _ in folders.values())}"
        )
        written: Counter[str] = Counter()
        for part, (beside, images) in folders.items():
            stems, pictures = (
                _by_stem(find_files(path, beside, ".xml"), beside),
                _by_stem(find_images(path, images)[0], images),
            )
            listed = {} if part else _listed(path, stems, findings)
            if listed:
                how = f"the lists {', '.join(below(path, file) for file, _ in listed.values())}"
            else:
                findings += _without_xml(stems, pictures)
            members = {name: found for name, (_, found) in listed.items()} or {part: sorted(stems)}
            read: dict[str, Record | None] = {}
            for name, wanted in members.items():
                for stem in wanted:
                    if stem not in read:
                        file = path / stems.get(stem, f"{beside}/{stem}.xml")
                        read[stem] = _record(path, file, images, stem, stems, pictures, findings, written)
                parts[name] = tuple(record for stem in wanted if (record := read[stem]) is not None)
        if written["zero"] or written["decimal"] * 2 > written["box"]:
            message = f"the coordinates of {number_of(written['box'], 'box', 'boxes')} count from 0, not from 1"
            findings.append(finding(_FROM_0, (), message))
            parts = {part: tuple(map(_from_0, records)) for part, records in parts.items()}
        return ObjectSource(
            format=self.name, root=path, classes=counted_classes(parts), parts=parts, how=how,
            findings=tuple(findings), has_masks=any_mask(parts),
        )  # fmt: skip

    def write(self, mending: Mending) -> None:
        """Copy the XML files, corrected, and the lists without the images that are gone."""
        root = mending.root
        mending.left_out("broken-annotations", "file that cannot be read left out")
        folder = _list_folder(root)
        first = 0 if any(each.kind == _FROM_0 for each in mending.data.source.findings) else 1
        written: set[str] = set()
        removed: set[tuple[str, str]] = set()
        for part, record, file in mending.objects():
            name = mending.inside(file)
            counted = mending.changes[name]
            if not mending.keeps(record, part, counted, listed=folder is not None):
                removed.add((part, name))
            elif name not in written:
                written.add(name)
                mending.file(name).write_bytes(_mended(mending, record, file, counted, first))
        if folder is None:
            return
        beside, _ = _folders(root)[""]
        stems = _by_stem(find_files(root, beside, ".xml"), beside)
        for file in sorted(folder.glob("*.txt")):
            part = _PART_OF_LIST.get(file.stem.lower(), "" if "" in mending.data.source.parts else file.stem)
            lines = read_lines(file)
            named = {line: stems.get(_stem(line, stems), "") for line in lines}
            if folder != root or part in mending.data.source.parts:
                keep = [line for line, name in named.items() if name in written and (part, name) not in removed]
                mending.write_lines(mending.inside(file), keep, lines)


_PART_OF_LIST = {"trainval": "train", **PART_OF}


def _folders(path: Path) -> dict[str, tuple[str, str]]:
    """Folders of (annotations, images) by part; "" for all of them. {} when it is another layout."""
    found: dict[str, tuple[str, str]] = {}
    for part, names in PARTS.items():
        inside = folder_of(path, (names,))
        if pair := _pair(path, after=(names,)) or _pair(path, before=(names,)):
            found[part] = pair
        elif inside and _is_voc((path / inside).glob("*.xml")):
            found[part] = (inside, inside)
    whole = None if "train" in found and _list_folder(path) is None else _pair(path)
    if whole is not None:
        return {"": whole}
    children = (file for file in path.glob("*/*.xml") if not is_hidden(file.parent.name))
    return found or ({"": ("", "")} if _is_voc(chain(path.glob("*.xml"), children)) else {})


def _pair(path: Path, before: _Steps = (), after: _Steps = ()) -> tuple[str, str] | None:
    """Folders of (annotations, images) below `path`, below and above folders of these names."""
    base = folder_of(path, before) if before else ""
    if before and not base:
        return None
    inside = {name.lower(): below(path, path / base / name) for name in subfolders(path / base)}
    for name in (each for each in ANNOTATION_FOLDERS if each in inside):
        folder = folder_of(path / inside[name], after)
        place = path / inside[name] / folder
        if (folder or not after) and _is_voc(path / each for each in walk(path, below(path, place))):
            return below(path, place), folder_of(path, (*before, IMAGE_FOLDERS, *after)) or base
    return None


def _is_voc(files: Iterable[Path]) -> bool:
    """Whether the first XML file among these is VOC's, by its beginning; a damaged one may be."""
    first = next((file for file in files if file.suffix.lower() == ".xml" and not is_hidden(file.name)), None)
    begin = b"" if first is None else beginning(first)
    is_inside = first is not None and first.parent.name.lower() in ANNOTATION_FOLDERS
    return b"<annotations" not in begin and (b"<annotation" in begin or is_inside)


def _by_stem(names: Iterable[str], folder: str) -> dict[str, str]:
    """Files below the root by their path below `folder` without ending, the first by name where there are two."""
    return {stem_below(name, folder): name for name in sorted(names, reverse=True)}


def part_lists(folder: Path, others: bool = True) -> dict[str, tuple[Path, list[str]]]:
    """The lists of images in a folder by part; trainval counts as training where there is no train. Where none has the
    name of a part, all are the part ""."""
    files = {file.stem.lower(): file for file in sorted(folder.glob("*.txt"))}
    named = ((part, files[name]) for name, part in _PART_OF_LIST.items() if name in files)
    found = {part: (file, lines) for part, file in named if (lines := read_lines(file))}
    if not found and others and files:
        lines = [line for file in files.values() for line in read_lines(file)]
        found = {"": (next(iter(files.values())), lines)} if lines else {}
    return found


def _list_folder(path: Path) -> Path | None:
    """The folder with lists of images, if there is one."""
    sets = folder_of(path, (("imagesets",), ("main",))) or folder_of(path, (("imagesets",),))
    folder = path / sets
    return folder if part_lists(folder, others=bool(sets)) else None


def _listed(path: Path, stems: dict[str, str], findings: list[Finding]) -> dict[str, tuple[Path, list[str]]]:
    """The lists by part, with the annotations that each line means."""
    folder = _list_folder(path)
    lists = {} if folder is None else part_lists(folder, others=folder != path)
    found: dict[str, tuple[Path, list[str]]] = {}
    for part, (file, lines) in lists.items():
        named = [_stem(line, stems) for line in lines]
        found[part] = (file, list(dict.fromkeys(named)))
        if len(found[part][1]) < len(named):
            twice = sorted(stem for stem, count in Counter(named).items() if count > 1)
            message = f"{below(path, file)} lists {len(twice)} image(s) more than once: {some(twice, 3)}"
            findings.append(finding("listed-twice", twice, message))
    if folder == path and not any(stem in stems for _, named in found.values() for stem in named):
        return {}  # lists of something else
    lacking = sorted(stems.keys() - {stem for _, named in found.values() for stem in named}) if found else ()
    if lacking:
        message = (
            f"{number_of(len(lacking), 'annotation file is', 'annotation files are')} in no list: {some(lacking, 3)}"
        )
        findings.append(finding("unlisted", [stems[stem] for stem in lacking], message))
    return found


def _stem(line: str, stems: dict[str, str]) -> str:
    """The annotation that a line of a list means: its path without ending, perhaps with folders before it or a mark
    behind, as lists of one class have it."""
    whole = listed_name(line)
    for text in (whole, _MARK.sub("", whole), listed_name(line.split()[0])):
        bare = text.removesuffix(ending(text)) if ending(text) in (*EXTENSIONS, ".xml") else text
        steps = bare.split("/")
        for stem in (text, *("/".join(steps[at:]) for at in range(len(steps)))):
            if stem in stems:
                return stem
    return whole


def _without_xml(stems: dict[str, str], pictures: dict[str, str]) -> list[Finding]:
    lacking = sorted(name for stem, name in pictures.items() if stem not in stems)
    if not lacking or len(lacking) == len(pictures):
        return []
    message = f"{number_of(len(lacking), 'image has', 'images have')} no annotation file: {some(lacking, 3)}"
    return [finding("no-annotation", lacking, message)]


def _record(
    root: Path, file: Path, images: str, stem: str, stems: dict[str, str], pictures: dict[str, str],
    findings: list[Finding], written: Counter[str],
) -> Record | None:  # fmt: skip
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
    image = pictures.get(stem) or _named(document, stem, images, stems, pictures)
    objects = tuple(
        _object(item, key, written) for key, item in enumerate(document.findall("object"))
        if (item.findtext("deleted") or "").strip() != "1"  # LabelMe's
    )  # fmt: skip
    return Record(image, objects, _size(document), None, file)


def _named(
    document: ElementTree.Element, stem: str, images: str, stems: dict[str, str], pictures: dict[str, str]
) -> str:
    """The image that an annotation names, where none has the name of the annotation file. A name that another
    annotation file has is that of a copy."""
    usual = next((ending(name) for other, name in pictures.items() if other.casefold() == stem.casefold()), ".jpg")
    named = Path(listed_name(document.findtext("filename") or "") or f"{stem}{usual}")
    if named.stem != Path(stem).name and (named.stem in stems or named.suffix.lower() not in EXTENSIONS):
        named = Path(stem + usual)
    folder = Path(images) if len(named.parts) > 1 else Path(images) / Path(stem).parent
    return (folder / named.name if len(named.parts) < 2 else folder / named).as_posix()


def load_voc(file: Path) -> ElementTree.Element:
    """The <annotation> of a VOC file. Raises UserError when it cannot be read, or is cut short."""
    data = read_file(file)
    try:
        root = parse_xml(data)
    except ValueError as error:
        what = "is damaged" if data.rstrip().endswith(b"</annotation>") else "is cut short"
        raise UserError(f"{file} {what}: {error}. Copy or write it again.") from error
    if root.tag != "annotation":
        raise UserError(f"{file} is no VOC annotation: its first element is <{root.tag}>, expected <annotation>.")
    return root


def _size(document: ElementTree.Element) -> Size | None:
    sides = (("size/width", "imagesize/ncols"), ("size/height", "imagesize/nrows"))
    return size_of(*(document.findtext(one) or document.findtext(other) for one, other in sides))


def _object(item: ElementTree.Element, key: int, written: Counter[str]) -> RawObject:
    """An object, as if coordinates counted from 1; `written` counts how boxes are written."""
    label = (item.findtext("name") or "").strip()
    difficult = (item.findtext("difficult") or "0").strip() == "1"
    texts = {corner: (item.findtext(f"bndbox/{corner}") or "").strip() for corner in _CORNERS}
    fault, box, region = None, (0.0, 0.0, 0.0, 0.0), None
    try:
        outline = [float(each.text or "") for each in item.iterfind("polygon//*") if _POINT.fullmatch(each.tag)]
        if len(outline) >= 6 and item.findtext("type") != "bounding_box":
            region = polygons([outline])
        if outline and not any(texts.values()):
            box = (min(outline[0::2]), min(outline[1::2]), max(outline[0::2]), max(outline[1::2]))
        else:
            x1, y1, x2, y2 = map(float, texts.values())
            box = (x1 - 1, y1 - 1, x2, y2)
            written.update(box=1, zero=x1 == 0 or y1 == 0, decimal=any("." in text for text in texts.values()))
            if x2 <= x1 or y2 <= y1:
                shown = ", ".join(f"{corner} {text}" for corner, text in texts.items())
                fault = Fault("empty-box", f"the box has no area ({shown})")
    except ValueError:
        lacking = ", ".join(corner for corner, text in texts.items() if not text)
        fault = Fault("bad-object", f"its bndbox lacks {lacking}" if lacking else "its bndbox holds no numbers")
    if not label:
        fault = Fault("unknown-category", "it has no name")
    return RawObject(f"object {key + 1}", key, label, box, difficult, region, fault=fault)


def _from_0(record: Record) -> Record:
    """The same of a file whose coordinates count from 0, and do not include the last pixel."""

    def moved(thing: RawObject) -> RawObject:
        x1, y1, x2, y2 = thing.box
        return replace(thing, box=(x1 + 1, y1 + 1, x2, y2))

    return replace(record, objects=tuple(map(moved, record.objects)))


def _mended(mending: Mending, record: Record, file: Path, counted: Counter[str], first: int) -> bytes:
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
            corners = (box[0] + first, box[1] + first, box[2], box[3])
            for corner, value in zip(_CORNERS, corners, strict=True):
                _set_text(item, f"bndbox/{corner}", f"{value:g}" if first else f"{value:.2f}")
    return file.read_bytes() if counted.total() == before else ElementTree.tostring(document, encoding="utf-8")


def _set_text(root: ElementTree.Element, path: str, text: str) -> None:
    element = root.find(path)
    if element is not None:
        element.text = text
