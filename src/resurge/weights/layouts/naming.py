"""From the names of other packages to this project's, and back. A layout is one file here and one line below."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TypeVar

from resurge.arch import blocks, transforms
from resurge.arch.deformable import Deform
from resurge.arch.spec import Spec
from resurge.errors import UserError, require_one_of
from resurge.plugins import Table, instance_of
from resurge.weights.layouts import cifar, official, timm, torchvision
from resurge.weights.layouts.tables import PLAIN, Layout, Pairs

Value = TypeVar("Value")  # a tensor, or whatever else has its name

OWN = ("stem.", "stages.", "head.")  # how this project's names begin, after "backbone."
MAX_NESTING = 6  # modules around a network that a training script has
_AVERAGES = re.compile(r"ema|averaged|teacher")
_FOLLOWERS = re.compile(r"student|momentum|target|encoder_k|key")


_OWN = (torchvision.LAYOUT, timm.LAYOUT, official.LAYOUT, cifar.LAYOUT)
_LAYOUTS: Mapping[str, Layout] = Table("layout", {layout.name: layout for layout in _OWN}, instance_of(Layout))
LAYOUTS: tuple[str, ...] = ("resurge", *_LAYOUTS)


def module_names(spec: Spec, layout: str) -> dict[str, str]:
    """Names of the modules that hold weights, theirs -> ours, for a whole classification network.

    Raises:
        UserError: there is no such layout, or it has no names for a choice of the spec.
    """
    return dict(_pairs(spec, _layout(layout)))


def to_resurge(state_dict: Mapping[str, Value], spec: Spec, layout: str) -> dict[str, Value]:
    """The same tensors under this project's names, those of `ClassificationModel`.

    Names the layout does not have are kept as they are: whoever loads the result sees them as unexpected. Those that it
    ignores are left out.

    Raises:
        UserError: as `module_names`.
    """
    if layout == "resurge":
        return dict(state_dict)
    table, ignored = module_names(spec, layout), _layout(layout).ignored
    return {_renamed(key, table): value for key, value in state_dict.items() if not key.startswith(ignored)}


def from_resurge(state_dict: Mapping[str, Value], spec: Spec, layout: str) -> dict[str, Value]:
    """The tensors of a `ClassificationModel`, or of a bare `Backbone`, under another package's names.

    Raises:
        UserError: as `module_names`; or a tensor is not of such a network.
    """
    if layout == "resurge":
        return dict(state_dict)
    table = {ours: theirs for theirs, ours in module_names(spec, layout).items()}
    if not any(key.startswith("backbone.") for key in state_dict):
        table = {ours.removeprefix("backbone."): theirs for ours, theirs in table.items()}
    foreign = [key for key in state_dict if key.rpartition(".")[0] not in table]
    if foreign:
        raise UserError(
            f"the {layout} layout has no name for {foreign[0]!r} and {len(foreign) - 1} more: it names classification "
            "networks and backbones of unchanged structure. Export with layout 'resurge'."
        )
    return {_renamed(key, table): value for key, value in state_dict.items()}


def detect_layout(state_dict: Iterable[str], spec: Spec) -> str:
    """The layout that knows the most names of a state dict for a network of this spec.

    Where several share their names (a plain ResNet is the same in torchvision and timm), the first of `LAYOUTS`.

    Raises:
        UserError: none knows a single name.
    """
    keys = list(state_dict)
    known = _Known(spec).counts(keys)
    best = max(known, key=lambda name: known[name])  # the first of the largest
    if not known[best]:
        shown = ", ".join(keys[:3]) or "nothing"
        raise UserError(
            f"expected weights of a network of this family in one of the layouts {', '.join(LAYOUTS)}; the names "
            f"found ({shown}, ...) are of none of them. Rename them, or pass the file of one of those packages."
        )
    return best


def find_part(state_dict: Iterable[str], spec: Spec) -> str:
    """What the names begin with of the part of a state dict that is a network of this spec: "module.encoder_q.", or ""
    where no part has more of it than the whole. Of several copies an average (`ema`, `teacher`) is preferred, and one
    that follows another (`momentum`, `target`, `encoder_k`, `student`) comes last.
    """
    parts: dict[str, list[str]] = {}
    for key in state_dict:
        for dot in [0, *(at + 1 for at, letter in enumerate(key) if letter == ".")][:MAX_NESTING]:
            parts.setdefault(key[:dot], []).append(key[dot:])
    known = _Known(spec)
    counts = {part: max(known.counts(names).values()) for part, names in parts.items()}

    def rank(part: str) -> tuple[int, bool, bool, int]:
        return counts[part], bool(_AVERAGES.search(part)), not _FOLLOWERS.search(part), -len(part)

    return max(counts, key=rank, default="")


class _Known:
    """How many names are of a network of this spec, by layout."""

    def __init__(self, spec: Spec) -> None:
        self._tables: dict[str, set[str]] = {}
        for name, layout in _LAYOUTS.items():
            with suppress(UserError):
                self._tables[name] = {theirs for theirs, _ in _pairs(spec, layout)}

    def counts(self, keys: Iterable[str]) -> dict[str, int]:
        modules = [key.rpartition(".")[0] for key in keys]
        own = sum(module.removeprefix("backbone.").startswith(OWN) for module in modules)
        return {"resurge": own} | {
            name: sum(module in table for module in modules) for name, table in self._tables.items()
        }


def _layout(name: str) -> Layout:
    require_one_of("layout", name, LAYOUTS)
    return _LAYOUTS[name]


def _renamed(key: str, table: Mapping[str, str]) -> str:
    module, _, tensor = key.rpartition(".")
    return f"{table[module]}.{tensor}" if module in table else key


def _of(tables: Mapping[type, Pairs], choice: object, axis: str, layout: Layout) -> Pairs:
    if type(choice) not in tables:
        raise UserError(
            f"the {layout.name} layout has no names for {axis}={type(choice).__name__}; "
            f"it has them for {', '.join(known.__name__ for known in tables)}. Use layout 'resurge'."
        )
    return tables[type(choice)]


def _pairs(spec: Spec, layout: Layout) -> Iterator[tuple[str, str]]:
    """(theirs, ours) of every module with weights; some that a block of this spec does not have are harmless."""
    for ours, theirs in _of(layout.stems, spec.stem, "stem", layout):
        yield layout.prefix + theirs, f"backbone.stem.{ours}"
    yield layout.head, "head.fc"

    transform, place = spec.transform, "transform."
    while isinstance(transform, transforms.AvgDown | Deform):
        # a pool has no weights; deformable layers stand where the plain ones did, and only their offsets have no name
        place += "inner." if isinstance(transform, transforms.AvgDown) else ""
        transform = transform.inner
    if isinstance(transform, transforms.Res2) and isinstance(spec.block, blocks.Basic):
        raise UserError(
            f"the {layout.name} layout has no names for transform=Res2 in a basic block. Use layout 'resurge'."
        )
    spatial = _of(layout.transforms, transform, "transform", layout)
    around = layout.around.get(type(transform), PLAIN)
    first = 1 if isinstance(spec.block, blocks.Basic) else 2
    pieces = (
        *((f"reduce.{ours}", theirs.replace("{n}", "1")) for ours, theirs in around if first == 2),
        *((place + ours, theirs.replace("{n}", str(first))) for ours, theirs in spatial),
        *((f"expand.{ours}", theirs.replace("{n}", str(first + 1))) for ours, theirs in around),
        *((f"gate.{ours}", theirs) for ours, theirs in _of(layout.gates, spec.gate, "gate", layout)),
        *((f"shortcut.{ours}", theirs) for ours, theirs in _of(layout.shortcuts, spec.shortcut, "shortcut", layout)),
    )
    counts = {transforms.Res2: "scale", transforms.SelectiveKernel: "branches"}
    many = int(getattr(transform, counts[type(transform)])) if type(transform) in counts else 1
    for stage, depth in enumerate(spec.depths):
        for block in range(depth):
            for ours, theirs in pieces:
                for i in range(many if "{i}" in ours else 1):
                    index = str(i)
                    yield (
                        f"{layout.prefix}layer{stage + 1}.{block}.{theirs.replace('{i}', index)}",
                        f"backbone.stages.{stage}.{block}.{ours.replace('{i}', index)}",
                    )
