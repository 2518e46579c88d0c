"""The body of a request: read within limits, and taken apart into files."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from resurge.serve.limits import Limits
from resurge.serve.refusals import ClientGone, Refused

Receive = Callable[[], Awaitable[Any]]
KINDS = "image/*, application/octet-stream, multipart/form-data or application/json"
_FIELDS = ("image", "images", "file", "files")


@dataclass(frozen=True)
class Upload:
    """A file as it came. `problem` says why there is none."""

    name: str
    data: bytes
    problem: Refused | None = None


class Buffered:
    """How many bytes of bodies the server holds."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """A function that takes so many bytes more, all given back after the block.

        Raises:
            Refused: 503, there is no room for them.
        """
        taken = 0

        def take(count: int) -> None:
            nonlocal taken
            if self.held + count > self.limit:
                message = "the server holds as many uploads as it can. Try again in a second."
                raise Refused(503, "busy", message, {"Retry-After": "1"})
            taken += count
            self.held += count

        try:
            yield take
        finally:
            self.held -= taken


async def read_body(receive: Receive, headers: dict[str, str], limits: Limits, take: Callable[[int], None]) -> bytes:
    """The whole body of a request.

    Args:
        receive: of ASGI.
        headers: by lower-case name.
        take: is told of bytes before they are kept.

    Raises:
        Refused: 413 as soon as it is known to be too large, by its header or while it comes; 408 when it does not
            come in time; 415 when it is compressed.
        ClientGone: the connection ended before the body did.
    """
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "compressed", "the body is compressed. Send it as it is, without Content-Encoding.")
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limits.max_bytes:
        raise _too_large(limits)
    body = bytearray()
    try:
        with anyio.fail_after(limits.read_timeout):
            more = True
            while more:
                event = await receive()
                if event["type"] != "http.request":
                    raise ClientGone
                chunk = event.get("body", b"")
                if len(body) + len(chunk) > limits.max_bytes:
                    raise _too_large(limits)
                take(len(chunk))
                body += chunk
                more = event.get("more_body", False)
    except TimeoutError:
        message = f"the request did not come within {limits.read_timeout:g} seconds."
        raise Refused(408, "too-slow", message) from None
    return bytes(body)


def _too_large(limits: Limits) -> Refused:
    return Refused(413, "too-large", f"the body has more than {limits.max_bytes:,} bytes, the limit of this server.")


def take_apart(body: bytes, content_type: str, limits: Limits) -> list[Upload]:
    """The files in a body, at least one.

    Raises:
        Refused: 400 or 422 when the body is not what its type promises, 413 for more than `max_images` files, 415 for
            another type than `KINDS`.
    """
    kind, options = parse_options_header(content_type)
    word = kind.decode("latin-1").lower()
    if word == "multipart/form-data":
        uploads = _of_multipart(body, options.get(b"boundary", b""), limits)
    elif word == "application/json":
        uploads = _of_json(body, limits)
    elif word.startswith("image/") or word in ("application/octet-stream", ""):
        uploads = [Upload("image", body)]
    else:
        raise Refused(415, "wrong-type", f"the body is {word[:100]!r}. Expected {KINDS}.")
    if not uploads:
        raise Refused(422, "no-image", "there is no image in the request. Expected at least one.")
    return uploads


def _too_many(limits: Limits) -> Refused:
    return Refused(413, "too-many", f"the request has more than {limits.max_images} images, the limit of this server.")


# ----------------------------------------------------------------------------------------------------- multipart


class _Part:
    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.data = bytearray()
        self.name = ""
        self.file_name: str | None = None


def _of_multipart(body: bytes, boundary: bytes, limits: Limits) -> list[Upload]:
    if not boundary:
        raise Refused(400, "bad-multipart", "the Content-Type of the request names no boundary.")
    parts: list[_Part] = []
    header: list[bytes] = [b"", b""]
    ended = False

    def begin() -> None:
        if len(parts) == limits.max_images:
            raise _too_many(limits)
        parts.append(_Part())

    def field(data: bytes, start: int, end: int) -> None:
        header[0] += data[start:end]

    def value(data: bytes, start: int, end: int) -> None:
        header[1] += data[start:end]

    def header_end() -> None:
        parts[-1].headers[header[0].lower()] = header[1]
        header[:] = [b"", b""]

    def headers_finished() -> None:
        _, options = parse_options_header(parts[-1].headers.get(b"content-disposition"))
        parts[-1].name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" in options:
            parts[-1].file_name = options[b"filename"].decode("utf-8", "replace")

    def content(data: bytes, start: int, end: int) -> None:
        parts[-1].data += data[start:end]

    def end() -> None:
        nonlocal ended
        ended = True

    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": begin,
                "on_header_field": field,
                "on_header_value": value,
                "on_header_end": header_end,
                "on_headers_finished": headers_finished,
                "on_part_data": content,
                "on_end": end,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Refused(400, "bad-multipart", f"the body cannot be read as multipart/form-data ({error}).") from error
    if not ended:
        raise Refused(400, "bad-multipart", "the body ends before its last boundary.")
    for part in parts:
        if part.file_name is None and part.name not in _FIELDS:
            raise Refused(
                422,
                "unknown-field",
                f"unknown field {part.name[:100]!r}. Files are expected; top and score belong into the query.",
            )
    return [Upload((part.file_name or part.name or "image")[:255], bytes(part.data)) for part in parts]


# ---------------------------------------------------------------------------------------------------------- JSON


def _of_json(body: bytes, limits: Limits) -> list[Upload]:
    # Base64 has none of these; without the check, a few megabytes of brackets would become a gigabyte of lists.
    if sum(body.count(sign) for sign in (b"[", b"{", b",")) > 16 + 8 * limits.max_images:
        raise _too_many(limits)
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "bad-json", f"the body is no JSON ({str(error)[:200]}).") from error
    images = found.get("images") if isinstance(found, dict) else None
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise Refused(422, "bad-json", 'expected {"images": ["…", …]} with images as base64 text.')
    if others := [key for key in found if key != "images"]:
        raise Refused(422, "bad-json", f"unknown key {str(others[0])[:100]!r}; there is only images.")
    if len(images) > limits.max_images:
        raise _too_many(limits)
    return [_of_text(f"image {number}", text) for number, text in enumerate(images)]


def _of_text(name: str, text: str) -> Upload:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return Upload(name, base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return Upload(name, b"", Refused(422, "not-base64", "is not base64 text."))
