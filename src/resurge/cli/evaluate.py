"""`resurge eval RUN|MODEL`: scores on labelled images."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurge.cli.options import (
    Parser,
    add_batch_size,
    add_device,
    add_json,
    add_workers,
    number,
    numbers,
    one_of,
    whole_number,
)
from resurge.cli.tables import fixed, percent, print_json, table
from resurge.errors import UserError, suggest

if TYPE_CHECKING:
    from torch import nn

    from resurge.data.bundle import Split
    from resurge.data.preprocessing import Preprocessing
    from resurge.training.run import Run
    from resurge.weights.catalog import Source

SPLITS = ("auto", "train", "val", "test", "all")
# A confusion matrix with more classes than this is wider than a terminal; --json has it all the same.
WIDEST_MATRIX = 20


def add_options(parser: Parser) -> None:
    parser.add_argument("model", metavar="RUN|MODEL", help="a run directory, or the name or text of a network")
    parser.add_argument("--weights", metavar="FILE", help="of a MODEL: a file, hub:owner/name, or pretrained")
    parser.add_argument("--data", metavar="DIR", help="images with labels, as for `resurge train` (default: the run's)")
    parser.add_argument(
        "--split",
        type=one_of(SPLITS, "split"),
        default="auto",
        metavar="NAME",
        help="train, val, test, all or auto: test if there is one, else val (default: auto)",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="write DIR/evaluation.json; DIR may be the run itself, for `resurge report`"
    )
    add_json(parser)
    add_device(parser)
    add_batch_size(parser, 128)
    add_workers(parser)
    parser.add_argument("--precision", default="fp32", metavar="NAME", help="fp32, bf16 or fp16 (default: fp32)")
    seen = parser.add_argument_group("preprocessing", "default: the run's, or what the weights were published with")
    seen.add_argument(
        "--size", type=whole_number(1, 4096), metavar="N", help="side of the image the network sees, pixels"
    )
    seen.add_argument("--crop-pct", type=number, metavar="X", help="that side as a share of the resized short side")
    seen.add_argument("--interpolation", metavar="NAME", help="nearest, box, bilinear, bicubic or lanczos")
    seen.add_argument("--mean", type=numbers, metavar="R,G,B", help="mean of each channel, on a scale of 0..1")
    seen.add_argument("--std", type=numbers, metavar="R,G,B", help="deviation of each channel, on a scale of 0..1")


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is to be scored, on what."""

    name: str
    model: nn.Module
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    split: Split
    which: str
    run: Run | None = None


def run(options: argparse.Namespace) -> int:
    is_run = Path(options.model).is_dir()
    if not is_run and not options.weights:
        raise UserError(_no_weights(options.model))
    if is_run and options.weights:
        raise UserError(f"{options.model} is a run and has weights of its own. Leave --weights out.")
    if not is_run and not options.data:
        raise UserError("a network by name needs --data: a folder of images, a CSV file, or digits.")
    from resurge.data.images import UnreadableImage
    from resurge.training.evaluate import evaluate, write_evaluation

    subject = subject_of_run(options) if is_run else subject_of_model(options)
    try:
        scores = evaluate(
            subject.model,
            subject.split,
            subject.preprocessing,
            subject.classes,
            batch_size=options.batch_size,
            device=options.device,
            precision=options.precision,
            workers=options.workers,
            progress=progress_line("evaluating"),
        )
    except UnreadableImage as error:
        raise UserError(
            f"{error} Scores are over all images; `resurge check-data` finds everything that is wrong with a folder."
        ) from error
    scores = {"model": subject.name, "data": subject.which, "preprocessing": subject.preprocessing.to_json(), **scores}
    if options.out:
        if subject.run is not None and Path(options.out).resolve() == subject.run.folder.resolve():
            _renew(subject.run, scores, subject.split)
        print(f"written: {write_evaluation(options.out, scores)}", file=sys.stderr)
    if options.json:
        print_json(scores)
    else:
        print(as_text(scores, subject.classes))
    return 0


def _renew(run: Run, scores: dict[str, Any], split: Split) -> None:
    """Bring the pictures of a run in line with its new scores."""
    from resurge.cli.explained import explain_run

    explain_run(run, scores, split)


def _no_weights(model: str) -> str:
    from resurge.weights.catalog import entries

    if model.split()[:1] and model.split()[0] in entries():
        return f"{model} names a network; say which weights with --weights FILE, or --weights pretrained."
    return f"expected a run directory or the name of a network with --weights; there is no folder {model}." + suggest(
        model, entries()
    )


def subject_of_run(options: argparse.Namespace) -> Subject:
    """A run, on the data it was trained with unless --data names other."""
    from resurge.data.sources import open_split
    from resurge.training.run import load_run

    run = load_run(options.model)
    source = options.data if options.data is not None else own_data(run)
    split, classes, which = open_split(
        source,
        split=options.split,
        classes=run.classes,
        seed=run.recipe.seed if run.recipe else 0,
        val_fraction=run.recipe.val_fraction if run.recipe else None,
    )
    return Subject(str(options.model), run.model, adjusted(run.preprocessing, options), classes, split, which, run)


