"""What is published about every named model: size, cost, score, and where trained weights are. Imports no torch.

The facts lie in two tables beside this file: `catalog.csv`, one row a model, and `sources.csv`, one row a file of
weights. Multiply-adds count convolutions and linear layers, one operation each, on one image of `cost_size` pixels.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from resurge.errors import UserError, suggest
from resurge.weights.download import fetch
from resurge.weights.sources import Source

__all__ = [
    "Entry",
    "Source",
    "entries",
    "entry",
    "fetch",
    "names_with_parameters",
    "pretrained_source",
    "published_source",
]


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


def _rows(file: str) -> Iterator[dict[str, str]]:
    text = resources.files("resurge.weights").joinpath(file).read_text(encoding="utf-8")
    yield from csv.DictReader(text.splitlines())


def _triple(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split())


@functools.cache
def entries() -> dict[str, Entry]:
    """Every named model by name, in the order of the table."""
    sources: dict[str, list[Source]] = {}
    for row in _rows("sources.csv"):
        sources.setdefault(row["model"], []).append(
            Source(
                kind=row["kind"],
                location=row["location"],
                file=row["file"],
                sha256=row["sha256"],
                label=row["label"],
                licence=row["licence"],
                layout=row["layout"],
                top1=float(row["top1"]) if row["top1"] else None,
                size=int(row["size"]),
                crop_pct=float(row["crop_pct"]),
                interpolation=row["interpolation"],
                mean=_triple(row["mean"]),
                std=_triple(row["std"]),
            )
        )
    return {
        row["name"]: Entry(
            name=row["name"],
            alias=row["alias"],
            classes=int(row["classes"]),
            parameters=int(row["parameters"]),
            gmacs=float(row["gmacs"]),
            cost_size=int(row["cost_size"]),
            top1=float(row["top1"]) if row["top1"] else None,
            top1_source=row["top1_source"],
            top1_size=int(row["top1_size"]) if row["top1_size"] else None,
            sources=tuple(sources.get(row["name"], ())),
        )
        for row in _rows("catalog.csv")
    }


def entry(name: str) -> Entry:
    """The entry of a model's name, or of timm's name for it.

    Raises:
        UserError: no model has that name.
    """
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
