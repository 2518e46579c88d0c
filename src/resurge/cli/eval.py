"""`resurge eval RUN|MODEL`: scores on labelled images."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from resurge.cli import options as opt
from resurge.config import replaced
from resurge.data.reading import Reading
from resurge.errors import UserError, suggest
from resurge.files import require_apart, require_free
from resurge.quantities import number_of
from resurge.run_files import EVALUATION
from resurge.tasks.report import absent_lines, plugin_lines
from resurge.tasks.table import DATA_WORDS, DEFAULT, TASKS, get_task, pick_head
from resurge.tasks.tta import TTA

if TYPE_CHECKING:
    from resurge.cli.run_data import Images
    from resurge.runs import Run

SPLITS = ("auto", "train", "val", "test", "all")
# Options that only some tasks take, by destination; not given, they are None.
PARTICULAR = ("crop_pct", "max_size", "scales", "flip", "window")
PREPROCESSING = ("size", "crop_pct", "interpolation", "mean", "std", "max_size")


def add_options(parser: opt.Parser) -> None:
    opt.add(parser, "model", "RUN|MODEL", "a run directory, or the name or text of a network")
    opt.add(parser, "--weights", "FILE", "of a MODEL: a file, hub:owner/name, or pretrained")
    opt.add_best(parser)
    about = f"of a MODEL: {', '.join(TASKS)} (default: {DEFAULT})"
    opt.add(parser, "--task", (opt.one_of(TASKS), "NAME"), about)
    every = [head for task in TASKS.values() if task.section is not None for head in task.heads]
    opt.add(parser, "--head", "NAME", f"of a MODEL: {', '.join(every)} (default: the task's first)")
    opt.add(parser, "--data", "DIR", "images with labels, as for `resurge train` (default: the run's)")
    about = "train, val, test, all or auto: test if there is one, else val"
    opt.add(parser, "--split", (opt.one_of(SPLITS), "NAME"), about, "auto")
    opt.add(parser, "--out", "DIR", "write DIR/evaluation.json; DIR may be the run itself, for `resurge report`")
    opt.add_json(parser)
    opt.add_device(parser)
    opt.add_batch_size(parser, "128 for a classifier, else 8")
    opt.add(parser, "--workers", (opt.whole_number(0), "N"), "processes that read images", 0)
    opt.add(parser, "--threads", opt.COUNT, "threads of the arithmetic (default: torch's choice)")
    opt.add(parser, "--precision", "NAME", "fp32, bf16 or fp16 (default: the run's own, else fp32)")
    seen = parser.add_argument_group("preprocessing", "default: the run's, or what the weights were published with")
    about = "side of the image the network sees, pixels; not classifiers: its shorter side"
    opt.add(seen, "--size", (opt.whole_number(1, 4096), "N"), about)
    opt.add(seen, "--crop-pct", opt.NUMBER, "classifiers: that side as a share of the resized short side")
    opt.add(seen, "--interpolation", "NAME", "nearest, box, bilinear, bicubic or lanczos")
    opt.add(seen, "--mean", opt.CHANNELS, "mean of each channel, on a scale of 0..1")
    opt.add(seen, "--std", opt.CHANNELS, "deviation of each channel, on a scale of 0..1")
    opt.add_max_size(parser)
    opt.add_tta(parser)
    opt.add_reading(parser, "of --data, where it is to be read otherwise than the data of the training")


def run(options: argparse.Namespace) -> int:
    is_run = Path(options.model).is_dir()
    if not is_run and not options.weights:
        raise UserError(_no_weights(options.model))
    taken = next((name for name in ("weights", "task", "head") if is_run and getattr(options, name)), None)
    if taken is not None:
        raise UserError(f"{options.model} is a run and has {taken} of its own. Leave --{taken} out.")
    if not is_run and options.best:
        raise UserError(f"{options.model} is no run directory, so it has no checkpoints. Leave --best out.")
    if not is_run and not options.data:
        raise UserError("a network by name needs --data: a folder of images, a CSV file, or digits.")
    from resurge.data.images import UnreadableImage
    from resurge.tasks.evaluation import evaluate, write_evaluation

    if options.threads is not None:
        import torch

        torch.set_num_threads(options.threads)
    subject, (split, classes, which) = _of_run(options) if is_run else _of_model(options)
    into_run = bool(options.out) and is_run and Path(options.out).resolve() == subject.folder.resolve()
    mark = None if into_run else '{\n "model": '  # as the file below begins
    if options.out:
        recipe = subject.recipe
        if not into_run:
            require_apart(options.out, (options.data, *((recipe.data, recipe.val) if recipe else ())))
        require_free(Path(options.out, EVALUATION), mark)
    task = get_task(subject.task)
    own = None if subject.recipe is None else subject.recipe.machine.precision
    precision = options.precision or _precision_for(own, options.device)
    preprocessing = task.adjust(subject.preprocessing, opt.given(options, PREPROCESSING))
    augmented = "scales" in task.evaluation_options
    tta = opt.tta_of(options, TTA.of_recipe(subject.recipe)) if augmented else TTA()
    try:
        found = evaluate(
            task, subject.model, split, preprocessing, classes,
            batch_size=options.batch_size, device=options.device, precision=precision,
            workers=options.workers, progress=progress_line("evaluating"), tta=tta,
        )  # fmt: skip
    except UnreadableImage as error:
        raise UserError(
            f"{error} Scores are over all images; `resurge check-data` finds everything that is wrong with a folder."
        ) from error
    if augmented:
        found = {"inference": asdict(tta)} | found
    name = options.model if is_run else f"{options.model}, weights {options.weights}"
    scores = {"model": name, "data": which, "preprocessing": preprocessing.to_json()} | found
    if options.out:
        if into_run:
            from resurge.cli.run_pictures import explain_run

            explain_run(subject, scores, split)
        print(f"written: {write_evaluation(options.out, scores, mark)}", file=sys.stderr)
    if options.json:
        opt.print_json(scores)
    else:
        counts = f"{number_of(scores['count'], 'image')} in {number_of(len(classes), 'class', 'classes')}"
        trained = "" if own in (None, precision) else f" (trained, and scored then, in {own})"
        about = [f"{counts}: {which}", f"computed in {precision}{trained}", *absent_lines(scores)]
        lines = (*about, "", *task.report.lines(scores, classes), *plugin_lines(scores))
        opt.show(name, *(line for each in lines for line in each.split("\n")))  # some are tables
    return 0


def _precision_for(own: str | None, device: str) -> str:
    """The precision of the run's training, in which its own scores were computed; fp16 is for accelerators."""
    from resurge.tasks.running import pick_device

    return "fp32" if own is None or (own == "fp16" and pick_device(device).type == "cpu") else own


