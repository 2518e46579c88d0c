"""The named models of `zoo.yaml`, and the reader of every text that names a network."""

from __future__ import annotations

import fnmatch
from pathlib import Path

import yaml

from resurge.arch.spec import NAMED, Spec
from resurge.arch.text import read_line
from resurge.errors import UserError, suggest

_TABLES: dict[str, dict[str, str]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
MODELS = NAMED  # filled below, in the order of the table
ALIASES = _TABLES["aliases"]
"""timm's names, where they differ."""


def list_models(pattern: str = "*") -> list[str]:
    """The names that match a shell pattern, in the order of the table."""
    return [name for name in MODELS if fnmatch.fnmatchcase(name, pattern)]


def get_spec(model: str | Spec) -> Spec:
    """The spec of a name, an alias, a line of text (a named model with changes, or every field), or a spec itself.

    Raises:
        UserError: a name, field, word or value is unknown; the nearest real one is suggested.
    """
    if isinstance(model, Spec):
        return model
    name, changes = read_line(model)
    if name is not None:
        name = ALIASES.get(name, name)
        if name not in MODELS:
            hint = suggest(name, [*MODELS, *ALIASES]) or " `resurge models` lists all of them."
            raise UserError(f"there is no model named {name!r}.{hint}")
        return MODELS[name].but(**changes) if changes else MODELS[name]
    if "depths" not in changes:
        raise UserError(
            f"expected a model name or at least depths=(..), got {model!r}. `resurge models` lists the names."
        )
    return Spec(**changes)  # type: ignore[arg-type]  # Spec checks every value


def canonical_name(spec: Spec) -> str | None:
    """The name a spec has in the table, or None."""
    return next((name for name, named in MODELS.items() if named == spec), None)


for _name, _text in _TABLES["models"].items():
    MODELS[_name] = get_spec(_text)
