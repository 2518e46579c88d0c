"""`resurge check-data DIR`."""

from __future__ import annotations

import argparse

from resurge.cli.options import Parser, add_json
from resurge.cli.tables import print_json
from resurge.errors import UserError
from resurge.tasks.table import DATA_WORDS, TASKS, get_task


def add_options(parser: Parser) -> None:
    parser.add_argument("data", metavar="DATA", help="what `resurge train --data` takes")
    parser.add_argument(
        "--task", choices=tuple(TASKS), help="what the data is for (default: what its folders look like)"
    )
    parser.add_argument("--val", metavar="DATA", help="where the validation images are, as for `resurge train`")
    parser.add_argument(
        "--fix",
        metavar="OUT",
        help="write a mended copy of the annotations into this new folder: boxes cut to their images, what cannot be "
        "used removed (not for classification)",
    )
    add_json(parser)
    parser.epilog = (
        "The exit code is 1 when errors were found, mended or not; warnings leave it at 0. The data itself is never "
        "changed."
    )


def run(options: argparse.Namespace) -> int:
    from resurge.data.checks import check_data

    annotation = None if options.task is None else get_task(options.task).annotation
    report, look = check_data(options.data, annotation=annotation, words=DATA_WORDS, val=options.val)
    changes: list[str] | None = None
    if options.fix is not None:
        if look is None:
            raise UserError(
                f"--fix mends annotations, and {options.data} has none that are apart from its images. Name data in "
                "COCO's, VOC's or YOLO's format, or with masks; leave --fix out for others."
            )
        from resurge.data.fix import mend

        changes = mend(look, options.fix)
    if options.json:
        print_json(
            report.to_json() | ({} if changes is None else {"fixed": {"folder": options.fix, "changes": changes}})
        )
    else:
        print("\n".join(report.lines()))
        if changes is not None:
            print("\n".join([f"mended copy in {options.fix}:", *(f"  {line}" for line in changes)]))
    return 0 if report.ok else 1
