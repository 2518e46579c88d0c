"""The names of classes, as the class files of annotation tools have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from resurge.data.paths import read_file
from resurge.errors import UserError


def require_distinct(names: Sequence[str], file: object) -> None:
    """Raises UserError when a name is there twice; `file` says where they come from."""
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise UserError(
            f"{file} has {', '.join(map(repr, twice[:3]))} more than once among its {len(names)} class names. Expected "
            "different ones, in the order of their indices; --rename old=new joins two classes."
        )


def yaml_names(file: Path) -> tuple[str, ...]:
    """The `names` of a YOLO description, as they are written: `no`, `010` and `1e3` are names too. Raises UserError when
    they are no list, have gaps or a name twice, or are not as many as `nc` says."""
    document = yaml.load(read_file(file).decode("utf-8-sig"), Loader=yaml.BaseLoader)
    names, stated = document["names"], document.get("nc")
    if isinstance(names, dict):
        if sorted(names) != sorted(map(str, range(len(names)))):
            raise UserError(f"{file}: names must number the classes 0, 1, 2, … without gaps; it has {list(names)[:8]}.")
        names = [names[str(index)] for index in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{file}: names must be a list of class names, or numbers with a name each.")
    require_distinct(names, file)
    if stated and stated != str(len(names)):
        raise UserError(
            f"{file} says nc: {stated}, but names {len(names)} classes ({', '.join(names[:6])}). Correct one of the two."
        )
    return tuple(names)
