"""`model.json`, which a run and an export begin with. Imports no torch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from resurge.errors import UserError

FORMAT = 1
JSON_FILE = "model.json"


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
