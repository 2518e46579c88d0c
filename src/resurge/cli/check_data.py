"""`resurge check-data DIR`."""

from __future__ import annotations

import argparse

from resurge.cli.options import Parser, add_json
from resurge.cli.tables import print_json


def add_options(parser: Parser) -> None:
    parser.add_argument("data", metavar="DATA", help="what `resurge train --data` takes")
    parser.add_argument("--val", metavar="DATA", help="where the validation images are, as for `resurge train`")
    add_json(parser)
    parser.epilog = "The exit code is 1 when errors were found; warnings leave it at 0. Nothing is changed on disk."


def run(options: argparse.Namespace) -> int:
    from resurge.data.checks import check_classification

    report = check_classification(options.data, val=options.val)
    if options.json:
        print_json(report.to_json())
    else:
        print("\n".join(report.lines()))
    return 0 if report.ok else 1
