"""`resurge predict RUN|EXPORT images-or-folders…`: the results of a trained network on images."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from resurge.cli import options as opt
from resurge.config import Limits
from resurge.errors import UserError
from resurge.files import require_apart
from resurge.quantities import number_of
from resurge.tasks.table import get_task

# Options that only some tasks take, by destination; not given, they are None.
PARTICULAR = ("top", "score", "overlays", "coco_json", "max_size", "scales", "flip", "window")


def add_options(parser: opt.Parser) -> None:
    opt.add(parser, "run", "RUN|EXPORT", "a folder that `resurge train` or `resurge export` wrote")
    opt.add(parser, "images", "IMAGE", "image files, or folders that are searched for them", nargs="+")
    opt.add_best(parser)
    opt.add_json(parser)
    parser.add_argument("--csv", action="store_true", help="print CSV")
    about = "write to FILE.csv or FILE.json instead of printing; segmenters: a folder for the label maps, as PNG"
    opt.add(parser, "--out", "FILE|DIR", about)
    about = "write activation maps (classifiers: of the class too) of each image to DIR, and what its attention weighed"
    opt.add(parser, "--explain", "DIR", about)
    opt.add(parser, "--overlays", "DIR", "not classifiers: write each image with what was found on it")
    opt.add_max_size(parser)
    opt.add_device(parser)
    opt.add(parser, "--threads", opt.COUNT, "threads of the arithmetic (default: the runtime's)")
    opt.add_batch_size(parser, "32 for a classifier, else 1")
    only = parser.add_argument_group("classifiers only")
    opt.add(only, "--top", (opt.COUNT[0], "K"), "classes per image (default: 1)")
    only = parser.add_argument_group("detectors and instance segmenters only")
    share = (opt.value(float, Limits(low=0, high=1)), "X")
    opt.add(only, "--score", share, "leave out what has a lower score (default: 0.5)")
    about = "write all that was found as one COCO file; --score 0 keeps what its scores need"
    opt.add(only, "--coco-json", "FILE", about)
    opt.add_tta(parser)
    parser.epilog = "Files that cannot be read are reported and skipped; the exit code is then 1."


def run(options: argparse.Namespace) -> int:
    if options.json and options.csv:
        raise UserError("--json and --csv are two forms of the same output. Choose one.")
    files = _find_files(options.images)
    _keep_apart(options, files)
    from resurge.cli.prediction_files import ImageFiles, Listing
    from resurge.data.bands import OtherBands, naming
    from resurge.data.images import UnreadableImage, open_image
    from resurge.infer.predictor import Predictor

    predictor = Predictor(options.run, options.device, options.threads, best=options.best)
    for note in predictor.notes:
        opt.log(note)
    task = get_task(predictor.task)
    opt.require_taken(options, options.run, task.name, PARTICULAR, task.predict_options)
    if task.label_maps and options.out and Path(options.out).suffix in (".json", ".csv"):
        raise UserError(
            f"--out {options.out}: {predictor.folder} is a {task.noun}, and --out is the folder its label maps are "
            "written to. Give a folder, and send --json or --csv to a file with > FILE."
        )
    if options.max_size is not None:
        predictor.preprocessing = task.adjust(predictor.preprocessing, {"max_size": options.max_size})
    beside = ImageFiles(predictor, options, options.out if task.label_maps else None)
    beside.require_free(files)
    file = None if task.label_maps else options.out
    listing = Listing(_style(options, file), file, task, predictor.classes, options.top)
    score, tta = task.shown_score if options.score is None else options.score, opt.tta_of(options, predictor.views)
    batch = options.batch_size or task.predict_batch
    for start in range(0, len(files), batch):
        opened = {}
        for path in files[start : start + batch]:
            try:
                image = open_image(path)
                with naming(str(path)):
                    predictor.preprocessing.require(image)
                opened[path] = image
            except (UnreadableImage, OtherBands) as error:
                listing.skip(path, str(error))
                opt.log(f"skipped {error}")
        results = predictor.predict(list(opened.values()), score=score, views=tta)
        for (path, image), result in zip(opened.items(), results, strict=True):
            listing.add(path, image, result, beside.write(path, image, result))
    beside.finish()
    listing.finish()
    if listing.skipped:
        opt.log(f"{len(listing.skipped)} of {number_of(len(files), 'file')} skipped.")
    return 1 if listing.skipped else 0


def _style(options: argparse.Namespace, file: str | None) -> str:
    """The form of the output: json, csv or text."""
    if options.json or options.csv:
        return "json" if options.json else "csv"
    if not file:
        return "text"
    style = Path(file).suffix.removeprefix(".")
    if style not in ("json", "csv"):
        raise UserError(f"--out {file}: expected a file that ends in .csv or .json, or --csv or --json with it.")
    return style


def _keep_apart(options: argparse.Namespace, files: Sequence[Path]) -> None:
    """Raises UserError when pictures would be written onto each other, or at, in or above those that are read."""
    named = {f"--{name}": getattr(options, name) for name in ("out", "overlays", "explain", "coco_json")}
    folders = {name: Path(path).resolve() for name, path in named.items() if path}
    read = {file.parent: file for file in files}.values()  # one file in each folder
    for name, folder in folders.items():
        twin = next((other for other in folders if other != name and folders[other] == folder), None)
        if twin is not None:
            raise UserError(f"{name} and {twin} name the same folder, {folder}. Give each one of its own.")
        require_apart(folder, (*filter(os.path.isdir, options.images), *read), name.replace("_", "-"))


def _find_files(paths: Sequence[str]) -> list[Path]:
    """The files named, and the images in the folders named, each once, in that order.

    A file that is missing stays in the list: it is reported when its turn comes, and the others are done.
    """
    from resurge.data.paths import find_images

    found: dict[Path, None] = {}
    if not all(path.strip() for path in paths):
        raise UserError("an empty name was given for an image. Expected image files, or folders of them.")
    for path in map(Path, paths):
        if not path.is_dir():
            found[path] = None
            continue
        images, others = find_images(path, "")
        if not images:
            raise UserError(f"{path} has no images in it. Expected files such as {path / '1.jpg'}.")
        if others:
            count, first = ("1 file", "") if len(others) == 1 else (f"{len(others)} files", " the first is")
            opt.log(f"passed over {count} without an image's ending in {path},{first} {others[0]}.")
        found.update(dict.fromkeys(path / image for image in images))
    return list(found)
