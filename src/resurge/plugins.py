"""Parts from other packages.

A package adds a part by an entry point of the group `resurge.plugins`. Its name is the kind of the part, a dot, and the
name by which users ask for it:

    [project.entry-points."resurge.plugins"]
    "gate.eca" = "resurge_eca:EfficientChannelAttention"

Names are read from the metadata of the installed packages; the code of a plugin is imported when its part is first
used. There is a kind for each `Table` of the project; docs/plugins.md lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pkgutil import resolve_name
from typing import Generic, TypeVar, cast

from resurge.errors import UserError, kind_and_line

GROUP = "resurge.plugins"

TABLES: dict[str, Table[object]] = {}
"""By kind, those whose modules have been imported."""

T = TypeVar("T")


class Table(Mapping[str, T], Generic[T]):
    """The parts of one kind by name: the project's own in their order, then those of plugins.

    Args:
        kind: how the names of the entry points begin.
        own: the project's own parts. A text "module:attribute" is imported when it is first used, so that listing
            names imports no torch.
        check: takes the name and the object of a plugin and gives the part. It raises UserError for an object that
            cannot be one, with the end of a sentence that begins with the name of the plugin.
    """

    def __init__(self, kind: str, own: Mapping[str, T | str], check: Callable[[str, object], T] | None = None) -> None:
        self.kind = kind
        self._own = own
        self._check = check or (lambda name, part: cast(T, part))
        self._loaded: dict[str, T] = {}
        TABLES[kind] = cast("Table[object]", self)

    def __getitem__(self, name: str) -> T:
        """The part of a name.

        Raises:
            KeyError: there is none.
            UserError: several packages add it, or the plugin cannot be imported or used.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from (name for name in installed().get(self.kind, {}) if name not in self._own)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in installed().get(self.kind, {})

    def clash(self, name: str) -> str | None:
        """What is wrong when several packages add a part of this name, or the project has its own, which stays."""
        givers = ["resurge"] * (name in self._own) + [package(p) for p in installed().get(self.kind, {}).get(name, ())]
        several = len(givers) > 1
        return (
            f"{' and '.join(givers)} all have {self.kind}.{name}. Uninstall all but one of them." if several else None
        )

    def _load(self, name: str) -> T:
        if name in self._own:
            own = self._own[name]
            return cast(T, resolve_name(own) if isinstance(own, str) else own)
        points = installed().get(self.kind, {})[name]
        if problem := self.clash(name):
            raise UserError(problem)
        about = f"the plugin {self.kind}.{name} of the package {package(points[0])}"
        try:
            part = points[0].load()
        except Exception as error:
            raise UserError(f"{about} cannot be imported: {kind_and_line(error)}. Mend or uninstall it.") from error
        try:
            return self._check(name, part)
        except UserError as error:
            raise UserError(f"{about} {error} Mend or uninstall it.") from error


def instance_of(kind: type[T]) -> Callable[[str, object], T]:
    """A check of `Table`: the object is of this class and, where objects of it have a name, has the part's."""

    def check(name: str, part: object) -> T:
        if isinstance(part, kind) and getattr(part, "name", name) == name:
            return part
        expected = f"{kind.__module__}.{kind.__qualname__}"
        raise UserError(f"is {part!r}; expected a {expected} with the name {name!r}.")

    return check


def package(point: EntryPoint) -> str:
    """The name and the version of the package of an entry point."""
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


@cache
def installed() -> Mapping[str, Mapping[str, Sequence[EntryPoint]]]:
    """The entry points by kind and name."""
    found: dict[str, dict[str, list[EntryPoint]]] = {}
    for point in entry_points(group=GROUP):
        kind, _, name = point.name.rpartition(".")
        found.setdefault(kind, {}).setdefault(name, []).append(point)
    return found
