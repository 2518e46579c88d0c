"""The names other packages give to the same tensors, as tables read in both directions.

A layout is names and nothing else: no tensor changes its shape or order on the way. In every table the left name is
this project's, relative to its piece, and the right one theirs, relative to the block. In the right names `{n}` is
the convolution's number in its block (the transform of a bottleneck is the second, that of a basic block the first);
`{i}`, in both, counts branches or scales.

Sources: torchvision `models/resnet.py`; timm `models/resnet.py`, `sknet.py`, `res2net.py`, `resnest.py`;
zhanghang1989/ResNeSt `resnest/torch/models/{resnet,splat}.py`; Res2Net/Res2Net-PretrainedModels `res2net.py`,
`res2net_v1b.py`, `res2next.py`; akamaster/pytorch_resnet_cifar10 `resnet.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from resurge.arch import blocks, gates, shortcuts, stems, transforms
from resurge.arch.deformable import Deform
from resurge.arch.spec import Spec
from resurge.errors import UserError, suggest

Pairs = tuple[tuple[str, str], ...]
Value = TypeVar("Value")  # a tensor, or whatever else stands under its name

OWN = ("stem.", "stages.", "head.")  # how this project's names begin, after "backbone."

ONE_CONV: Pairs = (("convs.0.conv", "conv1"), ("convs.0.norm", "bn1"))
THREE_CONVS: Pairs = (
    ("convs.0.conv", "conv1.0"),
    ("convs.0.norm", "conv1.1"),
    ("convs.1.conv", "conv1.3"),
    ("convs.1.norm", "conv1.4"),
    ("convs.2.conv", "conv1.6"),
    ("convs.2.norm", "bn1"),
)
PLAIN: Pairs = (("conv", "conv{n}"), ("norm", "bn{n}"))
NESTED: Pairs = (("conv", "conv{n}.conv"), ("norm", "conv{n}.bn"))
RES2: Pairs = (("convs.{i}.conv", "convs.{i}"), ("convs.{i}.norm", "bns.{i}"))
SELECTIVE: Pairs = (
    ("branches.{i}.conv", "conv{n}.paths.{i}.conv"),
    ("branches.{i}.norm", "conv{n}.paths.{i}.bn"),
    ("attention.fc1", "conv{n}.attn.fc_reduce"),
    ("attention.norm", "conv{n}.attn.bn"),
    ("attention.fc2", "conv{n}.attn.fc_select"),
)
SPLIT: Pairs = (
    ("split.conv", "conv{n}.conv"),
    ("split.norm", "conv{n}.bn0"),
    ("attention.fc1", "conv{n}.fc1"),
    ("attention.norm", "conv{n}.bn1"),
    ("attention.fc2", "conv{n}.fc2"),
)
SQUEEZE: Pairs = (("fc1", "se.fc1"), ("fc2", "se.fc2"))
DOWN: Pairs = (("conv", "downsample.0"), ("norm", "downsample.1"))
DOWN_AFTER_POOL: Pairs = (("conv", "downsample.1"), ("norm", "downsample.2"))


@dataclass(frozen=True)
class Layout:
    """The names of one package: a table for every choice it has names for.

    `around` overrides, for a transform, the names of the convolutions before and behind it.
    """

    name: str
    stems: Mapping[type, Pairs]
    transforms: Mapping[type, Pairs]
    shortcuts: Mapping[type, Pairs]
    gates: Mapping[type, Pairs] = field(default_factory=lambda: {gates.NoGate: ()})
    around: Mapping[type, Pairs] = field(default_factory=dict)
    head: str = "fc"


_IMAGENET_STEMS = {stems.Conv7x7: ONE_CONV, stems.Deep: THREE_CONVS}
_LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout(
            name="torchvision",
            stems={stems.Conv7x7: ONE_CONV},
            transforms={transforms.Conv3x3: PLAIN},
            shortcuts={shortcuts.Projection: DOWN},
        ),
        Layout(
            name="timm",
            stems=_IMAGENET_STEMS,
            transforms={
                transforms.Conv3x3: PLAIN,
                transforms.Res2: RES2,
                transforms.SelectiveKernel: SELECTIVE,
                transforms.SplitAttention: SPLIT,
            },
            shortcuts={shortcuts.Projection: DOWN, shortcuts.AvgProjection: DOWN_AFTER_POOL},
            gates={gates.NoGate: (), gates.SqueezeExcite: SQUEEZE},
            around={transforms.SelectiveKernel: NESTED},
        ),
        Layout(
            name="official",
            stems=_IMAGENET_STEMS,
            transforms={transforms.Conv3x3: PLAIN, transforms.Res2: RES2, transforms.SplitAttention: SPLIT},
            shortcuts={shortcuts.Projection: DOWN, shortcuts.AvgProjection: DOWN_AFTER_POOL},
        ),
        Layout(
            name="cifar",
            stems={stems.Conv3x3: ONE_CONV},
            transforms={transforms.Conv3x3: PLAIN},
            shortcuts={shortcuts.ZeroPad: (), shortcuts.Projection: (("conv", "shortcut.0"), ("norm", "shortcut.1"))},
            head="linear",
        ),
    )
}
LAYOUTS: tuple[str, ...] = ("resurge", *_LAYOUTS)


def module_names(spec: Spec, layout: str) -> dict[str, str]:
    """Names of the modules that hold weights, theirs -> ours, for a whole classification network.

    Raises:
        UserError: there is no such layout, or it has no names for a choice of the spec.
    """
    return dict(_pairs(spec, _layout(layout)))


def to_resurge(state_dict: Mapping[str, Value], spec: Spec, layout: str) -> dict[str, Value]:
    """The same tensors under this project's names, those of `ClassificationModel`.

    Names the layout does not have are kept as they are: whoever loads the result sees them as unexpected.

    Raises:
        UserError: as `module_names`.
    """
    if layout == "resurge":
        return dict(state_dict)
    table = module_names(spec, layout)
    return {_renamed(key, table): value for key, value in state_dict.items()}


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
    modules = [key.rpartition(".")[0] for key in keys]
    known = {"resurge": sum(module.removeprefix("backbone.").startswith(OWN) for module in modules)}
    for name, layout in _LAYOUTS.items():
        try:
            table = dict(_pairs(spec, layout))
        except UserError:
            continue
        known[name] = sum(module in table for module in modules)
    best = max(known, key=lambda name: known[name])  # the first of the largest
    if not known[best]:
        shown = ", ".join(keys[:3]) or "nothing"
        raise UserError(
            f"expected weights of a network of this family in one of the layouts {', '.join(LAYOUTS)}; the names "
            f"found ({shown}, ...) are of none of them. Rename them, or pass the file of one of those packages."
        )
    return best


def _layout(name: str) -> Layout:
    if name not in _LAYOUTS:
        raise UserError(f"expected a layout of {', '.join(LAYOUTS)}; got {name!r}.{suggest(name, LAYOUTS)}")
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
        yield theirs, f"backbone.stem.{ours}"
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
                        f"layer{stage + 1}.{block}.{theirs.replace('{i}', index)}",
                        f"backbone.stages.{stage}.{block}.{ours.replace('{i}', index)}",
                    )
