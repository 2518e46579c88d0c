"""`resurge predict RUN|EXPORT images-or-folders…`: what a trained network says of images."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurge.cli.options import (
    Parser,
    add_batch_size,
    add_device,
    add_json,
    add_max_size,
    add_views,
    share,
    whole_number,
)
from resurge.errors import UserError

if TYPE_CHECKING:
    from resurge.cli.predicting.contract import Opened, Predicting

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
    from resurge.cli.predicting import predicting_of
    from resurge.cli.predicting.contract import Asked
    from resurge.infer.predictor import Predictor

    predictor = Predictor(options.run, options.device, options.threads)
    for note in predictor.notes:
        print(f"resurge: {note}", file=sys.stderr)
    task = predictor.task
    kind = predicting_of(task)
    _require_known(options, task, kind)
    style = _style(options, to_file=task != "segment")
    predicting = kind(Asked(predictor, options))
    to_file = options.out is not None and task != "segment"
    writer = Writer(style, predicting, live=not to_file)
    skipped = 0
    for opened, answer in answers(predicting, files, options.batch_size or kind.batch_size):
        if isinstance(opened, Path):
            skipped += 1
            print(f"resurge: skipped {answer}", file=sys.stderr)
            writer.skip(opened, answer)
        else:
            predicting.write(opened, answer)
            writer.add(opened, answer)
    predicting.finish()
    text = writer.end()
    if to_file:
        from resurge.files import atomic_write_bytes

        atomic_write_bytes(options.out, text.encode("utf-8", "backslashreplace"))
    if skipped:
        print(f"resurge: {skipped} of {len(files)} files skipped.", file=sys.stderr)
    return 1 if skipped else 0


def _style(options: argparse.Namespace, to_file: bool) -> str:
    by_suffix = {".json": "json", ".csv": "csv"}.get(Path(options.out).suffix) if options.out and to_file else None
    if options.json or options.csv:
        return "json" if options.json else "csv"
    if options.out and to_file and by_suffix is None:
        raise UserError(f"--out {options.out}: expected a file that ends in .csv or .json, or --csv or --json with it.")
    return by_suffix or "text"


def _require_known(options: argparse.Namespace, task: str, kind: type[Predicting]) -> None:
    """Raises UserError for an option that means nothing for the run's task."""
    given = [name for name in PARTICULAR if getattr(options, name) is not None and name not in kind.takes]
    if given:
        words = ", ".join("--" + name.replace("_", "-") for name in given)
        raise UserError(f"{options.run} is of the task {task}, which has no use for {words}. Leave it out.")


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
    from resurge.data.folders import find_images

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


def answers(
    predicting: Predicting, files: Sequence[Path], batch_size: int
) -> Iterator[tuple[Opened, Any] | tuple[Path, str]]:
    """For each file, in order: the picture and the answer, or the path and why it cannot be read."""
    from resurge.cli.predicting.contract import Opened
    from resurge.data.images import UnreadableImage, open_image

    for start in range(0, len(files), batch_size):
        batch: list[Opened | tuple[Path, str]] = []
        for path in files[start : start + batch_size]:
            try:
                batch.append(Opened(path, open_image(path)))
            except UnreadableImage as error:
                batch.append((path, str(error)))
        readable = [entry for entry in batch if isinstance(entry, Opened)]
        given = iter(predicting.predict(readable)) if readable else iter(())
        for entry in batch:
            if isinstance(entry, Opened):
                yield entry, next(given)
            else:
                yield entry


class Writer:
    """The output in one of its forms. With `live`, lines are printed as they come."""

    def __init__(self, style: str, predicting: Predicting, live: bool) -> None:
        self.style = style
        self.predicting = predicting
        self.live = live
        self.lines: list[str] = []
        self.predicted: list[dict[str, Any]] = []
        self.skipped: list[dict[str, str]] = []
        if style == "csv":
            self._row(predicting.csv_head())

    def add(self, opened: Opened, answer: Any) -> None:
        """Take one answer."""
        if self.style == "json":
            self.predicted.append({"path": str(opened.path), **self.predicting.json(opened, answer)})
        elif self.style == "csv":
            for row in self.predicting.csv_rows(opened, answer):
                self._row(row)
        else:
            self._line(self.predicting.text(opened, answer))

    def skip(self, path: Path, problem: str) -> None:
        """Take a file that cannot be read; it appears in JSON only."""
        self.skipped.append({"path": str(path), "problem": problem})

    def end(self) -> str:
        """Everything as one text; JSON is printed now."""
        if self.style == "json":
            self._line(json.dumps({"images": self.predicted, "skipped": self.skipped}, indent=2, ensure_ascii=False))
        return "\n".join(self.lines) + "\n" if self.lines else ""

    def _row(self, cells: list[str]) -> None:
        from resurge.cli.predicting.contract import csv_line

        self._line(csv_line(cells))

    def _line(self, line: str) -> None:
        if self.live:
            print(line)
        else:
            self.lines.append(line)
