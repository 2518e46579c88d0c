"""The body of a request: read within limits, and taken apart into files."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header
from starlette.requests import Request

from resurge.serve.decoding import MemoryBudget
from resurge.serve.limits import Limits
from resurge.serve.responses import ServeError

KINDS = "image/*, application/octet-stream, multipart/form-data or application/json"
_FIELDS = (b"image", b"images", b"file", b"files")


@dataclass(frozen=True)
class Upload:
    """A file as it came. `problem` is why there is none."""

    name: str
    data: bytes
    problem: ServeError | None = None


@asynccontextmanager
async def body_of(request: Request, limits: Limits, budget: MemoryBudget) -> AsyncIterator[bytes]:
    """The body of a request, which counts as held for the block.

    Raises:
        ServeError: 413 for more than `max_bytes`, by Content-Length or as the body comes; 408 when it does not come in
            time; 415 when it is compressed; 503 when the budget is used up.
        ClientDisconnect: the connection ended before the body did.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ServeError(415, "compressed", "the body is compressed. Send it as it is, without Content-Encoding.")
    message = f"the body has more than {limits.max_bytes:,} bytes, the limit of this server."
    too_large = ServeError(413, "too-large", message)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limits.max_bytes:
        raise too_large
    body = bytearray()
    try:
        with anyio.move_on_after(limits.read_timeout) as within:
            async for chunk in request.stream():
                if len(body) + len(chunk) > limits.max_bytes:
                    raise too_large
                if not budget.try_take(len(chunk)):
                    message = "the server holds as many uploads as it can. Try again in a second."
                    raise ServeError(503, "busy", message, {"Retry-After": "1"})
                body += chunk
        if within.cancelled_caught:
            raise ServeError(408, "too-slow", f"the request did not come within {limits.read_timeout:g} seconds.")
        yield bytes(body)
    finally:
        budget.give_back(len(body))


def split_body(body: bytes, content_type: str, limits: Limits) -> list[Upload]:
    """The files in a body, at least one.

    Raises:
        ServeError: 400 or 422 when the body is not what its type promises, 413 for more than `max_images` files, 415
            for another type than `KINDS`.
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
        raise ServeError(415, "wrong-type", f"the body is {word[:100]!r}. Expected {KINDS}.")
    if not uploads:
        raise ServeError(422, "no-image", "there is no image in the request. Expected at least one.")
    return uploads


def _too_many(limits: Limits) -> ServeError:
    message = f"the request has more than {limits.max_images} images, the limit of this server."
    return ServeError(413, "too-many", message)


def _of_multipart(body: bytes, boundary: bytes, limits: Limits) -> list[Upload]:
    if not boundary:
        raise ServeError(400, "bad-multipart", "the Content-Type of the request names no boundary.")
    uploads: list[Upload] = []
    ended: list[bool] = []

    def add(name: bytes, data: bytes) -> None:
        if len(uploads) == limits.max_images:
            raise _too_many(limits)
        uploads.append(Upload(name.decode("utf-8", "replace")[:255], data))

    def on_file(file: File) -> None:
        file.file_object.seek(0)
        add(file.file_name or file.field_name or b"image", file.file_object.read())

    def on_field(field: Field) -> None:
        name = field.field_name or b""
        if name not in _FIELDS:
            raise ServeError(
                422,
                "unknown-field",
                f"unknown field {name.decode('utf-8', 'replace')[:100]!r}. Files are expected; top and score belong "
                "into the query.",
            )
        add(name, field.value or b"")

    try:
        parser = FormParser(
            "multipart/form-data", on_field, on_file, on_end=lambda: ended.append(True), boundary=boundary,
            config={"MAX_MEMORY_FILE_SIZE": limits.max_bytes},
        )  # fmt: skip
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        message = f"the body cannot be read as multipart/form-data ({error})."
        raise ServeError(400, "bad-multipart", message) from error
    if not ended:
        raise ServeError(400, "bad-multipart", "the body ends before its last boundary.")
    return uploads


def _of_json(body: bytes, limits: Limits) -> list[Upload]:
    # Base64 has none of these; without the check, a few megabytes of brackets would become a gigabyte of lists.
    if sum(body.count(sign) for sign in (b"[", b"{", b",")) > 16 + 8 * limits.max_images:
        raise _too_many(limits)
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ServeError(400, "bad-json", f"the body is no JSON ({str(error)[:200]}).") from error
    images = found.get("images") if isinstance(found, dict) else None
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise ServeError(422, "bad-json", 'expected {"images": ["…", …]} with images as base64 text.')
    if others := [key for key in found if key != "images"]:
        raise ServeError(422, "bad-json", f"unknown key {str(others[0])[:100]!r}; there is only images.")
    if len(images) > limits.max_images:
        raise _too_many(limits)
    return [_of_text(f"image {number}", text) for number, text in enumerate(images)]


def _of_text(name: str, text: str) -> Upload:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return Upload(name, base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return Upload(name, b"", ServeError(422, "not-base64", "is not base64 text."))
