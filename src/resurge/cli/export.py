"""`resurge export RUN|MODEL --format onnx --precision fp32 --out FOLDER`: what production runs."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

from resurge.cli import options as opt
from resurge.errors import UserError
from resurge.infer.formats import FORMATS, PRECISIONS
from resurge.processes import handling
from resurge.quantities import number_of, per_second
from resurge.run_files import folder_of
from resurge.tasks.classify.task import Classify

if TYPE_CHECKING:
    from resurge.files import Json
    from resurge.runs import Run

RANDOM = "random"
OF_A_NETWORK = ("weights", "num_classes", "in_channels", "size")


def add_options(parser: opt.Parser) -> None:
    opt.add(parser, "run", "RUN|MODEL", "a folder that `resurge train` wrote, or a network with --weights")
    opt.add(parser, "--out", "FOLDER", "the folder to make", required=True)
    opt.add_best(parser)
    opt.add(parser, "--format", (opt.one_of(FORMATS), "NAME"), ", ".join(FORMATS), "onnx")
    opt.add(parser, "--precision", (opt.one_of(PRECISIONS), "NAME"), ", ".join(PRECISIONS), "fp32")
    about = "pictures to calibrate int8 with and to compare on: a folder, or what --data of train takes (default: the "
    opt.add(parser, "--calibrate", "DIR", about + "data the run was trained on)")
    about = "points of accuracy, AP or mIoU (without labels: of decisions that stay) an export may lose"
    opt.add(parser, "--max-drop", opt.NUMBER, about, 0.5)
    opt.add(parser, "--images", opt.COUNT, "pictures to compare on, at most (default: 500; of a detector 50)")
    parser.add_argument("--force", action="store_true", help="keep an export that loses more than --max-drop")
    parser.add_argument("--overwrite", action="store_true", help="replace an export that is there")
    about = "segmenters only: the network itself puts out the class of every pixel, in place of logits"
    parser.add_argument("--classes-out", dest="decide", action="store_true", help=about)
    about = "detectors only: the network puts out its candidates before threshold and suppression; `predict` and "
    parser.add_argument("--raw", action="store_true", help=about + "`serve` do the rest")
    about = "rewriting passes beside those that are always applied, with commas between, or none (default: what ran "
    opt.add(parser, "--form", "A,B", about + "fastest where it was measured; docs/performance.md)")
    opt.add_json(parser)
    group = parser.add_argument_group("a network instead of a run")
    opt.add(group, "--weights", "FILE", f"what `load_weights` takes, pretrained, or {RANDOM}")
    opt.add(group, "--num-classes", opt.COUNT, "classes (default: 1000)")
    opt.add(group, "--in-channels", (opt.whole_number(1, 3), "N"), "channels (default: 3)")
    opt.add(group, "--size", opt.COUNT, "side of the images (default: the weights')")
    parser.epilog = (
        "bf16: OpenVINO and torch only. fp16: the weights are stored in it; OpenVINO and torch compute in it where the "
        "\nprocessor can, ONNX Runtime on a processor computes in fp32. int8: OpenVINO and ONNX."
    )


def run(options: argparse.Namespace) -> int:
    is_run = folder_of(options.run) is not None
    if is_run and (own := opt.given(options, OF_A_NETWORK)):
        raise UserError(f"{options.run} is a run and has {opt.as_options(own)} of its own. Leave it out.")
    if options.best and not is_run:
        raise UserError(f"{options.run} is no run directory, so it has no checkpoints. Leave --best out.")
    from resurge.export.exporting import export
    from resurge.export.settings import ExportSettings

    form = None
    if options.form is not None:
        form = () if options.form == "none" else tuple(options.form.split(","))
    settings = ExportSettings(
        options.format, options.precision, options.decide, options.raw, options.calibrate, options.images,
        options.max_drop, form,
    )  # fmt: skip
    settings.check()  # before weights are downloaded
    with _ended_in_order():
        certificate = export(
            _best(options.run) if options.best else options.run if is_run else _bare(options), options.out, settings,
            force=options.force, overwrite=options.overwrite, log=lambda line: opt.log(f"{line} …"),
        )  # fmt: skip
    if options.json:
        opt.print_json(certificate)
    else:
        print(f"{options.out}: {options.format}, {options.precision}, {certificate['bytes'] / 1e6:.1f} MB")
        opt.show(*_lines(certificate))
    return 0


def _best(folder: str) -> Run:
    from resurge.train.checkpoint import load_best

    return load_best(folder)


def _ended_in_order() -> contextlib.AbstractContextManager[None]:
    """SIGTERM ends the block as Ctrl-C does, so that what was begun is removed; the exit code is 143, as of shells."""

    def end(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one would end the removing
        opt.log("ended by SIGTERM; nothing was written.")
        raise SystemExit(128 + number)

    return handling((signal.SIGTERM,), end)


def _bare(options: argparse.Namespace) -> Run:
    """A network by name as a run, with the weights named."""
    from resurge.arch.zoo import get_spec
    from resurge.runs import bare_run
    from resurge.weights.catalog import published_source
    from resurge.weights.checkpoint import load_weights

    spec = get_spec(options.run)
    if options.weights is None:
        raise UserError(
            f"{options.run} is a network without weights. Name a run, or its weights with --weights FILE (or "
            f"--weights pretrained; --weights {RANDOM} to measure speed alone)."
        )
    classes, channels, random = options.num_classes or 1000, options.in_channels or 3, options.weights == RANDOM
    model = Classify().build(spec, classes, channels).eval()
    if not random:
        report = load_weights(model, options.weights)
        if report.mismatched or report.missing:
            lost = (*report.mismatched, *report.missing)[0]
            raise UserError(f"{options.weights} does not fill the network: {lost} would be random. Give --num-classes.")
    source = None if random or channels != 3 else published_source(options.run, options.weights)
    seen = Classify().published_preprocessing(source)
    if channels != 3:
        seen = dataclasses.replace(seen, mean=(0.5,) * channels, std=(0.25,) * channels, channels=channels)
    if options.size is not None:
        seen = dataclasses.replace(seen, size=options.size)
    marked = {"random_weights": True} if random else {}
    return bare_run(options.run, spec, model, seen, classes, weights=options.weights, **marked)


def _lines(found: Json) -> Iterator[str]:
    """A certificate as text."""
    yield f"  compared on       {found['images']} of the {found['compared_on']}"
    if found["agreement"] is None:
        yield "  same objects      none were found, nothing was compared"
    low, high = found["drop_interval"]
    if found["difference"] is not None:
        yield f"  difference        {found['difference']:.3g} ({100 * found['relative']:.2g} % of the peak)"
    objects = found.get("objects")
    if objects is not None and found["agreement"] is not None:
        count, most = objects["before"], objects.get("surest_of_an_image")
        which = f"{count} with a score from {objects['score_from']}" if most is None else f"the {most} surest per image"
        apart = objects["box_difference"]
        boxes = "" if apart is None else f", at most {apart:.3g} pixels apart"
        yield f"  same objects      {100 * found['agreement']:.2f} % of {which}{boxes}"
    elif objects is None:
        yield f"  same decisions    {100 * found['agreement']:.2f} %"
    if "accuracy" in found:
        before, after = (100 * found["accuracy"][key] for key in ("before", "after"))
        yield f"  {found['accuracy'].get('of', 'accuracy'):<17} {before:.2f} % before, {after:.2f} % after"
    if found["agreement"] is not None and low is not None:
        yield f"  loss              {found['drop_points']:.2f} points, 95 % interval {low:.2f} to {high:.2f}"
    speeds = ", ".join(f"{per_second(speed)} at batch {batch}" for batch, speed in found["images_per_second"].items())
    yield f"  images per second {speeds}; {found['seconds_to_load']:.1f} s to load"
    for key, why in (("aside", "run once per box"), ("kept", "lose too much")):
        if found.get("int8", {}).get(key):
            yield f"  not in int8       {number_of(len(found['int8'][key]), 'layer')} {why}"
    yield from (f"  note: {note}" for note in found["notes"])
