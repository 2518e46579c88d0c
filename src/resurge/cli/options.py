"""The parser the subcommands share, and the options that read the same in all of them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NoReturn

from resurge.config import Hint, Limits, Unfit, coerce, members, type_name
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


def value(hint: Hint, **limits: float | None) -> Callable[[str], Any]:
    """An argparse `type`: what the text is as the type `hint`, within `limits` (see `resurge.config.Limits`)."""

    def read(word: str) -> object:
        try:
            found = coerce(word, hint)
        except Unfit:
            found = ()
        if found == ():
            what = "true or false" if hint is bool else f"a {type_name(hint)}"
            raise argparse.ArgumentTypeError(f"expected {what}, got {word!r}")
        if problem := Limits(**limits).problem(found):  # type: ignore[arg-type]  # choices are one_of's
            raise argparse.ArgumentTypeError(f"expected {problem}")
        return found

    return read


def whole_number(at_least: int, at_most: int | None = None) -> Callable[[str], int]:
    """An argparse `type`: an integer that is neither smaller than `at_least` nor larger than `at_most`."""
    return value(int, low=at_least, high=at_most)


number: Callable[[str], float] = value(float)
numbers: Callable[[str], tuple[float, ...]] = value(tuple[float, ...])
share: Callable[[str], float] = value(float, low=0, high=1)


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


def height_and_width(word: str) -> tuple[int, int] | None:
    """An argparse `type`: two whole numbers of pixels, or `none`."""
    if word.lower() == "none":
        return None
    sides = value(tuple[int, ...], low=1)(word)
    if len(sides) != 2:
        raise argparse.ArgumentTypeError(f"expected a height and a width such as 512,512, got {word!r}")
    return sides[0], sides[1]


def add_views(parser: Parser) -> None:
    """The options of test-time augmentation; those not given stay None."""
    group = parser.add_argument_group("segmenters only", "default: what the run's recipe tests with")
    about = "average over the image at these sizes: 0.75,1,1.25"
    group.add_argument("--scales", type=value(tuple[float, ...], above=0), metavar="A,B", help=about)
    group.add_argument(
        "--flip",
        type=value(bool),
        nargs="?",
        const=True,
        metavar="true/false",
        help="average over its mirror image too",
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


def metavar(hint: Hint) -> str:
    """What stands for a value of this type in the help: N, X, TEXT, true/false, or A,B for a list."""
    return {int: "N", float: "X", str: "TEXT", bool: "true/false"}.get(members(hint)[0], "A,B")


def as_is(value: object) -> str:
    """A value as the command line would take it: `none`, `true`, `0.1`, `a,b`."""
    if isinstance(value, (tuple, list)):
        return ",".join(map(as_is, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
