"""The one exception for a user's mistake, and the "did you mean" that goes with it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user gave cannot be used.

    The message says what was expected, what came and what to do. The command line prints it alone, without a
    traceback, and exits with code 2.
    """


def suggest(word: str, options: Iterable[str]) -> str:
    """`" Did you mean 'resnet50'?"` for the nearest of `options`, or an empty string when nothing is near.

    An option that begins with `word` is nearer than one that only looks like it.
    """
    by_lower = {option.lower(): option for option in options}
    begun = [option for option in by_lower if word and option.startswith(word.lower())]
    near = begun or difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""
