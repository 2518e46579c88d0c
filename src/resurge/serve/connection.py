"""HTTP/1.1 connections that slow clients cannot keep."""

from __future__ import annotations

import asyncio
import socket

from uvicorn.protocols.http.h11_impl import H11Protocol

from resurge.serve.limits import CONNECTIONS, LINGER, Limits

_FULL = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_NO_HTTP = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Connection(H11Protocol):
    """uvicorn's connection, with four things it lacks.

    - The header of a request has to come within `read_timeout` of the connection's beginning, or of the response
      before it.
    - A client has to take its response: one that stops reading is cut after `read_timeout`.
    - A client that closes its sending side after a complete request still gets its response.
    - A client whose bytes are no HTTP may go on sending for `LINGER` seconds: if the connection were closed at once,
      the 400 would be lost together with the bytes under way.
    """

    limits = Limits()
    _timer: asyncio.TimerHandle | None = None
    _malformed = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # asyncio does this only for sockets that name their protocol; without it a response of two packets waits 40 ms
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > CONNECTIONS:
            transport.write(_FULL)
            transport.close()

    def data_received(self, data: bytes) -> None:
        if self._malformed:
            return
        super().data_received(data)
        if self._responding and not self.flow.write_paused:
            self._watch()

    def send_400_response(self, msg: str) -> None:
        self._malformed = True
        if self._responding and self.cycle.response_started:
            self.transport.abort()
            return
        self.transport.write(_NO_HTTP)
        self.transport.write_eof()
        self._watch(LINGER)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._watch()

    def eof_received(self) -> bool:  # type: ignore[override]
        if not self._responding or self.cycle.more_body:
            return False
        self.cycle.keep_alive = False
        return True  # the response is still to be sent

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    @property
    def _responding(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _watch(self, seconds: float | None = None) -> None:
        """Give the client some seconds, `read_timeout` by default, where the server waits for it; else no limit."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds or not self._responding or self.flow.write_paused:
            self._timer = self.loop.call_later(seconds or self.limits.read_timeout, self.transport.abort)


def connection_class(limits: Limits) -> type[Connection]:
    """`Connection` with these limits, as uvicorn's `http` takes it."""
    return type("Connection", (Connection,), {"limits": limits})
