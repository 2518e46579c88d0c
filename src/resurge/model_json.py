"""Reading and writing `model.json`, which every run directory and every export has. Imports no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from resurge.errors import UserError
from resurge.files import Json, atomic_write_text, read_json

FORMAT = 1
JSON_FILE = "model.json"
MEND = "Train or export it again."
# Fields that are read later; they may be missing. `spec` and `format` may not.
KINDS = {"preprocessing": dict, "classes": list, "in_channels": int, "task": str, "head_settings": dict, "scores": dict}
LONGEST_PATH = 256  # longer is the text of a spec, and an error of the system when it is taken for a path


def folder_of(word: str) -> Path | None:
    """The folder of a run or an export that a word names, or None when it is the name or the text of a network.

    A path of several parts to a folder is taken for one, so that the message names what is missing in it.
    """
    place = Path(word)
    if len(word) < LONGEST_PATH and ((place / JSON_FILE).is_file() or (len(place.parts) > 1 and place.is_dir())):
        return place
    return None


def read_model_json(directory: str | os.PathLike[str]) -> Json:
    """Read the `model.json` of a run directory or an export.

    Raises:
        UserError: it is missing, damaged, or written by a newer version.
    """
    path = Path(directory) / JSON_FILE
    if not path.exists():
        raise UserError(f"expected a run directory with {JSON_FILE}, but {path} does not exist.")
    described = read_json(path, MEND)
    if not isinstance(described.get("spec"), str):
        raise UserError(f"{path} does not describe a model: it must be an object with a 'spec'.")
    if described.get("format") != FORMAT:
        raise UserError(
            f"{path} is of format {described.get('format')!r}; this version of resurge reads {FORMAT}. Update resurge."
        )
    for name, kind in KINDS.items():
        if name in described and not isinstance(described[name], kind):
            raise UserError(f"{path} is damaged: {name} is {described[name]!r}. {MEND}")
    return described


def write_model_json(directory: str | os.PathLike[str], content: Mapping[str, object]) -> None:
    """Write `model.json`, as a whole or not at all.

    Raises:
        UserError: the directory cannot be written, or the disk is full.
    """
    text = json.dumps({"format": FORMAT, **content}, indent=2, ensure_ascii=False) + "\n"
    atomic_write_text(Path(directory) / JSON_FILE, text)
