"""torchvision's names for the tensors of its segmentation networks, as tables read in both directions.

Source: torchvision `models/segmentation/{fcn,deeplabv3,_utils}.py`. Left this project's name inside the head, right
theirs; `{i}` counts the branches of the atrous pyramid. The backbone's names are in `naming`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from resurge.arch.spec import Spec
from resurge.errors import UserError
from resurge.weights.layouts import naming
from resurge.weights.layouts.naming import Value
from resurge.weights.layouts.tables import Pairs

FCN: Pairs = (("conv.conv", "0"), ("conv.norm", "1"), ("predict", "4"))
DEEPLABV3: Pairs = (
    ("branches.{i}.conv", "0.convs.{i}.0"),
    ("branches.{i}.norm", "0.convs.{i}.1"),
    ("pooled.conv", "0.convs.{last}.1"),
    ("pooled.norm", "0.convs.{last}.2"),
    ("project.conv", "0.project.0"),
    ("project.norm", "0.project.1"),
    ("conv.conv", "1"),
    ("conv.norm", "2"),
    ("predict", "4"),
)
PAIRS: Mapping[str, Pairs] = {"fcn": FCN, "deeplabv3": DEEPLABV3}
# this project's child of the model, torchvision's, and the head that may stand there; None: whichever is found
PLACES = (("head", "classifier", None), ("auxiliary", "aux_classifier", "fcn"))

BRANCH = {"theirs": re.compile(r"classifier\.0\.convs\.(\d+)\."), "ours": re.compile(r"head\.branches\.(\d+)\.")}


def is_segmentation(names: Iterable[str]) -> bool:
    """Whether these are tensor names of one of torchvision's segmentation networks with an FCN or DeepLabV3 head.

    A bare `classifier.weight`, as a classifier may call its last layer, is none.
    """
    return any(name.startswith(("classifier.0.", "aux_classifier.0.")) for name in names)


def to_resurge(tensors: Mapping[str, Value], spec: Spec) -> dict[str, Value]:
    """torchvision's tensors under this project's names, those of `SegmentationModel`.

    Names that torchvision's networks of this kind do not have are kept as they are: whoever loads the result sees them
    as unexpected.

    Raises:
        UserError: torchvision has no names for a choice of the spec.
    """
    table = {theirs: ours for ours, theirs in _head_names(tensors, theirs=True)}
    prefix = "backbone."
    inside = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    result = {
        name if name.startswith(prefix) else prefix + name: value
        for name, value in naming.to_resurge(inside, spec, "torchvision").items()
    }
    return result | {_renamed(key, table): value for key, value in tensors.items() if not key.startswith(prefix)}


def from_resurge(tensors: Mapping[str, Value], spec: Spec) -> dict[str, Value]:
    """The tensors of a `SegmentationModel` under torchvision's names.

    Raises:
        UserError: torchvision has no such head (PSPNet), or no names for a choice of the spec.
    """
    table = dict(_head_names(tensors, theirs=False))
    prefix = "backbone."
    inside = {key: value for key, value in tensors.items() if key.startswith(prefix)}
    result = {prefix + key: value for key, value in naming.from_resurge(inside, spec, "torchvision").items()}
    for key, value in tensors.items():
        if key.startswith(prefix):
            continue
        if key.rpartition(".")[0] not in table:
            raise UserError(
                f"torchvision has no name for {key!r}: its segmentation networks are fcn and deeplabv3. Export with "
                "layout 'resurge'."
            )
        result[_renamed(key, table)] = value
    return result


def _head_names(names: Iterable[str], *, theirs: bool) -> Iterator[tuple[str, str]]:
    """(ours, theirs) of the modules of both heads; how many branches there are is read off the names."""
    found = (BRANCH["theirs" if theirs else "ours"].match(name) for name in names)
    branches = 1 + max((int(match[1]) for match in found if match), default=-1)
    if theirs and branches:
        branches -= 1  # torchvision counts the pooled branch as the last one
    for ours, other, head in PLACES:
        for left, right in PAIRS[head or ("deeplabv3" if branches else "fcn")]:
            for i in range(branches if "{i}" in left else 1):
                place = right.replace("{i}", str(i)).replace("{last}", str(branches))
                yield f"{ours}.{left.replace('{i}', str(i))}", f"{other}.{place}"


def _renamed(key: str, table: Mapping[str, str]) -> str:
    module, _, tensor = key.rpartition(".")
    return f"{table[module]}.{tensor}" if module in table else key
