"""The routes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import yaml
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from resurge import __version__
from resurge.serve.metrics import CONTENT_TYPE
from resurge.serve.middleware import Guard
from resurge.serve.requests import Upload, body_of, split_body
from resurge.serve.responses import Options, ServeError, require_known, response
from resurge.serve.service import Service

PAGE = Path(__file__).parent / "page"
_SHORT = 1 << 16  # bodies up to so many bytes are taken apart in the event loop
_ESSENTIAL = ("task", "spec", "preprocessing", "scores", "versions", "resurge")
_LIMITS = ("max_bytes", "max_pixels", "max_side", "max_images", "timeout")


def create_app(
    service: Service, *, token: str | None = None, hosts: frozenset[str] | None = None,
    origins: frozenset[str] = frozenset(),
) -> ASGIApp:  # fmt: skip
    """The ASGI application of a server.

    Args:
        service: started and stopped with the application.
        token: see `Guard`.
        hosts, origins: see `Guard`.
    """
    schema = yaml.safe_load(Path(__file__).with_name("openapi.yaml").read_text(encoding="utf-8"))
    del schema["x"]
    schema["info"]["version"] = __version__

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    async def predict(request: Request) -> Response:
        options = Options.of(request.query_params)
        async with _uploads(service, request) as uploads:
            outcomes = await service.predict(uploads, options)
            status, body = response(outcomes, [upload.name for upload in uploads])
            return _json(body, status)

    async def explain(request: Request) -> Response:
        require_known(request.query_params, ())
        draw = service.loaded.explain
        if draw is None:
            message = "this model is an export; only a run of a training can be explained."
            raise ServeError(404, "no-explanation", message)
        async with _uploads(service, request, most=1) as (upload,):
            return Response(await service.explain(upload, draw), media_type="image/png")

    async def healthz(_: Request) -> Response:
        return _json({"status": "alive"})

    async def readyz(_: Request) -> Response:
        state = "stuck" if service.state == "ready" and service.stuck else service.state
        return _json({"status": state}, 200 if service.ready else 503)

    async def metrics(_: Request) -> Response:
        return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})

    async def info(_: Request) -> Response:
        return _json(_info(service))

    async def openapi(_: Request) -> Response:
        return _json(schema)

    async def page(request: Request) -> Response:
        return FileResponse(PAGE / ("docs.html" if request.url.path == "/docs" else "index.html"))

    routes = [
        Route("/predict", predict, methods=["POST"]),
        Route("/explain", explain, methods=["POST"]),
        *(Route(f"/{route.__name__}", route) for route in (healthz, readyz, metrics, info)),
        Route("/openapi.json", openapi),
        *(Route(path, page) for path in ("/", "/docs")),
        Mount("/page", StaticFiles(directory=PAGE)),
    ]
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={ServeError: _error, HTTPException: _http_error, ClientDisconnect: _client_left},
    )
    counted = frozenset(route.path for route in routes if isinstance(route, Route))
    return Guard(
        app, metrics=service.metrics, routes=counted, token=token, hosts=hosts, origins=origins,
        closing=lambda: service.state == "draining",
    )  # fmt: skip


def _error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ServeError)
    return _json({"error": error.to_json()}, error.status, error.headers)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = {404: "unknown-path", 405: "wrong-method"}.get(error.status_code, "refused")
    return _error(request, ServeError(error.status_code, kind, f"{error.detail}. See /docs.", error.headers))


def _client_left(_: Request, error: Exception) -> Response:
    """What is counted for a client that left; there is nobody to send it to."""
    return Response(status_code=499)


@asynccontextmanager
async def _uploads(service: Service, request: Request, most: int | None = None) -> AsyncIterator[list[Upload]]:
    """The files of a request, with a place in the queue for each of them while the block lasts."""
    async with AsyncExitStack() as stack:
        try:
            service.require_open()
            body = await stack.enter_async_context(body_of(request, service.limits, service.buffered))
            kind = request.headers.get("content-type", "")
            if len(body) <= _SHORT:
                uploads = split_body(body, kind, service.limits)
            else:
                uploads = await service.in_thread(split_body, body, kind, service.limits)
            if most is not None and len(uploads) > most:
                message = f"there are {len(uploads)} images in the request; expected {most}."
                raise ServeError(413, "too-many", message)
            stack.enter_context(service.admit(len(uploads)))
        except ServeError as error:
            service.metrics.rejected.labels(error.kind).inc()
            raise
        yield uploads


def _info(service: Service) -> dict[str, object]:
    loaded = service.loaded
    predictor = loaded.predictor
    return {
        **{key: predictor.meta[key] for key in _ESSENTIAL if key in predictor.meta},
        "task": predictor.task,
        "classes": list(predictor.classes),
        "format": predictor.format,
        "precision": predictor.precision,
        "explains": loaded.explain is not None,
        "limits": {name: getattr(service.limits, name) for name in _LIMITS},
    }


def _json(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return Response(text.encode("utf-8", "backslashreplace"), status, headers, "application/json")
