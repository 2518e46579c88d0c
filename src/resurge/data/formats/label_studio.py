"""Label Studio's own exports: JSON, JSON-MIN, and CSV, with boxes and outlines in hundredths of the image's sides."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from resurge.data.findings import Finding, broken_annotations, finding
from resurge.data.fit import Size, size_of
from resurge.data.formats.format import Format
from resurge.data.formats.shapes import boxed, fields_of, list_of, outlined, read_document, shape_source
from resurge.data.formats.tables import first_line, read_sheet
from resurge.data.images import is_image_name
from resurge.data.object_source import ObjectSource
from resurge.data.paths import beginning, listed_name
from resurge.data.records import Fault, RawObject, Record
from resurge.errors import UserError
from resurge.quantities import number_of
from resurge.untrusted import parse_json

_SHAPES = re.compile(rb'"(?:rectangle|polygon|brush|ellipse|keypoint)labels"|"choices?"')
_TASKS = re.compile(rb'"(?:annotations|annotation_id|annotator|completions)"\s*:')
_COLUMNS = ("annotator", "annotation_id", "lead_time")

_Fields = dict[str, object]


class LabelStudio(Format):
    """A .json or .csv file, or a folder with one .json beside the images or images/. An image that several people
    annotated has the first annotation; images without one are left out."""

    name = "label_studio"
    annotations = ("boxes", "masks")
    expected = "Label Studio: its JSON, JSON-MIN or CSV, with images/"
    particular = True

    def recognise(self, path: Path) -> bool:
        return _file(path) is not None

    def read(self, path: Path) -> ObjectSource:
        file = _file(path) or path
        findings: list[Finding] = []
        passed: Counter[str] = Counter()
        records: list[Record] = []
        bare: list[str] = []
        try:
            for key, task in enumerate(_tasks(file)):
                name, results = _image(task), _results(task)
                if results is None:
                    bare.append(name)
                    continue
                records.append(_record(name, key, results, file, passed))
        except UserError as error:
            findings.append(broken_annotations(file.name, error))
        if bare:
            message = f"{number_of(len(bare), 'image has', 'images have')} no annotation: {', '.join(bare[:3])}"
            findings.append(finding("no-annotation", bare, message))
        if set(passed) == {"choices"} and not any(record.objects for record in records):
            raise UserError(
                f"{file} has choices but no shapes: classes of images. Export them as CSV, and train a classifier."
            )
        return shape_source(self.name, file.parent, {"": records}, f"the tasks of {file.name}", findings, passed)


def _file(path: Path) -> Path | None:
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    for file in files:
        if file.suffix.lower() == ".json":
            begin = beginning(file)
            if begin.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"[") and _TASKS.search(begin) and _SHAPES.search(begin):
                return file
        elif file.suffix.lower() == ".csv" and b"labels" in beginning(file):
            sheet = first_line(file)
            if any(name in sheet.header for name in _COLUMNS):
                return file
    return None


def _tasks(file: Path) -> Iterator[_Fields]:
    """The tasks of a file. Raises UserError when it cannot be read."""
    if file.suffix.lower() == ".csv":
        sheet = read_sheet(file)
        for _, fields in sheet.rows:
            yield {name: _value(text) for name, text in zip(sheet.names, fields, strict=False)}
        return
    document = read_document(file)
    if not isinstance(document, list) or not all(isinstance(task, dict) for task in document):
        raise UserError(f"{file} is no list of tasks. Export it again.")
    yield from document


def _value(text: str) -> object:
    if text.startswith("[{"):
        try:
            return parse_json(text)
        except ValueError:
            return text
    return text


def _image(task: _Fields) -> str:
    """The image of a task: the first value that is the name of one."""
    values = (value for value in (fields_of(task.get("data")) or task).values() if isinstance(value, str))
    names = (name for name in map(listed_name, values) if is_image_name(name.rsplit("/", 1)[-1]))
    return next(names, f"task {task.get('id')}")


def _results(task: _Fields) -> list[_Fields] | None:
    """The shapes of a task; None when nobody has annotated it."""
    done = task.get("annotations", task.get("completions"))
    if isinstance(done, list):
        good = [each for each in map(fields_of, done) if each and not each.get("was_cancelled")]
        found = [fields_of(each) for each in list_of(good[0].get("result"))] if good else []
        return [{**each, **fields_of(each.get("value"))} for each in found] if good else None
    found = [each for value in task.values() for each in map(fields_of, list_of(value)) if each]
    return [*found, *({"choices": value} for key, value in task.items() if key in ("choice", "choices"))]


def _record(name: str, key: int, results: list[_Fields], file: Path, passed: Counter[str]) -> Record:
    size: Size | None = None
    objects = []
    for number, shape in enumerate(results):
        size = size_of(shape.get("original_width"), shape.get("original_height")) or size
        kind = next((each for each in shape if each.endswith("labels") and isinstance(shape[each], list)), "choices")
        thing = _object(shape, kind, number, size)
        if thing is None:
            passed[kind] += 1
        else:
            objects.append(thing)
    return Record(name, tuple(objects), size, None, file, key)


def _object(shape: _Fields, kind: str, key: int, size: Size | None) -> RawObject | None:
    """An object, or None for a shape of another kind."""
    if kind not in ("rectanglelabels", "polygonlabels", "labels"):
        return None
    where, labels = f"result {key + 1}", shape.get(kind)
    label = str(labels[0]) if isinstance(labels, list) and labels else ""
    if size is None:
        return RawObject(where, key, label, fault=Fault("bad-object", "the size of its image is not given"))
    try:
        if isinstance(points := shape.get("points"), list):
            outline = [float(value) * side / 100 for point in points for value, side in zip(point, size, strict=True)]
            return outlined(where, key, label, [outline])
        x, y, w, h = (float(str(shape.get(name))) for name in ("x", "y", "width", "height"))
    except (TypeError, ValueError):
        return RawObject(where, key, label, fault=Fault("bad-object", "it has no numbers x, y, width and height"))
    box = (x * size[0] / 100, y * size[1] / 100, (x + w) * size[0] / 100, (y + h) * size[1] / 100)
    return boxed(where, key, label, box, shape.get("rotation"), "corner")
