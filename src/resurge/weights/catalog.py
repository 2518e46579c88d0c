"""What is published about every named model: size, cost, score, and where trained weights are. Imports no torch.

The facts lie in two tables beside this file: `catalog.csv`, one row per model, and `sources.csv`, one row per file of
weights. Multiply-adds count convolutions and linear layers, one operation each, on one image of `cost_size` pixels.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import TypeVar

from resurge.errors import UserError, suggest
from resurge.weights.download import Source


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One named model.

    Attributes:
        name: the name in this project (the paper's).
        alias: timm's name where it differs, else empty.
        classes: classes that `parameters` counts: 1000, or 10 for the CIFAR networks.
        parameters: number of learned parameters.
        gmacs: multiply-adds in billions at `cost_size` x `cost_size`.
        top1, top1_source, top1_size: published accuracy in per cent, who published it, and the crop's side.
        sources: files of trained weights, the preferred one first.
    """

    name: str
    alias: str
    classes: int
    parameters: int
    gmacs: float
    cost_size: int
    top1: float | None
    top1_source: str
    top1_size: int | None
    sources: tuple[Source, ...]


T = TypeVar("T", "Entry", Source)
READ: dict[object, Callable[[str], object]] = {
    "str": str,
    "int": int,
    "float": float,
    "int | None": lambda text: int(text) if text else None,
    "float | None": lambda text: float(text) if text else None,
    "tuple[float, ...]": lambda text: tuple(map(float, text.split())),
}
"""How a cell is read, by the annotation of the field."""


def _rows(file: str) -> Iterator[dict[str, str]]:
    text = resources.files("resurge.weights").joinpath(file).read_text(encoding="utf-8")
    yield from csv.DictReader(text.splitlines())


def _made(kind: type[T], row: dict[str, str], **more: object) -> T:
    cells = {field.name: READ[field.type](row[field.name]) for field in fields(kind) if field.name in row}
    return kind(**cells, **more)  # type: ignore[arg-type]  # read by the annotations


@functools.cache
def entries() -> dict[str, Entry]:
    """Every named model by name, in the order of the table."""
    sources: dict[str, list[Source]] = {}
    for row in _rows("sources.csv"):
        sources.setdefault(row["model"], []).append(_made(Source, row))
    return {row["name"]: _made(Entry, row, sources=tuple(sources.get(row["name"], ()))) for row in _rows("catalog.csv")}


def entry(name: str) -> Entry:
    """The entry of a model's name, or of timm's name for it; raises UserError if no model has that name."""
    table = entries()
    for found in table.values():
        if name in (found.name, found.alias):
            return found
    known = [*table, *(e.alias for e in table.values() if e.alias)]
    raise UserError(f"expected the name of a model, got {name!r}.{suggest(name, known)} `resurge models` lists them.")


def pretrained_source(name: str) -> Source:
    """The preferred file of trained weights of a model.

    Raises:
        UserError: no such model, or no weights of it are known.
    """
    found = entry(name)
    if not found.sources:
        having = [e.name for e in entries().values() if e.sources]
        raise UserError(
            f"no trained weights of {found.name} are published that this project knows of; "
            f"pass --weights FILE, or take a model that has some.{suggest(found.name, having)}"
        )
    return found.sources[0]


def names_with_parameters(parameters: int, classes: int) -> list[str]:
    """Names of the models of exactly this many parameters, counted with a classifier of `classes` classes."""
    return [e.name for e in entries().values() if e.parameters == parameters and e.classes == classes]


def published_source(model: str, weights: str) -> Source | None:
    """The entry of published weights, by the name of their file; otherwise that of the model's preferred ones.

    Args:
        model: a name or the text of a spec.

    Raises:
        UserError: there is no such model.
    """
    from resurge.arch.zoo import canonical_name, get_spec

    name = canonical_name(get_spec(model))
    sources = entries()[name].sources if name in entries() else ()
    file = Path(weights).name
    return next((s for s in sources if file in (s.file, s.location)), sources[0] if sources else None)
