"""What `resurge predict` asks of a task."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from PIL import Image

from resurge.infer.predictor import Predictor


class Opened(NamedTuple):
    """A picture of the user's that could be read: upright, mode L or RGB."""

    path: Path
    image: Image.Image


class Asked(NamedTuple):
    """What a task's class is made from."""

    predictor: Predictor
    options: argparse.Namespace


class Predicting(Protocol):
    """A task's way from pictures to answers, and the forms its answers are written in. The type of an answer is its
    own affair.

    Attributes:
        takes: the options of the command, by destination, that mean something for this task and not for every one.
        batch_size: images at a time unless the command line says otherwise.
    """

    takes: ClassVar[frozenset[str]]
    batch_size: ClassVar[int]

    def __init__(self, asked: Asked) -> None:
        """Raises UserError for an option out of range."""
        ...

    def predict(self, images: Sequence[Opened]) -> Iterator[Any]:
        """An answer for each picture, in order."""
        ...

    def text(self, opened: Opened, answer: Any) -> str:
        """The answer as a line for people."""
        ...

    def json(self, opened: Opened, answer: Any) -> dict[str, Any]:
        """The answer as plain data, without the path."""
        ...

    def csv_head(self) -> list[str]:
        """Names of the columns of `csv_rows`."""
        ...

    def csv_rows(self, opened: Opened, answer: Any) -> Iterator[list[str]]:
        """The answer as rows of a table."""
        ...

    def write(self, opened: Opened, answer: Any) -> None:
        """Write the files of one picture that were asked for.

        Raises:
            UserError: a file cannot be written.
        """
        ...

    def finish(self) -> None:
        """Write the files that are about all pictures.

        Raises:
            UserError: a file cannot be written.
        """
        ...


def csv_line(cells: Sequence[str]) -> str:
    """A row of CSV without its line end."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()
