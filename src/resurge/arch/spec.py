"""A network of the family as a value, and the plan of its strides."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace

from resurge.arch.blocks import Bottleneck
from resurge.arch.contracts import AXES, Block, Gate, Shortcut, Site, Stem, Transform
from resurge.arch.gates import NoGate
from resurge.arch.shortcuts import Projection
from resurge.arch.stems import Conv7x7
from resurge.arch.text import format_value, plain_value
from resurge.arch.transforms import Conv3x3
from resurge.errors import UserError, require_one_of

# Far beyond any published network: bounds, so that a typing error raises instead of exhausting memory.
MAX_BLOCKS = 4096
MAX_CHANNELS = 2**15


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One choice per axis, and the numbers. Any choice combines with any other.

    Attributes:
        depths: blocks per stage.
        planes: a stage puts out `planes * block.expansion` channels.
        groups: cardinality K (arXiv:1611.05431); the width of a block is `planes * base_width / 64 * groups`.
        base_width: width of one group where planes is 64.
        stem, block, transform, gate, shortcut: the choices; see the module of each axis.
    """

    depths: tuple[int, ...]
    planes: tuple[int, ...] = (64, 128, 256, 512)
    groups: int = 1
    base_width: int = 64
    stem: Stem = Conv7x7()
    block: Block = Bottleneck()
    transform: Transform = Conv3x3()
    gate: Gate = NoGate()
    shortcut: Shortcut = Projection()

    def __post_init__(self) -> None:
        for name in ("depths", "planes"):
            value = getattr(self, name)
            if not isinstance(value, tuple) or not value or not all(type(n) is int and n > 0 for n in value):
                raise UserError(f"{name} must be a tuple of positive whole numbers, one per stage; got {value!r}.")
        if len(self.depths) != len(self.planes):
            raise UserError(
                f"depths and planes need one number per stage each; got {len(self.depths)} depths {self.depths} "
                f"and {len(self.planes)} planes {self.planes}."
            )
        if sum(self.depths) > MAX_BLOCKS:
            raise UserError(
                f"depths must not add up to more than {MAX_BLOCKS} blocks; they add up to {sum(self.depths)}."
            )
        for name in ("groups", "base_width"):
            number = getattr(self, name)
            if type(number) is not int or number < 1:
                raise UserError(f"{name} must be a positive whole number; got {number!r}.")
        for name, axis in AXES.items():
            choice = getattr(self, name)
            if isinstance(choice, type) or not isinstance(choice, axis):
                raise UserError(f"{name} must be a choice of that axis, such as one of resurge.arch; got {choice!r}.")
            _check_numbers(name, choice)

    def but(self, **changes: object) -> Spec:
        """The same network with these fields changed.

        Raises:
            UserError: a field does not exist or its value cannot be.
        """
        names = [field.name for field in fields(self)]
        for name in changes:
            require_one_of("spec field", name, names)
        return replace(self, **changes)  # type: ignore[arg-type]  # __post_init__ checks every value

    def width(self, stage: int) -> int:
        """Channels inside the blocks of a stage, all groups together (arXiv:1611.05431, table 1)."""
        return self.planes[stage] * self.base_width // 64 * self.groups

    def __str__(self) -> str:
        """One line that `resurge.arch.zoo.get_spec` reads back: the nearest named model and what differs from it."""
        values = {field.name: getattr(self, field.name) for field in fields(Spec)}

        changed = {name: [k for k, v in values.items() if v != getattr(spec, k)] for name, spec in NAMED.items()}
        name = min(changed, key=lambda name: len(changed[name]))
        return " ".join([name, *(f"{key}={format_value(key, values[key])}" for key in changed[name])])

    def to_json(self) -> dict[str, object]:
        """All fields as plain JSON values, independent of the table of named models."""
        return {field.name: plain_value(field.name, getattr(self, field.name)) for field in fields(self)}


NAMED: dict[str, Spec] = {}
"""The named models; `resurge.arch.zoo` fills it."""


def _check_numbers(axis: str, choice: object) -> None:
    """Every number of a choice, and of a choice inside it, is a count: of channels, branches, pieces."""
    for field in fields(choice) if is_dataclass(choice) else ():
        value = getattr(choice, field.name)
        if is_dataclass(value):
            _check_numbers(axis, value)
        elif type(value) is int and not 1 <= value <= MAX_CHANNELS:
            raise UserError(
                f"{axis}: {field.name} of {type(choice).__name__} must be a positive whole number, at most "
                f"{MAX_CHANNELS}; got {value}."
            )


def plan(spec: Spec, output_stride: int = 32) -> tuple[tuple[Site, ...], ...]:
    """One `Site` per block: the only place that knows strides and dilation.

    A stage that would take the network beyond `output_stride` trades its stride for dilation (arXiv:1706.05587,
    section 3.1). The strided layer of such a stage still sees the dilation of the stage before it.

    Raises:
        UserError: `output_stride` is not a power of two, or below the stride of the stem; or a layer would have no
            channels, or more than `MAX_CHANNELS`.
    """
    stem_stride = spec.stem.stride
    if type(output_stride) is not int or output_stride < stem_stride or output_stride & (output_stride - 1):
        raise UserError(
            f"output_stride must be a power of two of at least {stem_stride} for this stem, usually 32, 16 or 8; "
            f"got {output_stride!r}."
        )
    stages: list[tuple[Site, ...]] = []
    cin, reached, dilation = spec.stem.out_channels, stem_stride, 1
    for stage, (depth, planes) in enumerate(zip(spec.depths, spec.planes, strict=True)):
        if spec.width(stage) < 1:
            raise UserError(
                f"stage {stage + 1} has no channels: planes {planes} * base_width {spec.base_width} / 64 < 1."
            )
        cout = planes * spec.block.expansion
        if max(cin, cout, spec.width(stage)) > MAX_CHANNELS:
            raise UserError(
                f"stage {stage + 1} takes {cin} channels, is {spec.width(stage)} wide, puts out {cout}; no layer may "
                f"have more than {MAX_CHANNELS}. Choose smaller planes, base_width, groups or expansion."
            )
        reduces = stage > 0
        stride = 2 if reduces and reached < output_stride else 1
        place = Site(cin=cin, cout=cout, dilation=dilation, groups=spec.groups, stage=stage + 1)
        entry = replace(place, stride=stride, entry=True, reduces=reduces)
        reached, dilation = reached * stride, entry.dilation_after
        later = replace(place, cin=cout, dilation=dilation)
        stages.append((entry, *[later] * (depth - 1)))
        cin = cout
    return tuple(stages)
