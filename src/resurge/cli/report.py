"""`resurge report RUN`."""

from __future__ import annotations

import argparse

from resurge.cli.options import Parser, add


def add_options(parser: Parser) -> None:
    add(parser, "run", "RUN", "a folder that `resurge train` wrote")


def run(options: argparse.Namespace) -> int:
    from resurge.report import write_report

    print(f"report: {write_report(options.run).resolve()}")
    return 0
