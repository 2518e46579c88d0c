"""What the OpenAPI document says of the routes."""

from __future__ import annotations

from typing import Any

from resurge.serve.answering import MOST

ABOUT = """\
Images in, predictions out.

Images are JPEG, PNG, WebP, GIF, BMP or AVIF. Of an animation the first frame is taken, EXIF orientation is applied, and
transparency is laid over white; boxes and maps are in the pixels of the upright image. Size limits stand in `/info`; an
image beyond them is refused by its header, before its pixels are decoded.

Of several images in a request each is answered on its own: one that cannot be used has an `error` in its entry, the
others are answered, and the status is 200. When none is answered, the status is the gravest of theirs.

Where a token is set, `/predict`, `/explain`, `/info` and `/metrics` ask for `Authorization: Bearer TOKEN`.
"""

_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["kind", "message"],
    "properties": {
        "kind": {"type": "string", "description": "one word, for programs"},
        "message": {"type": "string", "description": "what was expected, what came, what to do"},
    },
}
_REFUSED: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": _ERROR, "images": {"type": "array", "items": {"type": "object"}}},
}


def _refusal(about: str, retry: bool = False) -> dict[str, Any]:
    described: dict[str, Any] = {"description": about, "content": {"application/json": {"schema": _REFUSED}}}
    if retry:
        seconds = {"description": "seconds to wait", "schema": {"type": "string"}}
        described["headers"] = {"Retry-After": seconds}
    return described


EVERYWHERE: dict[int | str, dict[str, Any]] = {421: _refusal("the server is not known by the Host that was asked for")}

_TOKEN: dict[int | str, dict[str, Any]] = {401: _refusal("the token is missing or wrong")}

_UPLOAD: dict[int | str, dict[str, Any]] = {
    **_TOKEN,
    400: _refusal("the body is not what its Content-Type promises, or no HTTP"),
    408: _refusal("the body did not come in time"),
    413: _refusal("too many bytes, pixels or images"),
    415: _refusal("not an image, or of a format that is not read"),
    422: _refusal("an option out of range, or an image that is empty, cut short or damaged"),
    500: _refusal("the model failed on this image; the server goes on"),
    503: _refusal("the queue is full, or the server is starting or shutting down", retry=True),
    504: _refusal("there was no answer in time"),
}

_BYTES = {"schema": {"type": "string", "format": "binary"}}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "One image as it is, or several as files of a form or as base64 text.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
                    },
                    "additionalProperties": False,
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "byte"}}
                    },
                    "additionalProperties": False,
                }
            },
            "image/*": _BYTES,
            "application/octet-stream": _BYTES,
        },
    }
}

_NUMBER, _TEXT = {"type": "number"}, {"type": "string"}
_ENTRY: dict[str, Any] = {
    "type": "object",
    "required": ["index", "name"],
    "properties": {
        "index": {"type": "integer", "description": "place in the request, from 0"},
        "name": {"type": "string", "description": "of the file, as the client gave it"},
        "width": {"type": "integer", "description": "pixels of the upright image"},
        "height": {"type": "integer"},
        "error": _ERROR,
        "predictions": {
            "type": "array",
            "description": "classifiers: the most probable classes, best first",
            "items": {"type": "object", "properties": {"class": _TEXT, "score": _NUMBER}},
        },
        "objects": {
            "type": "array",
            "description": "detectors: surest first; box is x1, y1, x2, y2; mask is a COCO run-length code",
            "items": {
                "type": "object",
                "properties": {
                    "class": _TEXT,
                    "score": _NUMBER,
                    "box": {"type": "array", "items": _NUMBER, "minItems": 4, "maxItems": 4},
                    "mask": {"type": "object", "properties": {"size": {"type": "array"}, "counts": _TEXT}},
                },
            },
        },
        "classes": {"type": "array", "description": "segmenters: classes with their pixels and share"},
        "map": {"type": "string", "description": "segmenters: a PNG in base64 whose grey values are class indices"},
    },
}
_ANSWERS = {
    "type": "object",
    "required": ["images"],
    "properties": {"images": {"type": "array", "items": _ENTRY}},
}


def _option(name: str, about: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": about, "schema": schema}


# The routes read these themselves: for every image of a heavy load, FastAPI's way would cost as much as decoding one.
_OPTIONS = [
    _option(
        "top",
        "classifiers: classes an image, at most",
        {"type": "integer", "minimum": 1, "maximum": MOST, "default": 5},
    ),
    _option(
        "score", "objects of a lower score are left out", {"type": "number", "minimum": 0, "maximum": 1, "default": 0.5}
    ),
    _option("masks", "with masks of objects, and label maps as PNG", {"type": "boolean", "default": True}),
]


def _answered(about: str, content: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": about, "content": content}}


def _status(about: str) -> dict[str, Any]:
    schema = {"type": "object", "required": ["status"], "properties": {"status": _TEXT}}
    return {"description": about, "content": {"application/json": {"schema": schema}}}


PREDICT: dict[str, Any] = {
    "summary": "What the model says of images",
    "responses": {**_answered("an entry an image, in order", {"application/json": {"schema": _ANSWERS}}), **_UPLOAD},
    "openapi_extra": {"parameters": _OPTIONS, **_BODY},
}
EXPLAIN: dict[str, Any] = {
    "summary": "Where the network looked, as a heat map over one image",
    "responses": {
        **_answered("a PNG", {"image/png": _BYTES}),
        **_UPLOAD,
        404: _refusal("the model is an export, which cannot be explained"),
    },
    "openapi_extra": _BODY,
}
HEALTH: dict[str, Any] = {"summary": "Whether the server is alive", "responses": {200: _status("it is")}}
READY: dict[str, Any] = {
    "summary": "Whether the model is loaded and warm, and requests are taken",
    "responses": {200: _status("ready"), 503: _status("starting, draining, failed, or stuck in one batch")},
}
METRICS: dict[str, Any] = {
    "summary": "Counts and times for Prometheus",
    "responses": {**_answered("text", {"text/plain": {"schema": _TEXT}}), **_TOKEN},
}
INFO: dict[str, Any] = {
    "summary": "The model: task, classes, preprocessing; the limits of the server",
    "responses": {
        **_answered("the essentials of model.json", {"application/json": {"schema": {"type": "object"}}}),
        **_TOKEN,
        503: _refusal("the model is being loaded", retry=True),
    },
}
