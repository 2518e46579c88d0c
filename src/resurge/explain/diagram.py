"""Diagrams of a network: its blocks stage by stage, and the whole of it, as SVG or PNG.

Nothing is computed: modules are built and run on torch's meta device, which knows shapes only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from resurge.arch.backbone import Backbone
from resurge.arch.blocks import Residual
from resurge.arch.deformable import Deform
from resurge.arch.spec import Spec
from resurge.arch.zoo import canonical_name, get_spec
from resurge.errors import UserError
from resurge.explain.layout import GAP, Picture, box, column, residual, wire
from resurge.explain.parts import is_known, picture, unknown_box
from resurge.explain.scene import GREY, Scene, Shape, Text, text_width

MARGIN = 18.0
HEADING = 44.0
BETWEEN = 48.0

Shapes = dict[nn.Module, tuple[int, ...]]
"""The shape (C, H, W) that leaves each module."""


def block_scene(
    model: str | Spec,
    stage: int = 1,
    *,
    size: tuple[int, int] = (224, 224),
    in_channels: int = 3,
    output_stride: int = 32,
) -> Scene:
    """The blocks of one stage (the first is 1): its entry block, and beside it the later ones if they differ.

    Args:
        model: a spec, its text, or a name.
        size: height and width of the image, for the shapes in the drawing.

    Raises:
        UserError: there is no such model or stage.
    """
    spec = get_spec(model)
    if not 1 <= stage <= len(spec.depths):
        raise UserError(f"{_name(spec)} has stages 1 to {len(spec.depths)}; there is no stage {stage}.")
    count = spec.depths[stage - 1]
    # Later stages do not matter here, and the later blocks of a stage are alike.
    short = spec.but(depths=(*(1 for _ in range(stage - 1)), min(count, 2)), planes=spec.planes[:stage])
    backbone, shapes = _traced(short, size, in_channels, output_stride)
    before = backbone.stages[stage - 2] if stage > 1 else backbone.stem
    panels = []
    for number, block in enumerate(backbone.stages[stage - 1].children(), 1):
        numbers = f"blocks 2 to {count}" if number == 2 < count else f"block {number}"
        panels.append((f"stage {stage}, {numbers} of {count}", _block_picture(block, shapes[before], shapes, spec)))
        before = block
    return _side_by_side(f"{_name(spec)}: blocks of stage {stage}", panels)


def network_scene(
    model: str | Spec,
    *,
    size: tuple[int, int] = (224, 224),
    in_channels: int = 3,
    num_classes: int | None = 1000,
    output_stride: int = 32,
) -> Scene:
    """The whole network from image to classes, a box a stage, with the shapes between them.

    Raises:
        UserError: there is no such model.
    """
    spec = get_spec(model)
    backbone, shapes = _traced(spec, size, in_channels, output_stride)
    # The stem's layers one by one when it is a chain of known layers, else one box.
    stem = [part for child in backbone.stem.children() if (part := picture(child)) is not None]
    parts = [box("image", (), "data", 150), *(stem or [unknown_box(backbone.stem)])]
    labels = [_shape((in_channels, *size)), *(None for _ in parts[2:]), _shape(shapes[backbone.stem])]
    for number, stage in enumerate(backbone.stages, 1):
        parts.append(_stage_box(number, stage, spec))
        labels.append(_shape(shapes[stage]))
    if num_classes is not None:
        channels = backbone.channels[-1]
        parts.append(box("mean over H × W", (), "pool", 150))
        parts.append(box("linear", [f"{channels} → {num_classes}"], "conv", 150))
        labels.append(str(channels))
    return _side_by_side(_name(spec), [(_name(spec), column(parts, labels))])


def scenes(
    model: str | Spec,
    size: tuple[int, int] = (224, 224),
    in_channels: int = 3,
    num_classes: int | None = 1000,
    output_stride: int = 32,
) -> Iterator[Scene]:
    """The whole network, then the blocks of each of its stages.

    Raises:
        UserError: there is no such model.
    """
    spec = get_spec(model)
    yield network_scene(spec, size=size, in_channels=in_channels, num_classes=num_classes, output_stride=output_stride)
    for stage in range(1, len(spec.depths) + 1):
        yield block_scene(spec, stage, size=size, in_channels=in_channels, output_stride=output_stride)


def draw(model: str | Spec, path: str | Path, *, stage: int | None = None, size: tuple[int, int] = (224, 224)) -> Path:
    """Write the diagram of the network, or of the blocks of one stage, as SVG or PNG by the suffix of `path`.

    Raises:
        UserError: no such model or stage, another suffix, or the file cannot be written.
    """
    scene = network_scene(model, size=size) if stage is None else block_scene(model, stage, size=size)
    return scene.save(path)


def _name(spec: Spec) -> str:
    try:
        return canonical_name(spec) or str(spec)
    except UserError:
        # A choice that has no word yet has no text either.
        return "unnamed network"


def _traced(spec: Spec, size: tuple[int, int], in_channels: int, output_stride: int) -> tuple[Backbone, Shapes]:
    """A backbone on the meta device, and the shapes in it."""
    with torch.device("meta"):
        backbone = Backbone(spec, in_channels, output_stride).eval()
        image = torch.empty(1, in_channels, *size)
    shapes: Shapes = {}

    def note(module: nn.Module, args: object, output: Tensor) -> None:
        shapes[module] = tuple(output.shape[1:])

    for module in backbone.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            # It keeps the shape, and torch's meta kernel for it is most of the time otherwise.
            vars(module)["forward"] = _unchanged
        if module is not backbone:
            module.register_forward_hook(note)
    with torch.no_grad():
        backbone(image)
    return backbone, shapes


def _unchanged(x: Tensor) -> Tensor:
    return x


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _block_picture(block: nn.Module, before: Sequence[int], shapes: Shapes, spec: Spec) -> Picture:
    source, result = box("x", [_shape(before)], "data", 110), box("y", [_shape(shapes[block])], "data", 110)
    if not isinstance(block, Residual):
        return column([source, unknown_box(block, spec.block), result])

    def part(name: str) -> Picture | None:
        module = getattr(block, name)
        return picture(module) if is_known(module) else unknown_box(module, getattr(spec, name, None))

    names = ("reduce", "transform", "expand", "gate", "drop_path")
    trunk = [(drawn, _shape(shapes[getattr(block, name)])) for name in names if (drawn := part(name)) is not None]
    parts, labels = zip(*trunk, strict=True)
    tail = column([part("act") or wire(), result])
    return column([source, residual(column(parts, labels[:-1]), part("shortcut"), tail)])


def _stage_box(number: int, stage: nn.Module, spec: Spec) -> Picture:
    widths = f"planes {spec.planes[number - 1]}, width {spec.width(number - 1)}"
    if spec.groups > 1:
        widths += f", {spec.groups} groups"
    settings = _describe(spec.transform, number)
    if type(spec.gate).__name__ != "NoGate":
        settings += ", " + _describe(spec.gate, number)
    parameters = sum(p.numel() for p in stage.parameters())
    title = f"stage {number}: {spec.depths[number - 1]} × {type(spec.block).__name__.lower()}"
    return box(title, [settings, widths, f"{parameters / 1e6:.2f} M parameters"], "plain", 210)


def _describe(choice: object, stage: int) -> str:
    """`AvgDown(SplitAttention(radix=2))` as "AvgDown of SplitAttention"."""
    inner = getattr(choice, "inner", None)
    if isinstance(choice, Deform) and stage < choice.first_stage:
        return _describe(inner, stage)
    return type(choice).__name__ + (f" of {_describe(inner, stage)}" if inner is not None else "")


def _side_by_side(title: str, panels: Sequence[tuple[str, Picture]]) -> Scene:
    shapes: list[Shape] = []
    x, top = MARGIN, MARGIN + HEADING - GAP
    for heading, drawn in panels:
        width = max(drawn.width, text_width(heading, 14, bold=True))
        shapes.append(Text(x + width / 2, MARGIN + 12, heading, 14, GREY, bold=True))
        shapes += drawn.at(x + (width - drawn.width) / 2, top)
        x += width + BETWEEN
    return Scene(title, x - BETWEEN + MARGIN, top + max(drawn.height for _, drawn in panels) + MARGIN, shapes)
