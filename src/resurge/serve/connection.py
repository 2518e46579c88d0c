"""HTTP/1.1 connections that slow clients cannot keep."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

from uvicorn.protocols.http.h11_impl import H11Protocol

from resurge.serve.limits import CONNECTIONS, LINGER, ON_ITS_WAY, Limits

_FULL = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_NO_HTTP = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Connection(H11Protocol):
    """uvicorn's connection, with five things it lacks.

    - A client has `per_client` connections at most, so that it cannot keep the others out.

    - The header of a request has to come within `read_timeout` of the connection's beginning, or of the response
      before it.
    - A client has to take its response: one that stops reading is cut after `read_timeout`.
    - A client that closes its sending side after a complete request still gets its response.
    - A client whose bytes are no HTTP, or that is turned away, may go on sending for `LINGER` seconds: if the
      connection were closed at once, the answer would be lost together with the bytes under way.
    """

    limits = Limits()
    client_key: object = None
    _heard = 0.0  # when the client sent something, or got a whole response
    _timer: asyncio.TimerHandle | None = None
    _malformed = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # asyncio does this only for sockets that name their protocol; without it a response of two packets waits 40 ms
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)
        self._heard = self.loop.time()
        self._watch()
        self.client_key = key_of(str(transport.get_extra_info("peername")[0]))
        own = sum(getattr(other, "client_key", None) == self.client_key for other in self.connections)
        if len(self.connections) > CONNECTIONS or own > self.limits.per_client:
            self._turn_away()

    def data_received(self, data: bytes) -> None:
        self._heard = self.loop.time()
        if self._malformed:
            return
        super().data_received(data)
        if self._responding and not self.flow.write_paused:
            self._watch()

    def send_400_response(self, msg: str) -> None:
        if self._responding and self.cycle.response_started:
            self._malformed = True
            self.transport.abort()
            return
        self._end_with(_NO_HTTP)

    def _turn_away(self) -> None:
        """Say that there is no room; to the end, while there is room for that."""
        if len(self.connections) > CONNECTIONS + CONNECTIONS // 4:
            self.transport.close()
        else:
            self._end_with(_FULL)

    def _end_with(self, response: bytes) -> None:
        """Answer without reading; what comes is thrown away."""
        self._malformed = True
        self.transport.write(response)
        self.transport.write_eof()
        self._watch(LINGER)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._heard = self.loop.time()
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
    def expects_request(self) -> bool:
        """Whether a request is being answered, or may well be on its way."""
        return self._responding or self.loop.time() - self._heard < ON_ITS_WAY

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


def key_of(address: str) -> object:
    """What tells clients apart: the address, or the network of an IPv6 one, in which a client has any it likes."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return found
    return found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False)


def connection_class(limits: Limits) -> type[Connection]:
    """`Connection` with these limits, as uvicorn's `http` takes it."""
    return type("Connection", (Connection,), {"limits": limits})
