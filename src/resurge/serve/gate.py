"""What every request passes first: the Host it asks for, the token, the headers of every response, the counts."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from resurge.serve.metrics import Metrics
from resurge.serve.refusals import ClientGone, Refused

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/", "/docs", "/openapi.json", "/healthz", "/readyz")
"""The routes that ask for no token, beside the files of the page: these tell nothing of the model, and health is for
everybody. All else asks, so that another spelling of a path cannot get round it."""

_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


class Gate:
    """ASGI middleware around the routes.

    Args:
        routes: paths that are counted under their own name; all others are "other".
        token: what `Authorization: Bearer …` must hold, None for no such thing.
        hosts: names a request may give as Host, without port; None for any. A page of a stranger that has its own name
            resolved to this machine (DNS rebinding) gives its own.
    """

    def __init__(
        self,
        app: App,
        *,
        metrics: Metrics,
        routes: frozenset[str],
        token: str | None = None,
        hosts: frozenset[str] | None = None,
    ) -> None:
        self._app, self._metrics, self._routes = app, metrics, routes
        self._token = None if token is None else token.encode()
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        path = scope["path"]
        route = path if path in self._routes else "other"
        began = time.perf_counter()
        unread = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        status = 499

        async def counted_receive() -> Message:
            nonlocal unread
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                unread = False
            return message

        async def complete_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name for name, _ in message["headers"]}
                more = [header for header in _HEADERS if header[0] not in given]
                if unread:  # what is still coming would be taken for the next request
                    more.append((b"connection", b"close"))
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        try:
            if (refused := self._refusal(path, headers)) is not None:
                await _refuse(refused, complete_send)
            else:
                await self._app(scope, counted_receive, complete_send)
        except ClientGone:
            status = 499
        finally:
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> Refused | None:
        if self._hosts is not None and _host(headers.get(b"host", b"")) not in self._hosts:
            message = "the server is not known by this name. Start it with --allow-host NAME to let it in."
            return Refused(421, "wrong-host", message)
        if self._token is not None and path not in OPEN and not path.startswith("/page/"):
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._token):
                message = "this server asks for a token: Authorization: Bearer TOKEN."
                return Refused(401, "no-token", message, {"WWW-Authenticate": "Bearer"})
        return None


def _host(value: bytes) -> str:
    """The name of a Host header, without its port."""
    text = value.decode("latin-1").lower()
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    return text.partition(":")[0]


async def _refuse(refused: Refused, send: Send) -> None:
    body = json.dumps({"error": refused.to_json()}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **refused.headers}
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
