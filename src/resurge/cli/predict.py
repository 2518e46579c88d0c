"""`resurge predict RUN images-or-folders…`: class names and scores for images."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from resurge.cli.options import Parser, add_batch_size, add_device, add_json, whole_number
from resurge.errors import UserError

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from resurge.training.run import Run


def add_options(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a folder that `resurge train` wrote")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files, or folders that are searched for them")
    parser.add_argument("--top", type=whole_number(1), default=1, metavar="K", help="classes an image (default: 1)")
    add_json(parser)
    parser.add_argument("--csv", action="store_true", help="print CSV")
    parser.add_argument("--out", metavar="FILE", help="write to FILE.csv or FILE.json instead of printing")
    parser.add_argument(
        "--explain", metavar="DIR", help="write class-activation and attention overlays of each image to DIR"
    )
    add_device(parser)
    add_batch_size(parser, 32)
    parser.epilog = "Files that cannot be read are reported and skipped; the exit code is then 1."


class Prediction(NamedTuple):
    """The most probable classes of a file, or why there are none. `tensor` is what the network saw."""

    path: Path
    scores: tuple[tuple[str, float], ...]
    problem: str = ""
    image: Image.Image | None = None
    tensor: torch.Tensor | None = None


def run(options: argparse.Namespace) -> int:
    style = _style(options)
    files = find_files(options.images)
    from resurge.training.evaluate import pick_device
    from resurge.training.run import load_run

    device = pick_device(options.device)
    trained = load_run(options.run, device)
    overlays = None
    if options.explain:
        from resurge.cli.explained import Overlays

        overlays = Overlays(trained, Path(options.explain))
    writer = Writer(style, min(options.top, len(trained.classes)), live=options.out is None)
    skipped = 0
    for prediction in predictions(trained, files, batch_size=options.batch_size, device=device, top=options.top):
        if prediction.problem:
            skipped += 1
            print(f"resurge: skipped {prediction.problem}", file=sys.stderr)
        elif overlays is not None and prediction.tensor is not None:
            overlays.write(prediction.path, prediction.image, prediction.tensor)
        writer.add(prediction)
    if overlays is not None:
        overlays.finish()
    text = writer.end()
    if options.out is not None:
        from resurge.files import atomic_write_bytes

        atomic_write_bytes(options.out, text.encode("utf-8", "backslashreplace"))
    if skipped:
        print(f"resurge: {skipped} of {len(files)} files skipped.", file=sys.stderr)
    return 1 if skipped else 0


def _style(options: argparse.Namespace) -> str:
    if options.json and options.csv:
        raise UserError("--json and --csv are two forms of the same output. Choose one.")
    by_suffix = {".json": "json", ".csv": "csv"}.get(Path(options.out).suffix) if options.out else None
    if options.json or options.csv:
        return "json" if options.json else "csv"
    if options.out and by_suffix is None:
        raise UserError(f"--out {options.out}: expected a file that ends in .csv or .json, or --csv or --json with it.")
    return by_suffix or "text"


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


def predictions(trained: Run, files: Sequence[Path], *, batch_size: int, device: Any, top: int) -> Iterator[Prediction]:
    """One `Prediction` a file, in order."""
    from resurge.data.images import UnreadableImage, open_image

    for start in range(0, len(files), batch_size):
        batch: list[Prediction] = []
        for path in files[start : start + batch_size]:
            try:
                image = open_image(path)
            except UnreadableImage as error:
                batch.append(Prediction(path, (), str(error)))
            else:
                batch.append(Prediction(path, (), image=image, tensor=trained.preprocessing(image)))
        yield from _scored(trained, batch, device, top)


def _scored(trained: Run, batch: Sequence[Prediction], device: Any, top: int) -> Iterator[Prediction]:
    import torch

    tensors = [prediction.tensor for prediction in batch if prediction.tensor is not None]
    if tensors:
        with torch.inference_mode():
            shares = trained.model(torch.stack(tensors).to(device)).float().softmax(1).cpu()
        best = shares.topk(min(top, shares.shape[1]), 1)
        rows = iter(zip(best.values.tolist(), best.indices.tolist(), strict=True))
    for prediction in batch:
        if prediction.tensor is None:
            yield prediction
            continue
        values, indices = next(rows)
        scores = tuple((trained.classes[index], value) for index, value in zip(indices, values, strict=True))
        yield prediction._replace(scores=scores)


class Writer:
    """The output in one of its forms. With `live`, lines are printed as they come."""

    def __init__(self, style: str, top: int, live: bool) -> None:
        self.style = style
        self.live = live
        self.lines: list[str] = []
        self.predicted: list[dict[str, Any]] = []
        self.skipped: list[dict[str, str]] = []
        if style == "csv":
            self._line(_csv_row(["path", *(f"{what}_{k}" for k in range(1, top + 1) for what in ("class", "score"))]))

    def add(self, prediction: Prediction) -> None:
        """Take one prediction; files that were skipped appear in JSON only."""
        path = str(prediction.path)
        if prediction.problem:
            self.skipped.append({"path": path, "problem": prediction.problem})
        elif self.style == "json":
            ranked = [{"class": name, "score": score} for name, score in prediction.scores]
            self.predicted.append({"path": path, "predictions": ranked})
        elif self.style == "csv":
            cells = (cell for name, score in prediction.scores for cell in (name, f"{score:.6f}"))
            self._line(_csv_row([path, *cells]))
        else:
            self._line("  ".join([path, *(f"{name} {100 * score:.2f} %" for name, score in prediction.scores)]))

    def end(self) -> str:
        """Everything as one text; JSON is printed now."""
        if self.style == "json":
            self._line(json.dumps({"images": self.predicted, "skipped": self.skipped}, indent=2, ensure_ascii=False))
        return "\n".join(self.lines) + "\n" if self.lines else ""

    def _line(self, line: str) -> None:
        if self.live:
            print(line)
        else:
            self.lines.append(line)


def _csv_row(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()
