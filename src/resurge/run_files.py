"""The files of a run directory as data, checked when they are read, and `model.json`, which an export has as well.
Imports no torch.

`resurge.runs` gives the network itself; what describes or reports a run needs only this.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from resurge.errors import UserError
from resurge.files import MOST_JSON, Json, atomic_write_text, read_json
from resurge.untrusted import read_bytes, read_text

FORMAT = 1
JSON_FILE = "model.json"
EVALUATION = "evaluation.json"
# Fields that are read later; they may be missing. `spec` and `format` may not.
FIELDS = {
    "preprocessing": dict,
    "classes": list,
    "in_channels": int,
    "task": str,
    "head_settings": dict,
    "scores": dict,
}
MOST_CHANNELS = 4096  # of an image; spectrometers have some hundreds
LONGEST_PATH = 256  # longer is the text of a spec, and an error of the system when it is taken for a path
MEND = "Restore it, or train or evaluate again."


def folder_of(word: str) -> Path | None:
    """The folder of a run, finished or not, or an export that a word names; None: the name or the text of a network.

    A path of several parts to a folder is taken for one, so that the message names what is missing in it.
    """
    place = Path(word)
    if len(word) >= LONGEST_PATH or not place.is_dir():
        return None
    ours = len(place.parts) > 1 or any((place / name).is_file() for name in (JSON_FILE, "recipe.yaml"))
    return place if ours else None


def read_model_json(directory: str | os.PathLike[str]) -> Json:
    """Read the `model.json` of a run directory or an export.

    Raises:
        UserError: it is missing, damaged, or written by a newer version.
    """
    path = Path(directory) / JSON_FILE
    if not path.exists():
        raise UserError(f"expected a run directory with {JSON_FILE}, but {path} does not exist.")
    described = read_json(path, "Train or export it again.")
    if not isinstance(described.get("spec"), str):
        raise UserError(f"{path} does not describe a model: it must be an object with a 'spec'.")
    if described.get("format") != FORMAT:
        raise UserError(
            f"{path} is of format {described.get('format')!r}; this version of resurge reads {FORMAT}. Update resurge."
        )
    for name, kind in FIELDS.items():
        value = described.get(name)
        few = name != "in_channels" or (isinstance(value, int) and 1 <= value <= MOST_CHANNELS)
        if name in described and not (isinstance(value, kind) and few):
            raise UserError(f"{path} is damaged: {name} is {value!r}. Train or export it again.")
    return described


def write_model_json(directory: str | os.PathLike[str], content: Mapping[str, object]) -> None:
    """Write `model.json`, as a whole or not at all.

    Raises:
        UserError: the directory cannot be written, or the disk is full.
    """
    text = json.dumps({"format": FORMAT, **content}, indent=2, ensure_ascii=False) + "\n"
    atomic_write_text(Path(directory) / JSON_FILE, text, mark='{\n  "format": ')


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """The contents of a run directory. Everything but `model` may be missing (None or empty)."""

    folder: Path
    model: Mapping[str, object]
    recipe: str | None
    metrics: tuple[Mapping[str, float], ...]
    evaluation: Mapping[str, object] | None
    cost: Mapping[str, object] | None

    @property
    def classes(self) -> list[str]:
        """The class names, in the order of the network's outputs; empty when the run names none."""
        return [str(name) for name in items(self.model, "classes", "model.json")]

    def class_name(self, label: object) -> str:
        """A class by name or by number, as text."""
        if isinstance(label, int) and not isinstance(label, bool):
            names = self.classes
            return names[label] if 0 <= label < len(names) else f"class {label}"
        return str(label)

    @property
    def columns(self) -> list[str]:
        """The names of the columns of metrics.csv, in their order."""
        return list(dict.fromkeys(name for row in self.metrics for name in row))

    def column(self, name: str) -> list[tuple[float, float]]:
        """(epoch, value) for every row of metrics.csv in which `name` is a finite number."""
        points = []
        for index, row in enumerate(self.metrics):
            value = row.get(name, math.nan)
            if math.isfinite(value):
                epoch = row.get("epoch", math.nan)
                points.append((epoch if math.isfinite(epoch) else float(index), value))
        return points

    def read(self, name: object) -> bytes | None:
        """The bytes of a file of the run, or None when there is none.

        A path that leads out of the run directory counts as missing: a report is passed on to others, and must not
        contain other files of the machine where it was written.
        """
        if not isinstance(name, str) or not name:
            return None
        root = self.folder.resolve()
        try:
            path = (root / name).resolve()
            return read_bytes(path) if path.is_relative_to(root) else None
        except (OSError, ValueError):
            return None


def read_run(run_dir: str | Path) -> RunFiles:
    """Read the files of a run directory.

    Raises:
        UserError: the folder does not exist, has no model.json (the training did not finish), or one of its files is
            cut short or has another content than expected.
    """
    folder = Path(run_dir)
    if not folder.is_dir():
        raise UserError(
            f"expected a run directory, and {folder} is not a folder. Give the folder that `resurge train` wrote."
        )
    if not (folder / "model.json").is_file():
        raise UserError(
            f"{folder} has no model.json: it is not a run directory, or its training did not finish. "
            f"Continue it with `resurge train --resume {folder}`."
        )
    return RunFiles(
        folder=folder,
        model=read_json(folder / "model.json", MEND),
        recipe=_read_text(folder / "recipe.yaml"),
        metrics=_read_metrics(folder / "metrics.csv"),
        evaluation=_read_optional(folder / EVALUATION),
        cost=_read_optional(folder / "explain" / "cost.json"),
    )


def items(mapping: Mapping[str, object] | None, key: str, where: str) -> list[object]:
    """The list at `key`, empty when absent.

    Args:
        where: the file, for the message.

    Raises:
        UserError: the value is not a list.
    """
    value = (mapping or {}).get(key)
    if value is None:
        return []
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise UserError(f"{where}: expected a list at {key!r}, found {type(value).__name__}. Write the file again.")
    return list(value)


def number(mapping: Mapping[str, object] | None, key: str) -> float:
    """The number at `key`, NaN when absent or not a number."""
    value = (mapping or {}).get(key)
    # text first: an integer of hundreds of digits is a number too, and float() alone refuses it
    return _number(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def section(mapping: Mapping[str, object] | None, key: str) -> Mapping[str, object]:
    """The object at `key`, empty when absent or something else."""
    value = (mapping or {}).get(key)
    return value if isinstance(value, Mapping) else {}


def _read_text(path: Path) -> str | None:
    if not path.is_file():
        return None
    try:
        return read_text(path, MOST_JSON, errors="replace")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}. Check its permissions.") from error


def _read_optional(path: Path) -> Mapping[str, object] | None:
    return read_json(path, MEND) if path.is_file() else None


def _read_metrics(path: Path) -> tuple[Mapping[str, float], ...]:
    """Rows of numbers; empty cells and text become NaN. A last row that was cut short keeps the cells it has."""
    text = _read_text(path)
    if not text:
        return ()
    try:
        rows = list(csv.DictReader(text.splitlines()))
    except csv.Error as error:
        raise UserError(f"{path} is not a CSV file ({error}). Remove it to write the report without curves.") from error
    return tuple({key: _number(cell) for key, cell in row.items() if isinstance(key, str)} for row in rows)


def _number(cell: object) -> float:
    try:
        return float(str(cell))
    except ValueError:
        return math.nan
