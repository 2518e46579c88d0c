"""`resurge check-data DIR`."""

from __future__ import annotations

import argparse

from resurge.cli.options import Parser, add, add_json, add_reading, print_json, reading_of, show
from resurge.errors import UserError
from resurge.files import require_apart
from resurge.tasks.table import DATA_WORDS, TASKS, get_task


def add_options(parser: Parser) -> None:
    add(parser, "data", "DATA", "what `resurge train --data` takes")
    about = "what the data is for (default: what its folders look like)"
    parser.add_argument("--task", choices=tuple(TASKS), help=about)
    add(parser, "--val", "DATA", "where the validation images are, as for `resurge train`")
    about = "write a mended copy of the annotations into this new folder: boxes cut to their images, what cannot be "
    add(parser, "--fix", "OUT", about + "used removed (not for classification)")
    add_json(parser)
    add_reading(parser)
    parser.epilog = (
        "The exit code is 1 when errors were found, mended or not; warnings leave it at 0. The data itself is never "
        "changed."
    )


def run(options: argparse.Namespace) -> int:
    from resurge.data.checks import check_data

    if options.fix is not None:
        require_apart(options.fix, (options.data, options.val), "--fix")
    annotation = None if options.task is None else get_task(options.task).annotation
    report, data = check_data(
        options.data, annotation=annotation, words=DATA_WORDS, val=options.val, reading=reading_of(options)
    )
    task = options.task or next(task.name for task in TASKS.values() if task.annotation == report.annotation)
    found, lines = {"task": task, **report.to_json()}, report.lines()
    if options.fix is not None:
        if data is None:
            raise UserError(
                f"--fix mends annotations, and {options.data} has none that are apart from its images. Name data in "
                "COCO's, VOC's or YOLO's format, or with masks; leave --fix out for others."
            )
        from resurge.data.fix import mend

        changes = mend(data, options.fix)
        found |= {"fixed": {"folder": options.fix, "changes": changes}}
        lines = [*lines, f"mended copy in {options.fix}:", *(f"  {line}" for line in changes)]
    if options.json:
        print_json(found)
    else:
        show(*lines)
    return 0 if report.ok else 1