def _no_weights(model: str) -> str:
    from resurge.weights.catalog import entries

    if entries().keys() & model.split()[:1]:
        return f"{model} names a network; say which weights with --weights FILE, or --weights pretrained."
    expected = "expected a run directory or the name of a network with --weights"
    return f"{expected}; there is no folder {model}.{suggest(model, entries())}"


def _require_taken(options: argparse.Namespace, name: str) -> None:
    opt.require_taken(options, options.model, name, PARTICULAR, get_task(name).evaluation_options)


def _of_run(options: argparse.Namespace) -> tuple[Run, Images]:
    """A run, and the data it was trained with unless --data names other."""
    from resurge.cli.run_data import images_of
    from resurge.runs import load_run
    from resurge.train.checkpoint import load_best

    run = (load_best if options.best else load_run)(options.model)
    _require_taken(options, run.task)
    return run, images_of(run, options.data, options.split, opt.reading_given(options))


def _of_model(options: argparse.Namespace) -> tuple[Run, Images]:
    """A network by name or text with weights of somebody's, and --data."""
    name = options.task or DEFAULT
    pick_head(name, options.head)
    from resurge.api import create_model, get_spec
    from resurge.data.sources import open_split
    from resurge.runs import Run
    from resurge.weights.catalog import published_source
    from resurge.weights.checkpoint import load_weights

    task = get_task(name)
    _require_taken(options, name)
    reading = replaced(Reading(), opt.reading_given(options), "command line")
    split, classes, which = open_split(
        options.data, annotation=task.annotation, words=DATA_WORDS, split=options.split, reading=reading
    )
    classes = task.classes or classes
    model = create_model(options.model, num_classes=len(classes), task=name, head=options.head)
    report = load_weights(model, options.weights)
    classifier = report.mismatched.get("head.fc.weight")
    if classifier is not None:
        raise UserError(
            f"{options.weights} tells {number_of(classifier[0][0], 'class', 'classes')} apart, but {options.data} has "
            f"{len(classes)}. Give the data it was trained on, or train on yours: resurge train --weights ..."
        )
    left = [key for key in (*report.mismatched, *report.missing) if not key.startswith("auxiliary.")]
    if left:
        raise UserError(
            f"{options.weights} leaves {number_of(len(left), 'tensor')} of the network random, first {left[0]}: it "
            f"is of another head, or not of the {number_of(len(classes), 'class', 'classes')} of {options.data}. Name "
            "its --head and the data it was trained on, or train on yours: resurge train --weights ..."
        )
    source = published_source(options.model, options.weights) if task.in_catalog else None
    seen = task.published_preprocessing(source)
    run = Run(Path(options.model), name, model, get_spec(options.model), classes, seen, {}, None)
    return run, (split, classes, which)


def progress_line(what: str) -> Callable[[int, int], None] | None:
    """A line on standard error that counts along; None where nobody watches."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        end = "\r" + " " * 60 + "\r" if done >= total else ""
        print(f"\r{what} {done:,} of {total:,}{end}", end="", file=sys.stderr, flush=True)

    return show
