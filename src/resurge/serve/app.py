"""The routes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException

from resurge import __version__
from resurge.serve import described
from resurge.serve.answering import Wanted, require_known, response
from resurge.serve.gate import App, Gate
from resurge.serve.metrics import CONTENT_TYPE
from resurge.serve.refusals import Refused
from resurge.serve.service import Service
from resurge.serve.uploads import Upload, read_body, take_apart

PAGE = Path(__file__).parent / "page"
FILES = {
    "style.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "drawing.js": "text/javascript; charset=utf-8",
    "docs.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""What the page is made of. A list, so that no path of a request becomes a path of this machine."""

_AT_ONCE = 1 << 16  # bodies up to so many bytes are taken apart in the event loop
_ESSENTIAL = ("task", "spec", "preprocessing", "scores", "versions", "resurge")


def create_app(service: Service, *, token: str | None = None, hosts: frozenset[str] | None = None) -> App:
    """The ASGI application of a server.

    Args:
        service: started and stopped with the application.
        token: what clients have to show; None lets everybody in.
        hosts: names the server is known by; None for any.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="resurge serve",
        version=__version__,
        description=described.ABOUT,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses=described.EVERYWHERE,
    )

    @app.exception_handler(Refused)
    async def refuse(request: Request, refused: Refused) -> Response:
        return _json({"error": refused.to_json()}, refused.status, refused.headers)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        kind = {404: "unknown-path", 405: "wrong-method"}.get(error.status_code, "refused")
        headers = dict(error.headers or {})
        return await refuse(request, Refused(error.status_code, kind, f"{error.detail}. See /docs.", headers))

    @app.post("/predict", **described.PREDICT)
    async def predict(request: Request) -> Response:
        wanted = Wanted.of(request.query_params)
        async with _uploads(service, request) as uploads:
            outcomes = await service.answer(uploads, wanted)
            status, body = response(outcomes, [upload.name for upload in uploads])
            return _json(body, status)

    @app.post("/explain", **described.EXPLAIN)
    async def explain(request: Request) -> Response:
        require_known(request.query_params, ())
        if service.loaded.explain is None:
            raise Refused(404, "no-explanation", "this model is an export; only a run of a training can be explained.")
        async with _uploads(service, request, most=1) as (upload,):
            return Response(await service.explain(upload), media_type="image/png")

    @app.get("/healthz", **described.HEALTH)
    async def healthz() -> Response:
        return _json({"status": "alive"})

    @app.get("/readyz", **described.READY)
    async def readyz() -> Response:
        state = "stuck" if service.state == "ready" and service.stuck else service.state
        return _json({"status": state}, 200 if service.ready else 503)

    @app.get("/metrics", **described.METRICS)
    async def metrics() -> Response:
        return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})

    @app.get("/info", **described.INFO)
    async def info() -> Response:
        return _json(_info(service))

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE / "index.html", media_type="text/html; charset=utf-8")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return FileResponse(PAGE / "docs.html", media_type="text/html; charset=utf-8")

    @app.get("/page/{name}", include_in_schema=False)
    async def page_file(name: str) -> Response:
        if name not in FILES:
            raise HTTPException(404)
        return FileResponse(PAGE / name, media_type=FILES[name])

    routes = frozenset(["/", "/docs", "/openapi.json", *app.openapi()["paths"]])
    return Gate(app, metrics=service.metrics, routes=routes, token=token, hosts=hosts)


@asynccontextmanager
async def _uploads(service: Service, request: Request, most: int | None = None) -> AsyncIterator[list[Upload]]:
    """The files of a request, with a place in the queue for each of them while the block lasts."""
    with ExitStack() as stack:
        try:
            service.require_open()
            take = stack.enter_context(service.buffered.share())
            uploads = await _read(service, request, take, most)
            stack.enter_context(service.admit(len(uploads)))
        except Refused as refused:
            service.metrics.rejected.labels(refused.kind).inc()
            raise
        yield uploads


async def _read(service: Service, request: Request, take: Callable[[int], None], most: int | None) -> list[Upload]:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.scope["headers"]}
    body = await read_body(request.receive, headers, service.limits, take)
    kind = headers.get("content-type", "")
    if len(body) <= _AT_ONCE:
        uploads = take_apart(body, kind, service.limits)
    else:
        uploads = await service.in_thread(take_apart, body, kind, service.limits)
    if most is not None and len(uploads) > most:
        raise Refused(413, "too-many", f"there are {len(uploads)} images in the request; expected {most}.")
    return uploads


def _info(service: Service) -> dict[str, Any]:
    loaded, limits = service.loaded, service.limits
    predictor = loaded.predictor
    essential = {key: predictor.meta[key] for key in _ESSENTIAL if key in predictor.meta}
    return {
        **essential,
        "task": predictor.task,
        "classes": list(predictor.classes),
        "format": predictor.format,
        "precision": predictor.precision,
        "explains": loaded.explain is not None,
        "limits": {
            "max_bytes": limits.max_bytes,
            "max_pixels": limits.max_pixels,
            "max_side": limits.max_side,
            "max_images": limits.max_images,
            "timeout": limits.timeout,
        },
    }


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return Response(text.encode("utf-8", "backslashreplace"), status, headers, "application/json")
