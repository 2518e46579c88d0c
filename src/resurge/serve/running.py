"""A server from its socket to its end."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import signal
import socket
import struct
import sys
import time
from types import FrameType

import uvicorn

from resurge.errors import UserError
from resurge.serve.app import create_app
from resurge.serve.connection import connection_class
from resurge.serve.limits import LINGER
from resurge.serve.service import Service

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Names of this machine for itself, as a Host header gives them."""

HANDSHAKE = 0.15
"""Seconds in which a connection that was begun is complete."""


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        UserError: the address is not this machine's, the port is taken or not allowed.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server((str(address[0]), int(address[1])), family=family, backlog=512)
    except (OSError, UnicodeError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot listen on {host}, port {port}: {reason}. Choose another --port or --host.") from error


def is_local(listener: socket.socket) -> bool:
    """Whether only this machine can reach the socket."""
    address = str(listener.getsockname()[0])
    return address.startswith("127.") or address == "::1"


def refuse_new(listener: socket.socket) -> None:
    """Let the kernel begin no further connection, and yet give out those it has: after this the socket can be closed
    without a loss. Who comes meanwhile tries again after a second, and is told then that nobody listens. Elsewhere than
    on Linux there is no such thing, and who comes in the very last moment is cut off."""
    if sys.platform != "linux":
        return
    code = b"".join(struct.pack("HBBI", *step) for step in _NO_SYN)
    memory = ctypes.create_string_buffer(code)
    with contextlib.suppress(OSError):
        program = struct.pack("HP", len(_NO_SYN), ctypes.addressof(memory))
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


_SO_ATTACH_FILTER = 26
_NO_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
"""A program for a packet filter: byte 13 of a TCP header has the flags; with SYN among them none of the packet is let
in, else all of it."""


class Server(uvicorn.Server):
    """A server that finishes what it has accepted before it ends: meanwhile /readyz and new requests get 503. What the
    kernel has accepted by then is answered too.

    Args:
        service: what is served.
        token: see `create_app`.
        hosts, origins: see `create_app`.

    Attributes:
        gave_up: whether it ended before all accepted requests had their responses.
    """

    def __init__(
        self, service: Service, *, token: str | None = None, hosts: frozenset[str] | None = None,
        origins: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        self.service = service
        self._listener: socket.socket | None = None
        self.gave_up = False
        self._end_by: float | None = None
        self._last_call: float | None = None
        limits = service.limits
        super().__init__(
            uvicorn.Config(
                create_app(service, token=token, hosts=hosts, origins=origins),
                http=connection_class(limits),
                ws="none",
                lifespan="on",
                loop="asyncio",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=round(LINGER),  # of connections; see on_tick for what was accepted
            )
        )

    def run_on(self, listener: socket.socket) -> None:
        """Serve until ended by SIGTERM, SIGINT or `should_exit`.

        Raises:
            Exception: what the loading of the model raised.
        """
        self._listener = listener
        asyncio.run(self.serve(sockets=[listener]))
        if self.service.failure is not None:
            raise self.service.failure

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """As uvicorn's, which also raises the signal once more at the end, for whoever handled it before: nobody."""
        self.force_exit |= self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        if self.service.failure is not None:
            return True
        if not await super().on_tick(counter):
            return False
        self.service.drain()
        if self._end_by is None:
            self._end_by = time.monotonic() + self.service.limits.grace
        late = time.monotonic() >= self._end_by
        if not late and not self.force_exit and not self.service.accepted:
            return self._is_quiet()
        if late:
            self.config.timeout_graceful_shutdown = 0  # uvicorn's own waiting comes after this one
        self.gave_up = late or self.force_exit
        return self.gave_up

    def _is_quiet(self) -> bool:
        """Whether no request is under way any more. From the first call on, no connection is begun."""
        if self._last_call is None:
            assert self._listener is not None
            refuse_new(self._listener)
            self._last_call = time.monotonic()
        waited = time.monotonic() - self._last_call
        expected = any(connection.expects_request for connection in self.server_state.connections)  # type: ignore[union-attr]
        return waited > HANDSHAKE and not expected
