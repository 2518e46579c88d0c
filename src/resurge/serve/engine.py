"""The one thread in which the model works."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Engine(ThreadPoolExecutor):
    """An executor of one thread that knows how long its current call has taken. A thread cannot be stopped, so every
    call of the model goes through here, and a call that hangs is noticed."""

    def __init__(self) -> None:
        super().__init__(1, "resurge-engine")
        self._began: float | None = None
        self._unfinished: set[object] = set()

    @property
    def busy_for(self) -> float:
        """Seconds since the current call began; 0 without one."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    @property
    def working(self) -> bool:
        """Whether a call is neither finished nor cancelled."""
        return bool(self._unfinished)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        def timed() -> T:
            self._began = time.monotonic()
            try:
                return fn(*args, **kwargs)
            finally:
                self._began = None

        future = super().submit(timed)
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        return future