def own_data(run: Run) -> str | Path:
    """Where the images of a run are: the list of them that it keeps, or, if they lie in no files, its recipe's source.

    Raises:
        UserError: the run says neither.
    """
    listed = run.folder / "split.csv"
    if listed.is_file():
        _require_whole(run, listed)
        with listed.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            first = next(csv.DictReader(file), None)
        if first is not None and Path(first.get("path") or "").is_absolute():
            return listed
    if run.recipe is None:
        raise UserError(f"{run.folder} does not say what it was trained on. Pass --data.")
    return run.recipe.data


def _require_whole(run: Run, listed: Path) -> None:
    """Raises UserError when the list of a run's images is shorter or longer than the training's."""
    trained = run.meta.get("data")
    sizes = trained.get("sizes") if isinstance(trained, Mapping) else None
    if not isinstance(sizes, Mapping):
        return
    with listed.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        try:
            found = Counter(row.get("split") for row in csv.DictReader(file))
        except csv.Error as error:
            raise UserError(f"{listed} is damaged ({error}). Restore it, or pass --data.") from error
    if dict(found) != dict(sizes):
        wanted = ", ".join(f"{count} {name}" for name, count in sizes.items())
        have = ", ".join(f"{count} {name}" for name, count in found.items()) or "none"
        raise UserError(
            f"{listed} should list the images of the training ({wanted}), but it lists {have}: it was cut short or "
            "changed. Restore it, or pass --data."
        )


def subject_of_model(options: argparse.Namespace) -> Subject:
    """A network by name or text with weights of somebody's, on --data."""
    from resurge.api import create_model
    from resurge.data.preprocessing import Preprocessing
    from resurge.data.sources import open_split
    from resurge.weights.checkpoint import load_weights

    split, classes, which = open_split(options.data, split=options.split)
    model = create_model(options.model, num_classes=len(classes))
    report = load_weights(model, options.weights)
    classifier = report.mismatched.get("head.fc.weight")
    if classifier is not None:
        raise UserError(
            f"{options.weights} tells {classifier[0][0]} classes apart, but {options.data} has {len(classes)}. "
            "Give the data it was trained on, or train on yours: resurge train --weights ..."
        )
    published = published_source(options.model, options.weights)
    preprocessing = Preprocessing(size=224) if published is None else preprocessing_of(published)
    return Subject(
        f"{options.model}, weights {options.weights}", model, adjusted(preprocessing, options), classes, split, which
    )


def published_source(model: str, weights: str) -> Source | None:
    """The catalogue's entry of these weights, by the file's name; otherwise that of the model's preferred ones."""
    from resurge.arch.zoo import canonical_name, get_spec
    from resurge.weights.catalog import entries

    name = canonical_name(get_spec(model))
    sources = entries()[name].sources if name in entries() else ()
    file = Path(weights).name
    return next((s for s in sources if file in (s.file, s.location)), sources[0] if sources else None)


def preprocessing_of(source: Source) -> Preprocessing:
    """What the network of these published weights expects to see."""
    from resurge.data.preprocessing import Preprocessing

    return Preprocessing(
        size=source.size,
        crop_pct=source.crop_pct,
        mean=source.mean,
        std=source.std,
        channels=len(source.mean),
        interpolation=source.interpolation,
    )


def adjusted(preprocessing: Preprocessing, options: argparse.Namespace) -> Preprocessing:
    """`preprocessing` with what the command line says otherwise."""
    names = ("size", "crop_pct", "interpolation", "mean", "std")
    changes = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return dataclasses.replace(preprocessing, **changes)


def progress_line(what: str) -> Callable[[int, int], None] | None:
    """A line on standard error that counts along; None where nobody watches."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        end = "\r" + " " * 60 + "\r" if done >= total else ""
        print(f"\r{what} {done:,} of {total:,}{end}", end="", file=sys.stderr, flush=True)

    return show


def as_text(scores: Mapping[str, Any], classes: Sequence[str]) -> str:
    """The scores for people."""
    parts = [
        str(scores["model"]),
        f"{scores['count']:,} images in {len(classes)} classes: {scores['data']}",
        "",
        f"top-1              {percent(scores['top1'])}",
    ]
    if scores["top5"] is not None:
        parts.append(f"top-5              {percent(scores['top5'])}")
    parts += [
        f"calibration error  {percent(scores['ece'])}",
        f"log-likelihood     {fixed(-scores['nll'], 4)}",
        "",
        table(
            [
                (row["class"], f"{row['n']}", percent(row["precision"]), percent(row["recall"]), percent(row["f1"]))
                for row in scores["per_class"]
            ],
            ("class", "images", "precision", "recall", "F1"),
            "<>>>>",
        ),
    ]
    if len(classes) <= WIDEST_MATRIX:
        matrix = [(name, *map(str, row)) for name, row in zip(classes, scores["confusion"], strict=True)]
        head = ("true \\ said", *(name[:8] for name in classes))
        parts += ["", table(matrix, head, "<" + ">" * len(classes))]
    return "\n".join(parts)
