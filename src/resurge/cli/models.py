"""`resurge models`: the table of named networks, from the catalogue alone, so that no torch is imported."""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
from collections.abc import Iterable
from typing import Any

from resurge.cli.options import Parser, add_json
from resurge.cli.tables import print_json
from resurge.errors import UserError, suggest
from resurge.text_tables import fixed, table
from resurge.weights.catalog import Entry, entries


def add_options(parser: Parser) -> None:
    parser.add_argument(
        "pattern",
        nargs="?",
        default="*",
        metavar="PATTERN",
        help="a shell pattern such as 'resnest*', or part of a name (default: all)",
    )
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    found = matching(options.pattern, entries().values())
    if options.json:
        print_json([as_json(entry) for entry in found])
        return 0
    rows = [
        (
            entry.name,
            entry.alias,
            f"{entry.parameters:,}",
            fixed(entry.gmacs, 3),
            f"{entry.cost_size}",
            fixed(entry.top1, 2),
            entry.top1_source,
            "yes" if entry.sources else "",
        )
        for entry in found
    ]
    head = ("name", "timm's name", "parameters", "GMACs", "at", "top-1 %", "published by", "weights")
    print(table(rows, head, "<<>>>><<"))
    return 0


def matching(pattern: str, candidates: Iterable[Entry]) -> list[Entry]:
    """The entries whose name or alias fits a shell pattern; a pattern without wildcards fits any part of a name.

    Raises:
        UserError: none does.
    """
    candidates = list(candidates)
    wild = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    found = [e for e in candidates if any(fnmatch.fnmatchcase(name, wild) for name in (e.name, e.alias) if name)]
    if not found:
        names = [name for entry in candidates for name in (entry.name, entry.alias) if name]
        raise UserError(f"no model fits {pattern!r}.{suggest(pattern.strip('*'), names)} `resurge models` lists all.")
    return found


def as_json(entry: Entry) -> dict[str, Any]:
    """An entry as JSON: what the catalogue has, and one object for each file of trained weights."""
    return dataclasses.asdict(entry)
