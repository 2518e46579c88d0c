"""`resurge predict RUN|EXPORT images-or-folders…`: the results of a trained network on images."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from resurge.cli.options import (
    Parser,
    add_batch_size,
    add_device,
    add_json,
    add_max_size,
    add_views,
    require_taken,
    share,
    tta_of,
    whole_number,
)
from resurge.errors import UserError
from resurge.tasks.table import get_task

if TYPE_CHECKING:
    from PIL.Image import Image

    from resurge.infer.predictor import Predictor
    from resurge.tasks.result import Result
    from resurge.tasks.tta import TTA

# Options that only some tasks take, by destination; not given, they are None.
PARTICULAR = ("top", "score", "overlays", "coco_json", "max_size", "scales", "flip", "window")


def add_options(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN|EXPORT", help="a folder that `resurge train` or `resurge export` wrote")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files, or folders that are searched for them")
    add_json(parser)
    parser.add_argument("--csv", action="store_true", help="print CSV")
    about = "write to FILE.csv or FILE.json instead of printing; segmenters: a folder for the label maps, as PNG"
    parser.add_argument("--out", metavar="FILE|DIR", help=about)
    about = "write activation maps (classifiers: of the class too) of each image to DIR, and what its attention weighed"
    parser.add_argument("--explain", metavar="DIR", help=about)
    parser.add_argument("--overlays", metavar="DIR", help="not classifiers: write each image with what was found on it")
    add_max_size(parser)
    add_device(parser)
    about = "threads of the arithmetic (default: the runtime's)"
    parser.add_argument("--threads", type=whole_number(1), metavar="N", help=about)
    add_batch_size(parser, "32 for a classifier, else 1")
    only = parser.add_argument_group("classifiers only")
    only.add_argument("--top", type=whole_number(1), metavar="K", help="classes an image (default: 1)")
    only = parser.add_argument_group("detectors and instance segmenters only")
    only.add_argument("--score", type=share, metavar="X", help="leave out what has a lower score (default: 0.5)")
    about = "write all that was found as one COCO file; --score 0 keeps what its scores need"
    only.add_argument("--coco-json", metavar="FILE", help=about)
    add_views(parser)
    parser.epilog = "Files that cannot be read are reported and skipped; the exit code is then 1."


def run(options: argparse.Namespace) -> int:
    if options.json and options.csv:
        raise UserError("--json and --csv are two forms of the same output. Choose one.")
    files = find_files(options.images)
    _keep_apart(options, files)
    from resurge.cli.image_files import ImageFiles
    from resurge.infer.predictor import Predictor

    predictor = Predictor(options.run, options.device, options.threads)
    for note in predictor.notes:
        print(f"resurge: {note}", file=sys.stderr)
    task = get_task(predictor.task)
    require_taken(options, options.run, task.name, PARTICULAR, task.predict_options)
    to_file = options.out is not None and not task.maps_out
    style = _style(options, to_file)
    if options.max_size is not None:
        predictor.preprocessing = task.adjust(predictor.preprocessing, {"max_size": options.max_size})
    written = ImageFiles(predictor, options, options.out if task.maps_out else None)
    if task.maps_out and options.out and Path(options.out).suffix in (".json", ".csv"):
        raise UserError(
            f"--out {options.out}: {predictor.folder} is a {task.noun}, and --out is the folder its label maps are "
            "written to. Give a folder, and send --json or --csv to a file with > FILE."
        )
    output = Output(style, predictor, min(options.top or 1, len(predictor.classes)), live=not to_file)
    score, tta = task.shown_score if options.score is None else options.score, tta_of(options, predictor.views)
    for found in predictions(predictor, files, options.batch_size or task.predict_batch, score, tta):
        if isinstance(found, Skipped):
            output.skipped.append({"path": str(found.path), "problem": found.problem})
            print(f"resurge: skipped {found.problem}", file=sys.stderr)
        else:
            written.write(*found)
            output.add(found, written.map_of(found.path))
    written.finish()
    text = output.end()
    if to_file:
        from resurge.files import atomic_write_bytes

        atomic_write_bytes(options.out, text.encode("utf-8", "backslashreplace"))
    if output.skipped:
        print(f"resurge: {len(output.skipped)} of {len(files)} files skipped.", file=sys.stderr)
    return 1 if output.skipped else 0


def _style(options: argparse.Namespace, to_file: bool) -> str:
    by_suffix = {".json": "json", ".csv": "csv"}.get(Path(options.out).suffix) if options.out and to_file else None
    if options.json or options.csv:
        return "json" if options.json else "csv"
    if options.out and to_file and by_suffix is None:
        raise UserError(f"--out {options.out}: expected a file that ends in .csv or .json, or --csv or --json with it.")
    return by_suffix or "text"


def _keep_apart(options: argparse.Namespace, files: Sequence[Path]) -> None:
    """Raises UserError when pictures would be written onto each other, or onto those that are read."""
    named = {f"--{name}": getattr(options, name) for name in ("out", "overlays", "explain")}
    folders = {option: Path(value).resolve() for option, value in named.items() if value}
    for option, folder in folders.items():
        twin = next((other for other in folders if other != option and folders[other] == folder), None)
        if twin is not None:
            raise UserError(f"{option} and {twin} name the same folder, {folder}. Give each one of its own.")
        if any(file.resolve().parent == folder for file in files):
            raise UserError(f"{option} {folder} holds images that are to be read. Give a folder of its own.")


def find_files(places: Sequence[str]) -> list[Path]:
    """The files named, and the images in the folders named, each once, in that order.

    A file that is missing stays in the list: it is reported when its turn comes, and the others are done.

    Raises:
        UserError: a folder has no images in it, or a name is empty.
    """
    from resurge.data.paths import find_images

    found: dict[Path, None] = {}
    if not all(place.strip() for place in places):
        raise UserError("an empty name was given for an image. Expected image files, or folders of them.")
    for place in map(Path, places):
        if not place.is_dir():
            found[place] = None
            continue
        images, others = find_images(place, "")
        if not images:
            raise UserError(f"{place} has no images in it. Expected files such as {place / '1.jpg'}.")
        if others:
            first = f", the first is {others[0]}" if len(others) > 1 else f", {others[0]}"
            count = f"{len(others)} file{'s' if len(others) > 1 else ''}"
            print(f"resurge: passed over {count} without an image's ending in {place}{first}.", file=sys.stderr)
        found.update(dict.fromkeys(place / image for image in images))
    return list(found)


class Predicted(NamedTuple):
    """The result of one image, which is upright and of mode L or RGB."""

    path: Path
    image: Image
    result: Result


class Skipped(NamedTuple):
    """A file that cannot be read, and why."""

    path: Path
    problem: str


def predictions(
    predictor: Predictor, files: Sequence[Path], batch_size: int, score: float, tta: TTA
) -> Iterator[Predicted | Skipped]:
    """What became of each file, in order."""
    from resurge.data.images import UnreadableImage, open_image

    for start in range(0, len(files), batch_size):
        batch: list[tuple[Path, Image] | Skipped] = []
        for path in files[start : start + batch_size]:
            try:
                batch.append((path, open_image(path)))
            except UnreadableImage as error:
                batch.append(Skipped(path, str(error)))
        images = [opened[1] for opened in batch if not isinstance(opened, Skipped)]
        results = iter(predictor.predict(images, score=score, views=tta))
        for opened in batch:
            yield opened if isinstance(opened, Skipped) else Predicted(*opened, next(results))


class Output:
    """The output as text, CSV or JSON. With `live`, lines are printed as they come."""

    def __init__(self, style: str, predictor: Predictor, top: int, live: bool) -> None:
        self.style, self.classes, self.top, self.live = style, predictor.classes, top, live
        self.task = get_task(predictor.task)
        self.lines: list[str] = []
        self.predicted: list[dict[str, object]] = []
        self.skipped: list[dict[str, str]] = []
        if style == "csv":
            self._row(["path", *self.task.columns(top)])

    def add(self, found: Predicted, map_file: Path | None) -> None:
        """Take the result of one image. map_file: where its label map is."""
        path, image, result = found
        if self.style == "json":
            plain: dict[str, object] = {"path": str(path)}
            if not self.task.one_size:
                plain |= {"width": image.width, "height": image.height}
            if map_file is not None:
                plain["map"] = str(map_file)
            self.predicted.append(plain | result.to_json(self.classes, self.top))
        elif self.style == "csv":
            for row in result.to_rows(self.classes, self.top):
                self._row([str(path), *row])
        else:
            self._line(f"{path}  {result.to_text(self.classes, self.top)}")

    def end(self) -> str:
        """Everything as one text; JSON is printed now."""
        if self.style == "json":
            self._line(json.dumps({"images": self.predicted, "skipped": self.skipped}, indent=2, ensure_ascii=False))
        return "\n".join(self.lines) + "\n" if self.lines else ""

    def _row(self, cells: Sequence[str]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(cells)
        self._line(text.getvalue())

    def _line(self, line: str) -> None:
        if self.live:
            print(line)
        else:
            self.lines.append(line)
