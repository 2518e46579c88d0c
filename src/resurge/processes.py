"""Which process of a training this is, how it is stopped, and which one reports when the training fails. No torch until
it fails.

The processes are started by Fabric (`--devices 2`: the command starts itself again), by torchrun or by Slurm. All of
them say what a process is in environment variables. The first process of all, global rank 0, prepares the run
directory, evaluates, writes and prints; the others only train.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING

from resurge.errors import OtherProcessFailed, TrainingInterrupted, UserError

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

_PATIENCE = 10.0  # seconds to wait for a process that is about to end


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise UserError(f"expected a whole number in the environment variable {name}, but it is {text!r}.") from None


def is_first() -> bool:
    """Whether this is the first process of the training: global rank 0, or the only one.

    Raises:
        UserError: an environment variable that says so is not a number.
    """
    rank, local = _number("RANK"), _number("LOCAL_RANK")
    if rank is None and local is None:
        rank = _number("SLURM_PROCID")
    if rank is not None:
        return rank == 0
    return not local and not _number("NODE_RANK")


def is_child() -> bool:
    """Whether Fabric started this process from the first one of this machine, which then looks after it."""
    return _number("RANK") is None and bool(_number("LOCAL_RANK"))


def check_started(devices: int, nodes: int) -> None:
    """Compare the processes that a launcher has started with those that the recipe wants.

    Raises:
        UserError: they differ.
    """
    if _number("RANK") is None and is_first():
        return  # no launcher, or Fabric, which starts what the recipe wants
    world, local = _number("WORLD_SIZE"), _number("LOCAL_WORLD_SIZE")
    right = world is None or world == devices * nodes
    if right and (local is None or local == devices) and (devices * nodes > 1 or is_first()):
        return
    started = f"{world or 'several'} processes" + (f", {local} on this machine" if local else "")
    raise UserError(
        f"a launcher started {started} (environment variables RANK, WORLD_SIZE, LOCAL_RANK), but the recipe has "
        f"devices={devices} and nodes={nodes}. Give --devices as many as start on each machine, and --nodes."
    )


def meet() -> None:
    """Wait until every process that torchrun started is ready to train.

    What keeps one of them from it ends the others at once; without this they would wait for it for many minutes.

    Raises:
        OtherProcessFailed: another one has failed.
    """
    if not _by_torchrun() or (store := _store()) is None:
        return
    world = _number("WORLD_SIZE") or 1
    ready = store.add(_key("ready"), 1)
    try:
        while ready < world:
            if store.check([_key("reports")]):
                raise OtherProcessFailed("another process of this training could not start.")
            time.sleep(0.1)
            ready = store.add(_key("ready"), 0)
    except RuntimeError:  # the store went with the first process, or its machine
        raise OtherProcessFailed("another process of this training ended before it started.") from None


def reports(error: BaseException) -> bool:
    """Whether this process is to report `error`, which ends its part of the training.

    A failure of one process makes the others fail too, and what the first finds wrong the others mostly find as well.
    The process that asks first reports; a stop that was asked for is reported by the first process.
    """
    if isinstance(error, TrainingInterrupted):
        return is_first()
    if (store := _store()) is None:
        return True
    own = f"{socket.gethostname()} {os.getpid()}"
    try:
        chosen = store.compare_set(_key("reports"), "", own).decode() == own
        world = _number("WORLD_SIZE") or 1
        asked = store.add(_key("asked"), 1)
        if chosen and _by_torchrun() and store.add(_key("ready"), 0) < world:
            # the others are at `meet`, or will be; where this process lends them the store, it stays for a moment
            limit = time.monotonic() + _PATIENCE
            while asked < world and time.monotonic() < limit:
                time.sleep(0.05)
                asked = store.add(_key("asked"), 0)
    except RuntimeError:
        return True  # the store went with its owner; rather two reports than none
    return chosen


def _by_torchrun() -> bool:
    """Whether torchrun started all processes and lends them its store."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _key(name: str) -> str:
    return f"resurge/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{name}"


def _store() -> TCPStore | None:
    """The key-value store through which the processes find each other; None for a process that is alone."""
    host, port = os.environ.get("MASTER_ADDR"), _number("MASTER_PORT")
    several = "RANK" in os.environ or "LOCAL_RANK" in os.environ
    if not several or host is None or port is None or _number("WORLD_SIZE") == 1:
        return None
    owner = is_first() and not _by_torchrun()
    with contextlib.suppress(RuntimeError):
        return _connected(host, port, owner)
    return None


@functools.cache
def _connected(host: str, port: int, owner: bool) -> TCPStore:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    # it is there already, or it has gone
    limit = timedelta(seconds=3)
    return TCPStore(host, port, is_master=owner, wait_for_workers=False, multi_tenant=True, timeout=limit)


@contextlib.contextmanager
def looked_after(launcher: object) -> Iterator[None]:
    """A training in several processes; `launcher` is Fabric's, None where there is one process.

    When this process fails or is stopped at once, so are those it has started: they have nothing to save.

    Raises:
        OtherProcessFailed: in place of the error that this process gets when another one is gone.
    """
    try:
        yield
    except BaseException as error:
        children = getattr(launcher, "procs", [])
        if launcher is None or not isinstance(error, Exception):
            _end(children)
            raise
        raise _understood(error, children) from error


def _understood(error: Exception, children: list[subprocess.Popen[bytes]]) -> Exception:
    """What `error` of a training in several processes comes from; ends the processes that this one has started."""
    ours, lost = reports(error), _lost_connection(error)
    codes = _end(children, patience=_PATIENCE if lost or not ours else 0)
    if not lost:
        return error
    code = next((code for code in codes if code), 1)
    how = f"was ended by signal {-code} ({signal.strsignal(-code)})" if code < 0 else "ended before its time"
    return OtherProcessFailed(f"another process of this training {how}. Go on with --resume.", max(1, code))


def _end(children: list[subprocess.Popen[bytes]], patience: float = 0) -> list[int | None]:
    """End processes, after some seconds in which they may end by themselves; the exit codes of those that did.

    Empties the list, so that Fabric watches them no longer.
    """
    started, children[:] = list(children), []
    for process in started if patience else ():
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    codes = [process.poll() for process in started]
    for process in started:
        process.kill()
        process.wait()
    return codes


def _lost_connection(error: Exception) -> bool:
    """Whether this is what torch.distributed raises when another process is gone."""
    from torch.distributed import DistError

    words = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
    return isinstance(error, DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


@contextlib.contextmanager
def handling(numbers: Sequence[int], handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Handle signals inside the block. Only the main thread may; elsewhere nothing is handled."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


class StopSignal:
    """Remembers Ctrl-C and SIGTERM until the training reaches a whole step; a second one stops at once."""

    def __init__(self) -> None:
        self.received: int | None = None

    def __call__(self, number: int, frame: object) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number

    def listening(self) -> contextlib.AbstractContextManager[None]:
        """Handle the signals inside the block."""
        return handling((signal.SIGTERM,) if is_child() else (signal.SIGINT, signal.SIGTERM), self)
