"""An answer as the response tells it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from resurge.errors import suggest
from resurge.serve.contract import Answer
from resurge.serve.refusals import Refused
from resurge.tasks.classify.predict import Classified

MOST = 100_000
"""Classes an image that may be asked for."""


@dataclass(frozen=True)
class Wanted:
    """top: classes an image, at most. score: objects of a lower one are left out. masks: with masks and label maps."""

    top: int = 5
    score: float = 0.5
    masks: bool = True

    @staticmethod
    def of(query: Mapping[str, str]) -> Wanted:
        """From the query of a request.

        Raises:
            Refused: 422, an option is unknown, or a value out of range.
        """
        require_known(query, tuple(_RULES))
        given: dict[str, Any] = {}
        for name, (read, rule) in _RULES.items():
            if name in query:
                try:
                    given[name] = read(query[name])
                except (ValueError, KeyError):
                    raise Refused(422, "bad-query", f"{name}: expected {rule}, got {query[name][:100]!r}.") from None
        return Wanted(**given)


def _top(word: str) -> int:
    if not (word.isdecimal() and word.isascii() and 1 <= int(word[:9]) <= MOST):
        raise ValueError
    return int(word[:9])


def _score(word: str) -> float:
    score = float(word)
    if not 0 <= score <= 1:
        raise ValueError
    return score


_RULES: dict[str, tuple[Callable[[str], Any], str]] = {
    "top": (_top, f"a whole number from 1 to {MOST}"),
    "score": (_score, "a number from 0 to 1"),
    "masks": (lambda word: {"true": True, "false": False}[word], "true or false"),
}


def require_known(query: Mapping[str, str], known: Sequence[str]) -> None:
    """Raises Refused for an option that there is not: it would be passed over in silence otherwise."""
    for name in query:
        if name not in known:
            raise Refused(422, "bad-query", f"unknown option {name[:100]!r}.{suggest(name[:100], known)}")


def entry(
    index: int, name: str, size: tuple[int, int], answer: Answer, classes: Sequence[str], wanted: Wanted
) -> dict[str, Any]:
    """What a response says of the image at `index`, whose size (width, height) is that of the upright picture."""
    if isinstance(answer, Classified):  # of thousands of classes only those that are wanted become data
        told = answer.to_json(classes, wanted.top)
    else:
        told = dict(answer.to_json(classes))
    if "objects" in told:
        told["objects"] = [found for found in told["objects"] if found["score"] >= wanted.score]
        if not wanted.masks:
            told["objects"] = [{k: v for k, v in found.items() if k != "mask"} for found in told["objects"]]
    labels = getattr(answer, "classes", None)
    if wanted.masks and isinstance(labels, np.ndarray) and labels.ndim == 2:
        told["map"] = _png(labels)
    return {"index": index, "name": name, "width": size[0], "height": size[1], **told}


def _png(labels: np.ndarray) -> str:
    """Indices of classes (H, W) as a grey PNG in base64; the grey value is the index."""
    file = BytesIO()
    Image.fromarray(labels.astype(np.uint8)).save(file, "PNG", compress_level=3)
    return base64.b64encode(file.getvalue()).decode("ascii")


def response(outcomes: Sequence[dict[str, Any] | Refused], names: Sequence[str]) -> tuple[int, dict[str, Any]]:
    """The status and the body of a response.

    With several images, one that cannot be used has an `error` in its entry and the others are answered, status 200.
    When there is no answer at all, the status is the gravest of the images'.
    """
    images: list[dict[str, Any]] = []
    refused: list[Refused] = []
    for index, (outcome, name) in enumerate(zip(outcomes, names, strict=True)):
        if isinstance(outcome, Refused):
            refused.append(outcome)
            images.append({"index": index, "name": name, "error": outcome.to_json()})
        else:
            images.append(outcome)
    if len(refused) < len(images):
        return 200, {"images": images}
    worst = max(refused, key=lambda refusal: refusal.status)
    return worst.status, {"error": worst.to_json(), "images": images}
