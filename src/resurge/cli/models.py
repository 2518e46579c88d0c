"""`resurge models`: the table of named networks, from the catalogue alone, so that no torch is imported."""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch

from resurge.cli.options import Parser, add, add_json, print_json
from resurge.errors import UserError, suggest
from resurge.quantities import fixed, table
from resurge.weights.catalog import Entry, entries


def add_options(parser: Parser) -> None:
    about = "a shell pattern such as 'resnest*', or part of a name (default: all)"
    add(parser, "pattern", "PATTERN", about, nargs="?")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    found = _matching(options.pattern or "*")
    if options.json:
        print_json([dataclasses.asdict(entry) for entry in found])
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


def _matching(pattern: str) -> list[Entry]:
    """The entries whose name or alias fits a shell pattern; a pattern without wildcards fits any part of a name."""
    names = {entry: [name for name in (entry.name, entry.alias) if name] for entry in entries().values()}
    wild = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    found = [entry for entry, own in names.items() if fnmatch.filter(own, wild)]
    if not found:
        near = suggest(pattern.strip("*"), [name for own in names.values() for name in own])
        raise UserError(f"no model fits {pattern!r}.{near} `resurge models` lists all.")
    return found
