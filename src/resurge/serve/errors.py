"""Why a request or an image gets no result: a status, one word and a sentence."""

from __future__ import annotations

from collections.abc import Mapping

from resurge.data.images import UnreadableImage

_STATUS_OF_KIND = {"too-large": 413, "not-an-image": 415}  # everything else about an image is 422


class ServeError(Exception):
    """A request, or one image of it, gets an error in place of a result.

    Attributes:
        status: the HTTP status, 4xx or 5xx.
        kind: one word, for programs.
        message: what was expected, what came, what to do.
        headers: of the response.
    """

    def __init__(self, status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.headers = status, kind, message, headers or {}

    def to_json(self) -> dict[str, str]:
        return {"kind": self.kind, "message": self.message}

    @staticmethod
    def of(error: UnreadableImage) -> ServeError:
        """The error of an image that `resurge.data.images` could not read, without the name, which the client knows."""
        return ServeError(_STATUS_OF_KIND.get(error.kind, 422), error.kind, str(error)[len(error.name) + 2 :])
