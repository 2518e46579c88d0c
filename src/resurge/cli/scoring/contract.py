"""What `resurge eval` asks of a task."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from torch import nn

from resurge.runs import Run

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is to be scored, on what."""

    name: str
    task: str
    model: nn.Module
    preprocessing: Any
    classes: tuple[str, ...]
    split: Any
    which: str
    run: Run | None = None


class Scoring(Protocol):
    """A task's scores: how they are computed and how they are told.

    Attributes:
        takes: the options of the command, by destination, that mean something for this task and not for every one.
        batch_size: images at a time unless the command line says otherwise.
    """

    takes: ClassVar[frozenset[str]]
    batch_size: ClassVar[int]

    def published(self, options: argparse.Namespace) -> Any:
        """The preprocessing for a network by name with somebody's weights."""
        ...

    def adjusted(self, preprocessing: Any, options: argparse.Namespace) -> Any:
        """The preprocessing with what the command line says otherwise. Raises UserError when that cannot be."""
        ...

    def score(self, subject: Subject, options: argparse.Namespace, progress: Progress | None) -> dict[str, Any]:
        """The scores, plain data for evaluation.json. Raises UserError."""
        ...

    def text(self, scores: Mapping[str, Any], classes: Sequence[str]) -> list[str]:
        """The scores for people: parts that stand below each other."""
        ...


def changed(preprocessing: Any, options: argparse.Namespace, names: Mapping[str, str]) -> Any:
    """The preprocessing with the options that are given; `names` says which option sets which field."""
    given = {field: getattr(options, option) for option, field in names.items()}
    return dataclasses.replace(preprocessing, **{field: value for field, value in given.items() if value is not None})
