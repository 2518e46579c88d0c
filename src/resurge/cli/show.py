"""`resurge show NAME-or-text`: what a network is made of and what it costs; several side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from resurge.cli.options import COUNT, Parser, add, add_json, as_options, print_json
from resurge.errors import UserError
from resurge.quantities import table
from resurge.run_files import folder_of, read_model_json


def add_options(parser: Parser) -> None:
    add(parser, "model", "MODEL", "a name, the text of a spec, or a run directory")
    parser.add_argument("--compare", nargs="+", default=[], metavar="MODEL", help="other networks, shown beside it")
    add(parser, "--size", COUNT, "side of the image, pixels (default: 224; CIFAR networks 32)")
    add(parser, "--in-channels", COUNT, "channels of the image (default: 3)")
    add(parser, "--num-classes", COUNT, "outputs (default: 1000; CIFAR networks 10)")
    add(parser, "--diagram", "FILE", "draw the network to FILE.svg or FILE.png, and its blocks beside it")
    about = "check the equal forms of its layers on the network itself, with the largest difference of each"
    parser.add_argument("--forms", action="store_true", help=about)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    if options.forms:
        return _show_forms(options)
    from resurge.cli.summary import compare, examine

    shown = [examine(model, options) for model in (options.model, *options.compare)]
    # first: what cannot be written is complained of before a long table
    written = shown[0].draw(Path(options.diagram)) if options.diagram else []
    if options.json:
        found = [summary.to_json() for summary in shown]
        print_json(found if options.compare else found[0])
    else:
        print(compare(shown) if options.compare else shown[0].to_text(), end="")
        if written:
            print("\ndiagrams:", *(f"  {path}" for path in written), sep="\n")
    return 0


def _show_forms(options: argparse.Namespace) -> int:
    names = ("compare", "diagram", "size", "in_channels", "num_classes")
    if others := [name for name in names if getattr(options, name)]:
        raise UserError(f"--forms has no use for {as_options(others)}. Leave it out.")
    from resurge.arch.zoo import get_spec
    from resurge.explain.equalities import equalities

    folder = folder_of(options.model)
    spec = get_spec(read_model_json(folder)["spec"] if folder is not None else options.model)
    found = equalities(spec)
    if options.json:
        print_json([each._asdict() for each in found])
    elif found:
        rows = [(place, forms, f"{difference:.1e}") for place, forms, difference in found]
        print(table(rows, ("where", "forms", "largest difference"), "<<>"))
    else:
        print(f"{spec}: none of its layers has another form here.")
    return 0
