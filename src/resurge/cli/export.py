"""`resurge export RUN|MODEL --format onnx --precision fp32 --out FOLDER`: what production runs."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from resurge.cli.options import Parser, add_json, number, one_of, whole_number
from resurge.errors import UserError
from resurge.infer.folder import FORMATS, PRECISIONS
from resurge.model_json import folder_of

RANDOM = "random"


def add_options(parser: Parser) -> None:
    parser.add_argument(
        "run", metavar="RUN|MODEL", help="a folder that `resurge train` wrote, or a network with --weights"
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="the folder to make")
    about = f"{', '.join(FORMATS)} (default: onnx)"
    parser.add_argument("--format", type=one_of(FORMATS, "format"), default="onnx", metavar="NAME", help=about)
    about = f"{', '.join(PRECISIONS)} (default: fp32)"
    parser.add_argument("--precision", type=one_of(PRECISIONS, "precision"), default="fp32", metavar="NAME", help=about)
    about = "pictures to calibrate int8 with and to compare on: a folder, or what --data of train takes (default: the "
    about += "data the run was trained on)"
    parser.add_argument("--calibrate", metavar="DIR", help=about)
    about = "points of accuracy, AP or mIoU (without labels: of decisions that stay) an export may lose (default: 0.5)"
    parser.add_argument("--max-drop", type=number, default=0.5, metavar="X", help=about)
    about = "pictures to compare on, at most (default: 500; of a detector 50)"
    parser.add_argument("--images", type=whole_number(1), metavar="N", help=about)
    parser.add_argument("--force", action="store_true", help="keep an export that loses more than --max-drop")
    parser.add_argument("--overwrite", action="store_true", help="replace an export that is there")
    about = "segmenters only: the network itself puts out the class of every pixel, in place of logits"
    parser.add_argument("--classes-out", dest="decide", action="store_true", help=about)
    about = "detectors only: the network puts out its candidates before threshold and suppression; `predict` and "
    about += "`serve` do the rest"
    parser.add_argument("--raw", action="store_true", help=about)
    about = "rewriting passes beside those that are always applied, with commas between, or none (default: what ran "
    about += "fastest where it was measured; docs/performance.md)"
    parser.add_argument("--form", metavar="A,B", help=about)
    add_json(parser)
    group = parser.add_argument_group("a network instead of a run")
    group.add_argument("--weights", metavar="FILE", help=f"what `load_weights` takes, pretrained, or {RANDOM}")
    group.add_argument("--num-classes", type=whole_number(1), metavar="N", help="classes (default: 1000)")
    group.add_argument("--in-channels", type=whole_number(1, 3), metavar="N", help="channels (default: 3)")
    group.add_argument("--size", type=whole_number(1), metavar="N", help="side of the images (default: the weights')")
    parser.epilog = (
        "bf16: OpenVINO and torch only. fp16: the weights are stored in it; OpenVINO and torch compute in it where the "
        "\nprocessor can, ONNX Runtime on a processor computes in fp32. int8: OpenVINO and ONNX."
    )


def run(options: argparse.Namespace) -> int:
    is_run = folder_of(options.run) is not None
    own = [name for name in ("weights", "num_classes", "in_channels", "size") if getattr(options, name) is not None]
    if is_run and own:
        words = ", ".join("--" + name.replace("_", "-") for name in own)
        raise UserError(f"{options.run} is a run, which says {words} itself. Leave it out.")
    from resurge.export.exporting import export
    from resurge.export.settings import ExportSettings

    form = None
    if options.form is not None:
        form = () if options.form == "none" else tuple(options.form.split(","))
    ExportSettings(options.format, options.precision, form=form).check()
    with _ended_in_order():
        certificate = export(
            options.run if is_run else _bare(options),
            options.out,
            options.format,
            options.precision,
            calibrate=options.calibrate,
            max_drop=options.max_drop,
            images=options.images,
            decide=options.decide,
            raw=options.raw,
            form=form,
            force=options.force,
            overwrite=options.overwrite,
            say=lambda line: print(f"resurge: {line} …", file=sys.stderr),
        )
    print(json.dumps(certificate, indent=2, ensure_ascii=False) if options.json else _text(options, certificate))
    return 0


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that what was begun is removed; the exit code is 143, as of shells."""

    def end(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one would end the removing
        print("resurge: ended by SIGTERM; nothing was written.", file=sys.stderr)
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # only there may signals be handled
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _bare(options: argparse.Namespace) -> Any:
    """A network by name as a run, with the weights named.

    Raises:
        UserError: there is no such network, no weights are named, or they do not fit.
    """
    from resurge.arch.zoo import get_spec
    from resurge.data.preprocessing import Preprocessing
    from resurge.runs import bare_run
    from resurge.tasks.classify.task import Classify
    from resurge.tasks.table import build_task_model
    from resurge.weights.catalog import published_source
    from resurge.weights.checkpoint import load_weights

    spec = get_spec(options.run)
    if options.weights is None:
        raise UserError(
            f"{options.run} is a network without weights. Name a run, or its weights with --weights FILE (or "
            f"--weights pretrained; --weights {RANDOM} to measure speed alone)."
        )
    classes, channels = options.num_classes or 1000, options.in_channels or 3
    model = build_task_model("classify", spec, classes, channels).eval()
    if options.weights != RANDOM:
        report = load_weights(model, options.weights)
        if report.mismatched or report.missing:
            lost = (*report.mismatched, *report.missing)[0]
            raise UserError(f"{options.weights} does not fill the network: {lost} would be random. Give --num-classes.")
    source = None if options.weights == RANDOM else published_source(options.run, options.weights)
    if channels == 3:
        seen = Classify().published_preprocessing(source) if source else Preprocessing(options.size or 224)
    else:
        seen = Preprocessing(options.size or 224, mean=(0.5,) * channels, std=(0.25,) * channels, channels=channels)
    if options.size is not None and seen.size != options.size:
        seen = Preprocessing(**{**vars(seen), "size": options.size})
    random = {"random_weights": True} if options.weights == RANDOM else {}
    return bare_run(options.run, spec, model, seen, classes, weights=options.weights, **random)


def _text(options: argparse.Namespace, found: dict[str, Any]) -> str:
    lines = [f"{options.out}: {options.format}, {options.precision}, {found['bytes'] / 1e6:.1f} MB"]
    lines.append(f"  compared on       {found['images']} of the {found['compared_on']}")
    if found["difference"] is not None:
        lines.append(f"  difference        {found['difference']:.3g} ({100 * found['relative']:.2g} % of the peak)")
    if "objects" in found:
        objects = found["objects"]
        told = f"  same objects      {100 * found['agreement']:.2f} % of {objects['before']} with a score from "
        lines.append(f"{told}{objects['score_from']}, at most {objects['box_difference']:.3g} pixels apart")
    else:
        lines.append(f"  same decisions    {100 * found['agreement']:.2f} %")
    if "accuracy" in found:
        before, after = (100 * found["accuracy"][key] for key in ("before", "after"))
        lines.append(f"  {found['accuracy'].get('of', 'accuracy'):<17} {before:.2f} % before, {after:.2f} % after")
    speeds = ", ".join(f"{speed:.1f} at batch {batch}" for batch, speed in found["images_per_second"].items())
    lines.append(f"  images a second   {speeds}; {found['seconds_to_load']:.1f} s to load")
    for key, why in (("aside", "that run once a box"), ("kept", "that lose too much")):
        if found.get("int8", {}).get(key):
            lines.append(f"  not in int8       {len(found['int8'][key])} layers {why}")
    lines += [f"  note: {note}" for note in found["notes"]]
    return "\n".join(lines)
