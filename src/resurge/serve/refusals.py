"""Why something was not answered, as a status, one word and a sentence."""

from __future__ import annotations

from typing import Any

from resurge.data.images import UnreadableImage

_STATUS_OF_KIND = {"too-large": 413, "not-an-image": 415}  # everything else about an image is 422


class Refused(Exception):
    """A request, or one image of it, is not answered.

    Attributes:
        status: the HTTP status, 4xx or 5xx.
        kind: one word, for programs.
        message: what was expected, what came, what to do.
        headers: of the response.
    """

    def __init__(self, status: int, kind: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.message = status, kind, message
        self.headers = headers or {}

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "message": self.message}

    @staticmethod
    def of(error: UnreadableImage) -> Refused:
        """The refusal of an image that `resurge.data.images` could not read."""
        # behind the name: a client knows the name it gave
        return Refused(_STATUS_OF_KIND.get(error.kind, 422), error.kind, str(error)[len(error.name) + 2 :])


class ClientGone(Exception):
    """The client closed its connection before its request was complete. There is nobody to answer."""
