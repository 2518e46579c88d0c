"""`resurge show NAME-or-text`: what a network is made of and what it costs; several side by side."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurge.cli.options import Parser, add_json, whole_number
from resurge.cli.tables import print_json
from resurge.errors import UserError

if TYPE_CHECKING:
    from resurge.explain.show import Summary


LONGEST_PATH = 256  # what is longer is the text of a spec; asked for such a file, the system itself would complain


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
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    from resurge.explain.show import compare, write_diagrams

    shown = [examine(model, options) for model in (options.model, *options.compare)]
    written: list[Path] = []
    if options.diagram:  # first: what cannot be written is complained of before a long table
        _, height, width = shown[0].costs.input
        written = write_diagrams(shown[0].spec, options.diagram, size=(height, width))
    if options.json:
        found = [summary.to_json() for summary in shown]
        print_json(found if options.compare else found[0])
    else:
        print(compare(shown) if options.compare else shown[0].to_text(), end="")
    if written and not options.json:
        print("\ndiagrams:", *(f"  {path}" for path in written), sep="\n")
    return 0


def examine(model: str, options: argparse.Namespace) -> Summary:
    """Cost of a network by name, text or run directory, at the size and with the classes it is meant for.

    Raises:
        UserError: there is no such network, or it cannot take images of that size.
    """
    from resurge.arch.zoo import canonical_name, get_spec
    from resurge.explain.show import summarize
    from resurge.weights.catalog import entries

    trained = {}
    place = Path(model) if len(model) < LONGEST_PATH else Path()
    if (place / "model.json").is_file() or (len(place.parts) > 1 and place.is_dir()):
        from resurge.weights.checkpoint import read_model_json

        trained = read_model_json(model)
        _require_fields(trained, place)
    spec = get_spec(trained.get("spec", model))
    entry = entries().get(canonical_name(spec) or "")
    usual = entry.cost_size if entry else 32 if spec.stem.stride == 1 else 224
    size = options.size or trained.get("preprocessing", {}).get("size") or usual
    return summarize(
        spec,
        size=(size, size),
        in_channels=options.in_channels or trained.get("in_channels") or 3,
        num_classes=options.num_classes or len(trained.get("classes", ())) or None,
        entry=dataclasses.asdict(entry) if entry else None,
    )


def _require_fields(trained: Mapping[str, Any], place: Path) -> None:
    """Raises UserError when what a run says of itself is of another kind than is read from it here."""
    kinds = {"preprocessing": dict, "classes": list, "in_channels": int}
    for name, kind in kinds.items():
        if name in trained and not isinstance(trained[name], kind):
            raise UserError(
                f"{place / 'model.json'} is damaged: {name} is {trained[name]!r}. Train or export it again."
            )
