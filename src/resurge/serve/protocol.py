"""HTTP/1.1 connections of strangers: slow ones are cut, half-closed ones answered, refused ones let go gently."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from resurge.serve.limits import CONNECTIONS, LINGER, Limits

_FULL = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class _Transport:
    """A transport whose `close` is the protocol's, and that sends what is written in one turn of the loop at once."""

    def __init__(self, transport: asyncio.Transport, protocol: Connection) -> None:
        self._transport, self._protocol = transport, protocol
        self._written: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._written:
            self._protocol.loop.call_soon(self.flush)
        self._written.append(data)

    def flush(self) -> None:
        written, self._written = self._written, []
        if written and not self._transport.is_closing():
            self._transport.write(b"".join(written))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._protocol.lingering or self._transport.is_closing()

    def close(self) -> None:
        self._protocol.close()


class Connection(H11Protocol):
    """uvicorn's connection, with four things it lacks.

    - The header of a request has to come within `read_timeout` of its first byte, and of the connection's beginning.
    - A client has to take its answer: one that stops reading is cut after `read_timeout`.
    - A client that closes its sending side after a complete request still gets its answer.
    - A client that is answered before it has sent all is given `LINGER` seconds to notice: closed at once, the answer
      would be lost with the bytes that were under way.
    """

    limits = Limits()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.lingering = False
        self._real: asyncio.Transport | None = None
        self._writer: _Transport | None = None
        self._impatience: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._real = transport
        self._writer = _Transport(transport, self)
        super().connection_made(self._writer)  # type: ignore[arg-type]
        if len(self.connections) > CONNECTIONS:
            transport.write(_FULL)
            transport.close()
            return
        self._wait_for_header()

    def data_received(self, data: bytes) -> None:
        if self.lingering:
            return
        super().data_received(data)
        if self._between_requests:
            if self._impatience is None:
                self._wait_for_header()
        else:
            self._stop_waiting()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self.limits.read_timeout, self._give_up)

    def resume_writing(self) -> None:
        self._stop_unread()
        super().resume_writing()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        if self.lingering or self._between_requests or self.cycle.more_body:
            return None
        self.cycle.keep_alive = False
        return True  # the answer is still to be sent

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_unread()
        super().connection_lost(exc)

    def close(self) -> None:
        """Close the connection; a client that is still sending is given some time."""
        transport = self._real
        if transport is None or self.lingering or transport.is_closing():
            return
        self._stop_waiting()
        if self._writer is not None:
            self._writer.flush()
        unread = self.conn.their_state is h11.ERROR or (self.cycle is not None and self.cycle.more_body)
        if not unread or not transport.can_write_eof():
            # What is written is still sent, but not for ever to somebody who does not read it.
            self._impatience = self.loop.call_later(self.limits.read_timeout, transport.abort)
            transport.close()
            return
        self.lingering = True
        transport.write_eof()
        transport.resume_reading()
        self._impatience = self.loop.call_later(LINGER, transport.abort)

    @property
    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _wait_for_header(self) -> None:
        self._impatience = self.loop.call_later(self.limits.read_timeout, self._give_up)

    def _stop_waiting(self) -> None:
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _give_up(self) -> None:
        if self._real is not None:
            self._real.abort()


def connection_class(limits: Limits) -> type[Connection]:
    """`Connection` with these limits, as uvicorn's `http` takes it."""
    return type("Connection", (Connection,), {"limits": limits})
