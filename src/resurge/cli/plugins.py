"""`resurge plugins`: the parts that installed packages add, each loaded, and the kinds there are."""

from __future__ import annotations

import argparse
import importlib

from resurge.cli.options import Parser, add_json, print_json
from resurge.errors import UserError, suggest
from resurge.plugins import GROUP, TABLES, installed, package
from resurge.quantities import table
from resurge.tasks.table import TASKS

# Where the tables are; importing a module enters its tables in TABLES.
MODULES = (
    "resurge.arch.text",
    "resurge.tasks.segment.heads",
    "resurge.tasks.detect.heads",
    "resurge.data.formats",
    "resurge.weights.layouts.naming",
    "resurge.infer.formats",
)


def add_options(parser: Parser) -> None:
    add_json(parser)
    parser.epilog = f"A package adds a part by an entry point KIND.NAME of the group {GROUP}; see docs/plugins.md."


def run(options: argparse.Namespace) -> int:
    for module in MODULES:
        importlib.import_module(module)
    for name in TASKS:
        if _problem("task", name) is None:
            len(TASKS[name].plugin_metrics)  # makes its table
    parts = [
        {"plugin": f"{kind}.{name}", "package": package(point), "object": point.value, "problem": _problem(kind, name)}
        for kind, names in sorted(installed().items())
        for name, points in sorted(names.items())
        for point in points
    ]
    if options.json:
        print_json({"kinds": sorted(TABLES), "plugins": parts})
    else:
        print(f"kinds: {', '.join(sorted(TABLES))}")
        rows = [[cell or "works" for cell in part.values()] for part in parts]
        head = ("plugin", "package", "object", "state")
        print("\n" + table(rows, head, "<<<<") if rows else "no plugin is installed")
    return 1 if any(part["problem"] for part in parts) else 0


def _problem(kind: str, name: str) -> str | None:
    """Why a plugin cannot be used; None when it can."""
    if kind not in TABLES:
        return f"there is no kind {kind!r}.{suggest(kind, TABLES)}"
    try:
        if problem := TABLES[kind].clash(name):
            return problem
        TABLES[kind].get(name)
    except UserError as error:
        return str(error)
    return None
