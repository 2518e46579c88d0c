"""The one exception for a user's mistake, and the "did you mean" that goes with it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user gave cannot be used.

    The message says what was expected, what came and what to do. The command line prints it alone, without a
    traceback, and exits with code 2.
    """


def nearest(word: str, options: Iterable[str]) -> str | None:
    """The nearest of `options`, whatever their case, or None when nothing is near.

    Nearer than an option that only looks like `word` is one that begins with it, and nearest the word itself.
    """
    by_lower = {option.lower(): option for option in options}
    begun = [option for option in by_lower if word and option.startswith(word.lower())]
    near = sorted(begun, key=word.lower().__ne__) or difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[near[0]] if near else None


def suggest(word: str, options: Iterable[str]) -> str:
    """`" Did you mean 'resnet50'?"` for the nearest of `options`, or an empty string when nothing is near."""
    near = nearest(word, options)
    return f" Did you mean {near!r}?" if near else ""


def require_one_of(what: str, word: object, options: Iterable[str]) -> None:
    """Raises UserError for a word that is none of `options`: "unknown norm 'bach'; use one of batch, sync. ..."."""
    known = tuple(options)
    if word not in known:
        raise UserError(f"unknown {what} {word!r}; use one of {', '.join(known)}.{suggest(str(word), known)}")


def first_line(error: BaseException) -> str:
    """The first line of another package's error, at most 300 characters of it; its type where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def kind_and_line(error: BaseException) -> str:
    """The type of another package's error, and its first line."""
    return f"{type(error).__name__}: {first_line(error)}" if str(error).strip() else type(error).__name__


class TrainingInterrupted(Exception):
    """Ctrl-C or SIGTERM arrived; a checkpoint was written at the last whole optimizer step.

    `exit_code` is 128 + the signal's number, as shells report it (130 for Ctrl-C, 143 for SIGTERM).
    """

    def __init__(self, message: str, signal_number: int = 2) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class TrainingDiverged(Exception):
    """The loss or a weight became infinite or not a number; `module` names where it was first seen.

    The last good checkpoint stays. `exit_code` is 3.
    """

    exit_code = 3

    def __init__(self, message: str, module: str | None = None) -> None:
        super().__init__(message)
        self.module = module


class OtherProcessFailed(Exception):
    """Another process of this training failed or was killed, and this one cannot go on without it.

    `exit_code` is that of the other process where it is known, and 1 elsewhere.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
