"""The parser the subcommands share, and the options that read the same in all of them."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NoReturn

from resurge.errors import UserError, suggest
from resurge.tasks.tta import TTA


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises `UserError`, takes no abbreviations and suggests the option that was meant."""

    def __init__(self, prog: str, summary: str) -> None:
        super().__init__(
            prog=prog,
            description=summary[:1].upper() + summary[1:] + ".",
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse `arguments`.

        Raises:
            UserError: an option is unknown, a value is missing or cannot be read.
        """
        # Before argparse sees them: it would first complain of whatever the misspelt option's value was taken for.
        known = {option for action in self._actions for option in action.option_strings}
        for word in arguments:
            if word == "--":
                break
            option = word.split("=", 1)[0]
            if option.startswith("--") and option not in known:
                raise UserError(f"unknown option {option}.{suggest(option, known)} `{self.prog} --help` lists them.")
        return self.parse_args(arguments)

    def error(self, message: str) -> NoReturn:
        end = "" if message.endswith("?") else "."
        raise UserError(f"{message}{end} `{self.prog} --help` says what it takes.")


def one_of(options: Iterable[str], what: str) -> Callable[[str], str]:
    """An argparse `type` that takes one of `options` and suggests the nearest one for anything else."""
    allowed = list(options)

    def check(word: str) -> str:
        if word not in allowed:
            near = suggest(word, allowed) or f" It is one of: {', '.join(allowed)}."
            raise argparse.ArgumentTypeError(f"unknown {what} {word!r}.{near}".rstrip("."))
        return word

    return check


def whole_number(at_least: int, at_most: int | None = None) -> Callable[[str], int]:
    """An argparse `type`: an integer that is neither smaller than `at_least` nor larger than `at_most`."""

    def check(word: str) -> int:
        try:
            number = int(word)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected a whole number, got {word!r}") from None
        if number < at_least:
            raise argparse.ArgumentTypeError(f"expected {at_least} or more, got {number}")
        if at_most is not None and number > at_most:
            raise argparse.ArgumentTypeError(f"expected {at_most} or less, got {number}")
        return number

    return check


def number(word: str) -> float:
    """An argparse `type`: a finite number."""
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number, got {word!r}")
    return value


def numbers(word: str) -> tuple[float, ...]:
    """An argparse `type`: numbers with commas between them."""
    return tuple(number(part.strip()) for part in word.strip("[]()").split(","))


def add_json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def device(word: str) -> str:
    """An argparse `type`: what may be the name of a device; whether there is one is found out later."""
    if not re.fullmatch(r"[a-z]+(:\d{1,3})?", word):
        raise argparse.ArgumentTypeError(f"expected auto, cpu, cuda, cuda:1 or mps, got {word!r}")
    return word


def add_device(parser: Parser) -> None:
    about = "auto, cpu, cuda, cuda:1, mps (default: auto)"
    parser.add_argument("--device", type=device, default="auto", metavar="NAME", help=about)


def add_batch_size(parser: Parser, default: str) -> None:
    """Not given, it stays None; `default` says what it is then."""
    about = f"images at a time (default: {default})"
    parser.add_argument("--batch-size", type=whole_number(1), metavar="N", help=about)


def add_workers(parser: Parser) -> None:
    parser.add_argument(
        "--workers", type=whole_number(0), default=0, metavar="N", help="processes that read images (default: 0)"
    )


def yes_or_no(word: str) -> bool:
    """An argparse `type`: true or false."""
    if word.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"expected true or false, got {word!r}")
    return word.lower() == "true"


def factors(word: str) -> tuple[float, ...]:
    """An argparse `type`: positive numbers with commas between them."""
    found = numbers(word)
    if min(found) <= 0:
        raise argparse.ArgumentTypeError(f"expected numbers above 0, got {word!r}")
    return found


def height_and_width(word: str) -> tuple[int, int] | None:
    """An argparse `type`: two whole numbers of pixels, or `none`."""
    if word.lower() == "none":
        return None
    sides = [whole_number(1)(part.strip()) for part in word.strip("[]()").split(",")]
    if len(sides) != 2:
        raise argparse.ArgumentTypeError(f"expected a height and a width such as 512,512, got {word!r}")
    return sides[0], sides[1]


def add_views(parser: Parser) -> None:
    """The options of test-time augmentation; those not given stay None."""
    group = parser.add_argument_group("segmenters only", "default: what the run's recipe tests with")
    about = "average over the image at these sizes: 0.75,1,1.25"
    group.add_argument("--scales", type=factors, metavar="A,B", help=about)
    group.add_argument(
        "--flip", type=yes_or_no, nargs="?", const=True, metavar="true/false", help="average over its mirror image too"
    )
    group.add_argument(
        "--window",
        type=lambda word: (height_and_width(word),),  # a tuple, so that `none` is not taken for nothing given
        metavar="H,W",
        help="let a window of this many pixels slide over larger images; none: whole images",
    )


def tta_of(options: argparse.Namespace, own: TTA) -> TTA:
    """The test-time augmentation that the options of `add_views` ask for; what they leave open is as in `own`."""
    return TTA(
        own.scales if options.scales is None else options.scales,
        own.flip if options.flip is None else options.flip,
        own.window if options.window is None else options.window[0],
    )


def require_taken(
    options: argparse.Namespace, source: str, task: str, names: Iterable[str], taken: Collection[str]
) -> None:
    """Check the options that only some tasks take; not given, they are None.

    Args:
        source: the run, export or network of the task.
        names: these options, by destination. taken: those that the task takes.

    Raises:
        UserError: an option is given that the task does not take.
    """
    given = [name for name in names if getattr(options, name) is not None and name not in taken]
    if given:
        words = ", ".join("--" + name.replace("_", "-") for name in given)
        raise UserError(f"{source} is of the task {task}, which has no use for {words}. Leave it out.")


def add_max_size(parser: Parser) -> None:
    about = (
        "not classifiers: images are reduced until their longer side has N pixels at most, which bounds the memory "
        "(default: the run's)"
    )
    parser.add_argument("--max-size", type=whole_number(1), metavar="N", help=about)


def share(word: str) -> float:
    """An argparse `type`: a number in 0..1."""
    found = number(word)
    if not 0 <= found <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {word!r}")
    return found


def as_is(value: Any) -> str:
    """A value as the command line would take it: `none`, `true`, `0.1`, `a,b`."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return ",".join(map(as_is, value))
    return str(value)
