"""`resurge show NAME-or-text`: what a network is made of and what it costs; several side by side."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurge.cli.options import Parser, add_json, whole_number
from resurge.cli.tables import print_json
from resurge.model_json import folder_of, read_model_json
from resurge.tasks.table import DEFAULT, build_task_model, get_task, pick_head
from resurge.text_tables import table

if TYPE_CHECKING:
    from resurge.arch.spec import Spec
    from resurge.explain.show import Summary


def add_options(parser: Parser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a name, the text of a spec, or a run directory")
    parser.add_argument("--compare", nargs="+", default=[], metavar="MODEL", help="other networks, shown beside it")
    parser.add_argument(
        "--size", type=whole_number(1), metavar="N", help="side of the image, pixels (default: 224; CIFAR networks 32)"
    )
    parser.add_argument("--in-channels", type=whole_number(1), metavar="N", help="channels of the image (default: 3)")
    parser.add_argument(
        "--num-classes", type=whole_number(1), metavar="N", help="outputs (default: 1000; CIFAR networks 10)"
    )
    parser.add_argument(
        "--diagram", metavar="FILE", help="draw the network to FILE.svg or FILE.png, and its blocks beside it"
    )
    about = "check the equal forms of its layers on the network itself, with the largest difference of each"
    parser.add_argument("--forms", action="store_true", help=about)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    if options.forms:
        return _show_forms(options)
    from resurge.explain.show import compare

    shown = [examine(model, options) for model in (options.model, *options.compare)]
    written: list[Path] = []
    if options.diagram:  # first: what cannot be written is complained of before a long table
        written = _draw(shown[0], options.diagram)
    if options.json:
        found = [summary.to_json() for summary in shown]
        print_json(found if options.compare else found[0])
    else:
        print(compare(shown) if options.compare else shown[0].to_text(), end="")
    if written and not options.json:
        print("\ndiagrams:", *(f"  {path}" for path in written), sep="\n")
    return 0


def _show_forms(options: argparse.Namespace) -> int:
    from resurge.arch.zoo import get_spec
    from resurge.explain.equalities import equalities

    place = folder_of(options.model)
    spec = get_spec(read_model_json(place)["spec"] if place is not None else options.model)
    found = equalities(spec)
    if options.json:
        print_json([each.to_json() for each in found])
    elif found:
        rows = [(each.place, each.name, f"{each.difference:.1e}") for each in found]
        print(table(rows, ("where", "forms", "largest difference"), "<<>"))
    else:
        print(f"{spec}: none of its layers has another form here.")
    return 0


def examine(model: str, options: argparse.Namespace) -> Summary:
    """Cost of a network by name, text or run directory, at the size and with the classes it is meant for.

    Raises:
        UserError: there is no such network, or it cannot take images of that size.
    """
    from resurge.arch.zoo import canonical_name, get_spec
    from resurge.explain.show import summarize
    from resurge.weights.catalog import entries

    place = folder_of(model)
    if place is not None:
        return _examine_run(place, options)
    spec = get_spec(model)
    entry = entries().get(canonical_name(spec) or "")
    size = options.size or (entry.cost_size if entry else _usual_size(spec))
    return summarize(
        spec,
        size=(size, size),
        in_channels=options.in_channels or 3,
        num_classes=options.num_classes,
        entry=dataclasses.asdict(entry) if entry else None,
    )


def _examine_run(place: Path, options: argparse.Namespace) -> Summary:
    """The same of a run directory, with what it says of its training."""
    import torch

    from resurge.arch.backbone import backbone_of
    from resurge.arch.surgery import convert_norm
    from resurge.arch.zoo import canonical_name, get_spec
    from resurge.explain.cost import cost
    from resurge.explain.show import Summary, Trained, default_classes
    from resurge.weights.catalog import entries

    told = read_model_json(place)
    name, classes = told.get("task", DEFAULT), tuple(map(str, told.get("classes", ())))
    task, head, spec = get_task(name), pick_head(name, told.get("head")), get_spec(told["spec"])
    count = options.num_classes or len(classes) or (default_classes(spec) if task.in_catalog else 1)
    channels = options.in_channels or told.get("in_channels", 3)
    side = options.size or _side(told.get("preprocessing", {})) or _usual_size(spec)
    with torch.device("meta"):
        network = build_task_model(name, spec, count, channels, head, task.read_settings(told.get("head_settings")))
        if told.get("norm") in ("frozen", "group"):
            convert_norm(network, told["norm"])
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}
    backbone = backbone_of(network)
    counted = network if task.fixed_cost else backbone
    entry = entries().get(canonical_name(spec) or "") if task.in_catalog else None
    return Summary(
        spec,
        cost(counted, (side, side)),
        dataclasses.asdict(entry) if entry else None,
        Trained(
            name,
            head,
            classes,
            {part: own for part, own in parts.items() if own},
            told.get("scores", {}),
            task.fixed_cost,
            task.in_catalog,
        ),
        backbone.output_stride,
    )


def _side(preprocessing: Mapping[str, Any]) -> int | None:
    """Side of the images that a run's network sees: of a square one, or the shorter of a scene's."""
    sides = [preprocessing.get(name) for name in ("size", "short_side")]
    return next((side for side in sides if type(side) is int and side > 0), None)


def _usual_size(spec: Spec) -> int:
    return 32 if spec.stem.stride == 1 else 224


def _draw(shown: Summary, path: str) -> list[Path]:
    from resurge.explain.show import write_diagrams

    channels, height, width = shown.costs.input
    classifier = shown.run is None or shown.run.classifies
    return write_diagrams(
        shown.spec,
        path,
        size=(height, width),
        in_channels=channels,
        num_classes=shown.costs.rows[-1].shape[0] if classifier else None,
        output_stride=shown.output_stride,
        classifier=classifier,
    )
