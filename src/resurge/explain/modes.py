"""A network put into training or evaluation for a moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from torch import nn


class HasModules(Protocol):
    """Anything that lists its parts as an `nn.Module` does."""

    def modules(self) -> Iterator[nn.Module]: ...


@contextmanager
def in_mode(model: HasModules, *, training: bool) -> Iterator[None]:
    """This mode for all of `model`, and afterwards each part in the mode it had."""
    modes = {part: part.training for part in model.modules()}
    for part in modes:
        part.training = training
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
