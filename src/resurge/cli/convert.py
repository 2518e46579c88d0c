"""`resurge convert SRC DST --model NAME --to layout`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from resurge.cli.options import Parser, whole_number
from resurge.errors import UserError
from resurge.tasks.table import DEFAULT, get_task

if TYPE_CHECKING:
    from torch import nn

    from resurge.tasks.segment.settings import Segmenter


def add_options(parser: Parser) -> None:
    parser.add_argument("source", metavar="SRC", help="a file, a run, hub:owner/name, catalog:NAME or pretrained")
    parser.add_argument("target", metavar="DST", help="the file to write, NAME.safetensors")
    parser.add_argument("--model", required=True, metavar="NAME", help="the network: a name or a line of spec text")
    parser.add_argument("--to", required=True, metavar="LAYOUT", help="resurge, torchvision, timm, official, ...")
    parser.add_argument(
        "--from", dest="layout", default="auto", metavar="LAYOUT", help="whose names SRC has (default: found out)"
    )
    parser.add_argument(
        "--in-channels", type=whole_number(1), default=3, metavar="N", help="channels of the images (default: 3)"
    )
    parser.add_argument("--task", default="classify", metavar="TASK", help="what SRC is for (default: classify)")
    parser.add_argument("--head", metavar="HEAD", help="the task's head (default: its first)")
    parser.add_argument(
        "--num-classes", type=whole_number(1), metavar="N", help="of another task than classify (default: 90 or 21)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace DST when it exists")


def run(options: argparse.Namespace) -> int:
    target = Path(options.target)
    if target.suffix != ".safetensors":
        raise UserError(
            f"weights are written as .safetensors, not as {target.name}. Name it {target.stem}.safetensors."
        )
    if target.exists() and not options.overwrite:
        raise UserError(f"{target} exists. Pass --overwrite to replace it, or name another file.")

    import safetensors.torch

    from resurge.api import create_model, get_spec, load_run
    from resurge.files import atomic_write_bytes
    from resurge.tasks.segment.settings import Segmenter
    from resurge.weights.checkpoint import export_weights, load_weights
    from resurge.weights.layouts.naming import module_names

    classes = options.num_classes or get_task(options.task).usual_classes

    def build(num_classes: int, segmenter: Segmenter | None = None) -> nn.Module:
        return create_model(
            options.model, num_classes, options.in_channels, task=options.task, head=options.head, segmenter=segmenter
        )

    spec = get_spec(options.model)
    run = Path(options.source)
    # a run says itself what its head is built from
    model = load_run(run).model if options.task != DEFAULT and (run / "model.json").is_file() else build(classes)
    if options.to != "resurge":
        module_names(spec, options.to)  # an unknown layout is complained of before anything is downloaded
    report = load_weights(model, options.source, options.layout, adapt=False)
    classifier = report.mismatched.get("head.fc.weight")
    if classifier is not None:
        model = build(classifier[0][0])
        report = load_weights(model, options.source, options.layout, adapt=False)
    if any(key.startswith("auxiliary.") for key in report.missing):  # a segmenter without one: it gets none
        model = build(classes, Segmenter(aux_weight=0.0))
        report = load_weights(model, options.source, options.layout, adapt=False)
    left = [*report.mismatched, *report.missing]
    if left:
        raise UserError(
            f"{options.source} has no fitting values for {len(left)} tensors of the network, first {left[0]}, which "
            "would be written as random as they are. Name its --task, --head and --num-classes."
        )
    tensors = {name: tensor.contiguous() for name, tensor in export_weights(model, options.to).items()}
    # The model's own text travels along only under our own names: it is read back as a promise about them.
    metadata = {"format": "pt"} | ({"spec": str(spec)} if options.to == "resurge" else {})
    atomic_write_bytes(target, safetensors.torch.save(tensors, metadata=metadata))
    print(report)
    print(f"{len(tensors)} tensors written to {target} ({options.to} names)")
    return 0
