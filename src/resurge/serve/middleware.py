"""What every request passes first: the Host it names, the token, the headers of every response, the counts."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resurge.serve.limits import LINGER
from resurge.serve.metrics import Metrics
from resurge.serve.responses import ServeError

OPEN = ("/", "/docs", "/openapi.json", "/healthz", "/readyz")
"""The routes without a token, beside the files of the page: these tell nothing of the model, and health is for
everybody. All other paths need one, so that another spelling of a path cannot get round it."""

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware around the routes.

    Args:
        metrics: counts every request, under its path or as "other".
        routes: the paths that are counted under their own name.
        token: what `Authorization: Bearer …` must hold; None lets everybody in.
        hosts: names that a request may give as Host, without port; None for any. This is the protection against DNS
            rebinding, where a foreign page has its own name resolved to this machine.
        origins: names whose pages may send images, beside the page of this server: those of a proxy before it.
        closing: whether the server is about to end, so that no connection is kept open.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, routes: frozenset[str], token: str | None,
        hosts: frozenset[str] | None, origins: frozenset[str] = frozenset(),
        closing: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self._app, self._metrics, self._routes = app, metrics, routes
        self._token = None if token is None else token.encode()
        self._hosts, self._origins, self._closing = hosts, origins, closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        route = scope["path"] if scope["path"] in self._routes else "other"
        began = time.perf_counter()
        unread = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        invited = "expect" not in headers  # otherwise the client waits for a 100 before it sends its body
        status = 500

        async def watched_receive() -> Message:
            nonlocal unread, invited
            invited = True
            message = await receive()
            unread = unread and message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def complete_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    given.setdefault(name, value)
                if unread or self._closing():  # the rest of this body would be taken for the next request
                    given["connection"] = "close"
            elif not message.get("more_body", False):
                self._count(route, status, began)
                if unread and invited and status != 408:  # not a client that stopped sending
                    await send({**message, "more_body": True})
                    await self._discard(watched_receive)
                    message = {"type": "http.response.body"}
            await send(message)

        problem = self._problem(scope["method"], scope["path"], headers)
        if problem is None:
            await self._app(scope, watched_receive, complete_send)
        else:
            response = JSONResponse({"error": problem.to_json()}, problem.status, problem.headers)
            await response(scope, receive, complete_send)

    def _count(self, route: str, status: int, began: float) -> None:
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(time.perf_counter() - began)

    async def _discard(self, receive: Receive) -> None:
        """Let a client that got an early response go on sending for a while: if the connection were closed at once, the
        response would be lost together with the bytes under way."""
        with anyio.move_on_after(LINGER):
            while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
                pass

    def _problem(self, method: str, path: str, headers: Headers) -> ServeError | None:
        if self._hosts is not None and _host_name(headers.get("host", "")) not in self._hosts:
            message = "the server is not known by this name. Start it with --allow-host NAME to let it in."
            return ServeError(421, "wrong-host", message)
        if method not in ("GET", "HEAD", "OPTIONS") and self._is_foreign(headers):
            message = "the request comes from a page of another site. Use the page of this server, or no browser."
            return ServeError(403, "cross-site", message)
        if self._token is not None and path not in OPEN and not path.startswith("/page/"):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), self._token):
                message = "this server asks for a token: Authorization: Bearer TOKEN."
                return ServeError(401, "no-token", message, {"WWW-Authenticate": "Bearer"})
        return None

    def _is_foreign(self, headers: Headers) -> bool:
        """Whether a browser sends this for a page of somebody else, which needs no leave to send, only to read."""
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site is not None:  # a page cannot set it
            return site not in ("same-origin", "none") and _host_name(_place(origin)) not in self._origins
        if origin is None:  # no browser
            return False
        return _place(origin) != headers.get("host", "").lower() and _host_name(_place(origin)) not in self._origins


def _place(origin: str | None) -> str:
    """Host and port of an Origin header, in lower case."""
    return (origin or "").lower().partition("://")[2]


def _host_name(value: str) -> str:
    """The name of a Host header, without its port, in lower case."""
    name, bracket, _ = value.lower().partition("]")
    return name + "]" if bracket else name.partition(":")[0]
