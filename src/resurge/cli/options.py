"""What the subcommands share: the parser, the options that read the same in all of them, JSON on standard output."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NoReturn, TypeVar, cast

from resurge.config import FieldInfo, Hint, Limits, Unfit, coerce, fields, members, replaced, type_name
from resurge.data.reading import Reading
from resurge.errors import UserError, suggest
from resurge.tasks.tta import TTA
from resurge.untrusted import shown, shown_message

V = TypeVar("V")
Read = Callable[[str], object]
"""An argparse `type`."""


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


# -------------------------------------------------------------------------------------------------- values of options


def value(hint: type[V], limits: Limits = Limits()) -> Callable[[str], V]:
    """Reads the text as the type `hint`, within `limits`."""

    def read(word: str) -> V:
        try:
            found = coerce(word, hint)
        except Unfit:
            found = ()
        if found == ():
            what = "true or false" if hint is bool else f"a {type_name(hint)}"
            raise argparse.ArgumentTypeError(f"expected {what}, got {word!r}")
        if problem := limits.problem(found):
            raise argparse.ArgumentTypeError(f"expected {problem}")
        return cast(V, found)

    return read


def one_of(options: Iterable[str]) -> Callable[[str], str]:
    """Reads one of `options`; suggests the nearest one for anything else."""
    return value(str, Limits(choices=tuple(options)))


def whole_number(at_least: int, at_most: int | None = None) -> Callable[[str], int]:
    """Reads an integer that is neither smaller than `at_least` nor larger than `at_most`."""
    return value(int, Limits(low=at_least, high=at_most))


def device(word: str) -> str:
    """Reads what may be the name of a device; whether there is one is found out later."""
    if not re.fullmatch(r"[a-z]+(:\d{1,3})?", word):
        raise argparse.ArgumentTypeError(f"expected auto, cpu, cuda, cuda:1 or mps, got {word!r}")
    return word


def window(word: str) -> tuple[tuple[int, int] | None]:
    """Reads a height and a width in pixels, or `none`; in a tuple, so that `none` is not taken for nothing given."""
    if word.lower() == "none":
        return (None,)
    sides = value(tuple[int, ...], Limits(low=1))(word)
    if len(sides) != 2:
        raise argparse.ArgumentTypeError(f"expected a height and a width such as 512,512, got {word!r}")
    return ((sides[0], sides[1]),)


# What an option takes: how its text is read, and what stands for it in the help.
COUNT = (whole_number(1), "N")
NUMBER = (value(float), "X")
CHANNELS = (value(tuple[float, ...]), "R,G,B")
DEVICE = (device, "NAME")


def add(
    group: argparse._ActionsContainer,
    name: str,
    kind: str | tuple[Read, str],
    about: str,
    default: object = None,
    **more: str | bool,
) -> None:
    """Add an option or an argument that takes a value.

    Args:
        kind: how the text is read and what stands for it in the help; the latter alone where it stays a text.
        about: the help, to which the default is added.
        more: as `add_argument` takes it.
    """
    read, metavar = (str, kind) if isinstance(kind, str) else kind
    about = about if default is None else f"{about} (default: {as_is(default)})"
    group.add_argument(name, type=read, metavar=metavar, default=default, help=about, **more)  # type: ignore[arg-type]


def add_field(group: argparse._ActionsContainer, field: FieldInfo) -> None:
    """Add the option that sets a field of a recipe; its destination is `field:` and the field's path."""
    about = f"{field.help} ({as_is(field.default)})".replace("%", "%%")
    # true/false fields may stand without a value: `--compile`
    bare = {"nargs": "?", "const": "true"} if field.hint is bool else {}
    add(group, option_name(field.path), metavar(field.hint), about, dest=f"field:{field.path}", **bare)


def option_name(path: str) -> str:
    """The option that sets a field of the recipe: `optimization.batch_size` -> `--batch-size`."""
    return "--" + path.rpartition(".")[2].replace("_", "-")


# ------------------------------------------------------------------------------------ options of several subcommands


