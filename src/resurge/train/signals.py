"""Stop signals: a training ends at its next whole step."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from resurge.processes import is_child


class StopSignal:
    """Remembers Ctrl-C and SIGTERM until the training reaches a whole step; a second one stops at once."""

    def __init__(self) -> None:
        self.received: int | None = None

    def __call__(self, number: int, frame: object) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals inside the block; only the main thread may, elsewhere nothing is handled."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGTERM,) if is_child() else (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
