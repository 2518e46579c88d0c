"""`model.json`, which a run and an export begin with. Imports no torch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from resurge.errors import UserError

FORMAT = 1
JSON_FILE = "model.json"


LONGEST_PATH = 256
"""What is longer is the text of a spec; asked for such a file, the system itself would complain."""


def folder_of(word: str) -> Path | None:
    """The folder of a run or an export that a word names, or None when it is the name or the text of a network.

    A path of several parts to a folder is taken for one, so that what is missing in it is told.
    """
    place = Path(word)
    if len(word) < LONGEST_PATH and ((place / JSON_FILE).is_file() or (len(place.parts) > 1 and place.is_dir())):
        return place
    return None


def read_model_json(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the `model.json` of a run directory or an export.

    Raises:
        UserError: it is missing, damaged, or written by a newer version.
    """
    path = Path(directory) / JSON_FILE
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"expected a run directory with {JSON_FILE}, but {path} does not exist.") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged or was cut short ({error}). Train or export it again.") from error
    if not isinstance(described, dict) or not isinstance(described.get("spec"), str):
        raise UserError(f"{path} does not describe a model: it must be an object with a 'spec'.")
    if described.get("format") != FORMAT:
        raise UserError(
            f"{path} is of format {described.get('format')!r}; this version of resurge reads {FORMAT}. Update resurge."
        )
    return described
