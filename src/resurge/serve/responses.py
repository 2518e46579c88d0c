"""Results and errors as a response holds them, and the options of a request that say which."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TypeVar

from PIL import Image

from resurge.data.images import UnreadableImage
from resurge.errors import suggest
from resurge.tasks.result import Result

MOST = 100_000
"""The largest number of classes per image that a request may ask for."""

Entry = dict[str, object]
T = TypeVar("T")

_STATUS_OF_KIND = {"too-large": 413, "not-an-image": 415}  # everything else about an image is 422


class ServeError(Exception):
    """A request, or one image of it, gets an error in place of a result: an HTTP status, one word for programs, and a
    message that says what was expected, what came and what to do."""

    def __init__(self, status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.headers = status, kind, message, headers or {}

    def to_json(self) -> dict[str, str]:
        return {"kind": self.kind, "message": self.message}

    @staticmethod
    def of(error: UnreadableImage) -> ServeError:
        """The error of an image that `resurge.data.images` could not read, without the name, which the client knows."""
        return ServeError(_STATUS_OF_KIND.get(error.kind, 422), error.kind, str(error)[len(error.name) + 2 :])


@dataclass(frozen=True)
class Options:
    """top: the most classes per image. score: objects with a lower score are left out. masks: with masks and maps."""

    top: int = 5
    score: float = 0.5
    masks: bool = True

    @staticmethod
    def of(query: Mapping[str, str]) -> Options:
        """From the query of a request.

        Raises:
            ServeError: 422, an option is unknown or out of range.
        """
        require_known(query, ("top", "score", "masks"))
        return Options(
            _read(query, "top", 5, _top, f"a whole number from 1 to {MOST}"),
            _read(query, "score", 0.5, _score, "a number from 0 to 1"),
            _read(query, "masks", True, {"true": True, "false": False}.__getitem__, "true or false"),
        )


def _read(query: Mapping[str, str], name: str, default: T, read: Callable[[str], T], expected: str) -> T:
    if name not in query:
        return default
    try:
        return read(query[name])
    except (ValueError, KeyError):
        raise ServeError(422, "bad-query", f"{name}: expected {expected}, got {query[name][:100]!r}.") from None


def _top(word: str) -> int:
    if not (word.isdecimal() and word.isascii() and 1 <= int(word[:9]) <= MOST):
        raise ValueError
    return int(word[:9])


def _score(word: str) -> float:
    score = float(word)
    if not 0 <= score <= 1:
        raise ValueError
    return score


def require_known(query: Mapping[str, str], known: Sequence[str]) -> None:
    """Raise a ServeError for an unknown option, which would otherwise be ignored in silence."""
    for name in query:
        if name not in known:
            raise ServeError(422, "bad-query", f"unknown option {name[:100]!r}.{suggest(name[:100], known)}")


def entry(
    index: int, name: str, size: tuple[int, int], result: Result, classes: Sequence[str], options: Options
) -> Entry:
    """The part of a response for the image at `index`, whose size (width, height) is that of the upright image."""
    plain: Entry = {"index": index, "name": name, "width": size[0], "height": size[1]}
    plain |= result.to_json(classes, options.top, score=options.score, masks=options.masks)
    if options.masks and result.label_map is not None:
        file = BytesIO()  # a grey PNG, whose values are indices of classes
        Image.fromarray(result.label_map).save(file, "PNG", compress_level=3)
        plain["map"] = base64.b64encode(file.getvalue()).decode("ascii")
    return plain


def response(outcomes: Sequence[Entry | ServeError], names: Sequence[str]) -> tuple[int, Entry]:
    """The status and the body of a response.

    With several images, one that cannot be used has an `error` in its entry and the others have results, status 200.
    Without any result, the status is the gravest of the images'.
    """
    errors = [outcome for outcome in outcomes if isinstance(outcome, ServeError)]
    images = [
        {"index": index, "name": name, "error": outcome.to_json()} if isinstance(outcome, ServeError) else outcome
        for index, (outcome, name) in enumerate(zip(outcomes, names, strict=True))
    ]
    if len(errors) < len(images):
        return 200, {"images": images}
    gravest = max(errors, key=lambda error: error.status)
    return gravest.status, {"error": gravest.to_json(), "images": images}