def add_reading(parser: Parser, about: str | None = None) -> None:
    """The options that say how a data set is to be read, as `resurge train` has them; `about` says more of them."""
    group = parser.add_argument_group("reading", about)
    for field in fields(Reading):
        add_field(group, field)


def reading_of(options: argparse.Namespace) -> Reading:
    """What the options of `add_reading` say."""
    return replaced(Reading(), reading_given(options), "command line")


def reading_given(options: argparse.Namespace) -> dict[str, str]:
    """Those of the options of `add_reading` that are given, by field."""
    given = {field.path: getattr(options, f"field:{field.path}") for field in fields(Reading)}
    return {path: text for path, text in given.items() if text is not None}


def add_json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_device(parser: Parser) -> None:
    add(parser, "--device", DEVICE, "auto, cpu, cuda, cuda:1, mps", "auto")


def add_batch_size(parser: Parser, default: str) -> None:
    """Not given, it stays None; `default` says what it is then."""
    add(parser, "--batch-size", COUNT, f"images at a time (default: {default})")


def add_best(parser: Parser) -> None:
    about = "the best network so far of a training that is not over, from its checkpoints"
    parser.add_argument("--best", action="store_true", help=about)


def add_max_size(parser: Parser) -> None:
    about = "not classifiers: images are reduced until their longer side has N pixels at most, which bounds the memory"
    add(parser, "--max-size", COUNT, f"{about} (default: the run's)")


def add_tta(parser: Parser) -> None:
    """The options of test-time augmentation; those not given stay None."""
    group = parser.add_argument_group("segmenters only", "default: what the run's recipe tests with")
    scales = (value(tuple[float, ...], Limits(above=0)), "A,B")
    add(group, "--scales", scales, "average over the image at these sizes: 0.75,1,1.25")
    about = "average over its mirror image too"
    add(group, "--flip", (value(bool), "true/false"), about, nargs="?", const=True)
    about = "let a window of this many pixels slide over larger images; none: whole images"
    add(group, "--window", (window, "H,W"), about)


def tta_of(options: argparse.Namespace, own: TTA) -> TTA:
    """The test-time augmentation that the options of `add_tta` ask for; what they leave open is as in `own`."""
    return TTA(
        own.scales if options.scales is None else options.scales,
        own.flip if options.flip is None else options.flip,
        own.window if options.window is None else options.window[0],
    )


def given(options: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """Those of the options, by destination, that are given; not given, they are None."""
    return {name: found for name in names if (found := getattr(options, name)) is not None}


def as_options(names: Iterable[str]) -> str:
    """Destinations as the command line has them: `--batch-size, --out`."""
    return ", ".join("--" + name.replace("_", "-") for name in names)


def require_taken(
    options: argparse.Namespace, source: str, task: str, names: Iterable[str], taken: Collection[str]
) -> None:
    """Check `names`, the options that only some tasks take: of those, `source` takes `taken`, as it is of this task."""
    wrong = [name for name in given(options, names) if name not in taken]
    if wrong:
        raise UserError(f"{source} is of the task {task}, which has no use for {as_options(wrong)}. Leave it out.")


def metavar(hint: Hint) -> str:
    """What stands for a value of this type in the help: N, X, TEXT, true/false, or A,B for a list."""
    return {int: "N", float: "X", str: "TEXT", bool: "true/false"}.get(members(hint)[0], "A,B")


def as_is(value: object) -> str:
    """A value as the command line would take it: `none`, `true`, `0.1`, `a,b`."""
    if isinstance(value, (tuple, list)):
        return ",".join(map(as_is, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def log(line: str) -> None:
    """A line on standard error; names in it may be anybody's."""
    print(f"resurge: {shown_message(line)}", file=sys.stderr, flush=True)


def show(*lines: str) -> None:
    """Lines on standard output; names in them may be anybody's."""
    print(*map(shown, lines), sep="\n")


def print_json(value: object) -> None:
    """Indented, in the order given. Not-a-number and infinity, which JSON has not, become null."""
    finite = json.loads(json.dumps(value), parse_constant=lambda name: None)
    print(json.dumps(finite, indent=2, ensure_ascii=False))
