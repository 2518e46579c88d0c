"""The export folder: what `resurge export` leaves, and what an engine starts from. Imports no torch.

model.onnx, model.xml and model.bin, or model.pt2    the network
model.json          task, classes, preprocessing, spec text, hashes, versions; `export` describes the network's file
certificate.json    how far it is from what it was made of, and how it was measured
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resurge.errors import UserError, suggest
from resurge.files import sha256
from resurge.infer.formats import FORMATS, PRECISIONS
from resurge.run_files import JSON_FILE, read_model_json

CERTIFICATE = "certificate.json"


@dataclass(frozen=True)
class Export:
    """An export folder whose files are what they were when it was written. `meta` is the content of model.json."""

    folder: Path
    meta: Mapping[str, Any]

    @property
    def format(self) -> str:
        return str(self.meta["export"]["format"])

    @property
    def precision(self) -> str:
        return str(self.meta["export"]["precision"])

    @property
    def file(self) -> Path:
        """The file to open."""
        return self.folder / FORMATS[self.format].file


def is_export(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder has the model.json of an export.

    Raises:
        UserError: it has a model.json that is damaged.
    """
    path = Path(folder) / JSON_FILE
    return path.is_file() and "export" in read_model_json(folder)


def own_files(folder: Path) -> set[str]:
    """The names of the files in a folder that an export wrote; empty where it is no export."""
    if not is_export(folder):
        return set()
    files = read_model_json(folder)["export"].get("files")
    return {JSON_FILE, CERTIFICATE, *(files if isinstance(files, dict) else ())}


def require_free(target: Path, overwrite: bool) -> None:
    """Raises UserError when `target` is taken, unless by an export that may be replaced."""
    if not target.exists():
        return
    if not target.is_dir():
        raise UserError(f"{target} is a file. Name a folder that is not there yet with --out.")
    if any(target.iterdir()) and not (overwrite and is_export(target)):
        what = "an export" if is_export(target) else "a folder with other files in it"
        hint = "Pass --overwrite to replace it" if what == "an export" else "Name another one"
        raise UserError(f"{target} is there already, {what}. {hint}.")


def read_export(folder: str | os.PathLike[str]) -> Export:
    """Read an export folder and check its files against their hashes.

    Raises:
        UserError: it is no export, or one of its files is missing, damaged or another than the one that was exported.
    """
    root = Path(folder)
    meta = read_model_json(root)
    about = meta.get("export")
    path = root / JSON_FILE
    if not isinstance(about, dict):
        raise UserError(f"{path} is of a run, not of an export. Make one with: resurge export {root} --out FOLDER")
    format, precision = about.get("format"), about.get("precision")
    if format not in FORMATS or precision not in PRECISIONS:
        raise UserError(
            f"{path} is of the format {format!r} and the precision {precision!r}; this version of resurge reads "
            f"{', '.join(FORMATS)} in {', '.join(PRECISIONS)}.{suggest(str(format), FORMATS)}"
        )
    fields = {"task": str, "classes": list, "preprocessing": dict}
    wrong = [name for name, kind in fields.items() if not isinstance(meta.get(name), kind)]
    if wrong or not isinstance(about.get("files"), dict):
        raise UserError(f"{path} is damaged: {(wrong or ['export.files'])[0]} is not what it should be. Export again.")
    for name in FORMATS[str(format)].files:
        _check_file(root / name, about["files"].get(name))
    return Export(root, meta)


def described(path: Path) -> dict[str, int | str]:
    """Size and hash of a file, as model.json states them."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def _check_file(path: Path, stated: object) -> None:
    if not isinstance(stated, dict) or not isinstance(stated.get("sha256"), str):
        raise UserError(f"{path.parent / JSON_FILE} is damaged: it has no hash of {path.name}. Export again.")
    try:
        size = path.stat().st_size
        if size != stated.get("bytes"):
            raise UserError(
                f"{path} has {size:,} bytes, but {stated.get('bytes'):,} were exported: it was cut short or changed. "
                "Copy it again or export again."
            )
        if sha256(path) != stated["sha256"]:
            raise UserError(
                f"{path} is not the file that was exported: its SHA-256 is another. Copy it again or export again."
            )
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}. Copy it again or export again.") from error
