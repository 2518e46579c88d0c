"""`resurge convert SRC DST --model NAME --to layout`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from resurge.cli.options import COUNT, Parser, add, as_options, given
from resurge.errors import UserError
from resurge.files import atomic_write_bytes, require_apart, require_free
from resurge.quantities import number_of
from resurge.tasks.table import DEFAULT, get_task

if TYPE_CHECKING:
    from torch import nn

    from resurge.tasks.segment.settings import Segmenter


def add_options(parser: Parser) -> None:
    add(parser, "source", "SRC", "a file, a run, hub:owner/name, catalog:NAME or pretrained")
    add(parser, "target", "DST", "the file to write, NAME.safetensors")
    add(parser, "--model", "NAME", "the network: a name or a line of spec text", required=True)
    add(parser, "--to", "LAYOUT", "resurge, torchvision, timm, official, ...", required=True)
    add(parser, "--from", "LAYOUT", "whose names SRC has (default: found out)", dest="layout")
    add(parser, "--in-channels", COUNT, "channels of the images (default: 3)")
    add(parser, "--task", "TASK", "what SRC is for", DEFAULT)
    add(parser, "--head", "HEAD", "the task's head (default: its first)")
    add(parser, "--num-classes", COUNT, "of another task than classify (default: 90 or 21)")
    parser.add_argument("--overwrite", action="store_true", help="replace DST when it exists")


def run(options: argparse.Namespace) -> int:
    target = Path(options.target)
    if target.suffix != ".safetensors":
        raise UserError(
            f"weights are written as .safetensors, not as {target.name}. Name it {target.stem}.safetensors."
        )
    if target.exists() and not options.overwrite:
        raise UserError(f"{target} exists. Pass --overwrite to replace it, or name another file.")
    source = Path(options.source)
    # model.json of a run describes its head
    is_run = options.task != DEFAULT and (source / "model.json").is_file()
    if is_run and (idle := given(options, ("head", "num_classes", "in_channels"))):
        raise UserError(f"{options.source} is a run and has {as_options(idle)} of its own. Leave it out.")
    if options.task == DEFAULT and options.num_classes:
        raise UserError(f"the classes of a {DEFAULT} network are found in SRC. Leave --num-classes out.")
    require_apart(target, (source / "model.safetensors" if source.is_dir() else source,), "DST")
    require_free(target)

    from resurge.api import create_model, get_spec, load_run
    from resurge.tasks.segment.settings import Segmenter
    from resurge.weights.checkpoint import LoadReport, export_weights, load_weights, to_safetensors
    from resurge.weights.layouts.naming import module_names

    def build(num_classes: int, segmenter: Segmenter | None = None) -> nn.Module:
        return create_model(
            options.model,
            num_classes,
            options.in_channels or 3,
            task=options.task,
            head=options.head,
            segmenter=segmenter,
        )

    def loaded(model: nn.Module) -> tuple[nn.Module, LoadReport]:
        return model, load_weights(model, options.source, options.layout or "auto", adapt=False)

    spec = get_spec(options.model)
    if options.to != "resurge":
        module_names(spec, options.to)  # an unknown layout is complained of before anything is downloaded
    classes = options.num_classes or get_task(options.task).usual_classes
    model, report = loaded(load_run(source).model if is_run else build(classes))
    if (classifier := report.mismatched.get("head.fc.weight")) is not None:
        model, report = loaded(build(classifier[0][0]))
    if any(key.startswith("auxiliary.") for key in report.missing):  # a segmenter without one: it gets none
        model, report = loaded(build(classes, Segmenter(aux_weight=0.0)))
    if left := [*report.mismatched, *report.missing]:
        raise UserError(
            f"{options.source} has no fitting values for {len(left)} tensors of the network, first {left[0]}, which "
            "would be written as random as they are. Name its --task, --head and --num-classes."
        )
    tensors = {name: tensor.contiguous() for name, tensor in export_weights(model, options.to).items()}
    # The model's own text travels along only under our own names: it is read back as a promise about them.
    atomic_write_bytes(target, to_safetensors(tensors, {"spec": str(spec)} if options.to == "resurge" else {}))
    print(report)
    print(f"{number_of(len(tensors), 'tensor')} written to {target} ({options.to} names)")
    return 0
