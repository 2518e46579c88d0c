"""The ways a training ends early that are nobody's mistake in the input. No torch here."""

from __future__ import annotations


class TrainingInterrupted(Exception):
    """Ctrl-C or SIGTERM arrived; a checkpoint was written at the last whole optimizer step.

    `exit_code` is 128 + the signal's number, as shells report it (130 for Ctrl-C, 143 for SIGTERM).
    """

    def __init__(self, message: str, signal_number: int = 2) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class TrainingDiverged(Exception):
    """The loss or a weight became infinite or not a number; `module` names where it was first seen.

    The last good checkpoint stays. `exit_code` is 3.
    """

    exit_code = 3

    def __init__(self, message: str, module: str | None = None) -> None:
        super().__init__(message)
        self.module = module


class OtherProcessFailed(Exception):
    """Another process of this training failed or was killed, and this one cannot go on without it.

    `exit_code` is that of the other process where it is known, and 1 elsewhere.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
