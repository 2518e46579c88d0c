"""Diagrams of a network: its blocks stage by stage, and the whole of it, as SVG or PNG.

Nothing is computed: modules are built and run on torch's meta device, which knows shapes only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from resurge.arch.backbone import Backbone
from resurge.arch.blocks import Residual
from resurge.arch.deformable import Deform
from resurge.arch.spec import Spec
from resurge.arch.zoo import canonical_name, get_spec
from resurge.errors import UserError
from resurge.explain.layout import GAP, Box, Column, Picture, Sum, Wire
from resurge.explain.parts import picture, unknown_box
from resurge.explain.scene import Scene, text_width
from resurge.explain.shapes import GREY

MARGIN = 18.0
HEADING = 44.0
BETWEEN = 48.0


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
        stage: which stage, from 1.
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
    backbone, inputs = _traced(short, size, in_channels, output_stride)
    blocks = _children(backbone.stages[stage - 1])
    panels = [(f"stage {stage}, block 1 of {count}", _block_picture(blocks[0], inputs[blocks[0]], spec))]
    if count > 1:
        numbers = f"block 2 of {count}" if count == 2 else f"blocks 2 to {count} of {count}"
        panels.append((f"stage {stage}, {numbers}", _block_picture(blocks[1], inputs[blocks[1]], spec)))
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
    backbone, inputs = _traced(spec, size, in_channels, output_stride)
    stages = [_children(stage) for stage in backbone.stages]
    parts: list[Picture] = [Box("image", (), "data", 150)]
    labels: list[str | None] = [_shape((in_channels, *size))]
    for child in _stem_parts(backbone.stem):
        parts.append(child)
        labels.append(None)
    labels[-1] = _shape(inputs[stages[0][0]])
    for number, blocks in enumerate(stages, 1):
        parts.append(_stage_box(number, blocks, spec))
        labels.append(_shape(_shape_after(blocks[-1], inputs[blocks[-1]])))
    if num_classes is not None:
        parts.append(Box("mean over H × W", (), "pool", 150))
        labels.append(str(backbone.channels[-1]))
        parts.append(Box("linear", (f"{backbone.channels[-1]} → {num_classes}",), "conv", 150))
        labels.append(None)
    return _side_by_side(
        f"{_name(spec)}", [(_name(spec), Column(parts, labels[: len(parts) - 1] if num_classes else labels))]
    )


def draw(model: str | Spec, path: str | Path, *, stage: int | None = None, size: tuple[int, int] = (224, 224)) -> Path:
    """Write the diagram of the network, or of the blocks of one stage, as SVG or PNG by the suffix of `path`.

    Raises:
        UserError: no such model or stage, another suffix, or the file cannot be written.
    """
    scene = network_scene(model, size=size) if stage is None else block_scene(model, stage, size=size)
    return scene.save(path)


# --------------------------------------------------------------------------------------------------------- inside


def _name(spec: Spec) -> str:
    try:
        return canonical_name(spec) or str(spec)
    except UserError:
        # A choice that has no word yet has no text either.
        return "unnamed network"


def _children(stage: nn.Module) -> list[nn.Module]:
    return list(stage.children())


def _traced(
    spec: Spec, size: tuple[int, int], in_channels: int, output_stride: int
) -> tuple[Backbone, dict[nn.Module, tuple[int, ...]]]:
    """A backbone on the meta device, and the shape (C, H, W) that enters each of its blocks."""
    with torch.device("meta"):
        backbone = Backbone(spec, in_channels, output_stride).eval()
        image = torch.empty(1, in_channels, *size)
    for module in backbone.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            # It keeps the shape, and torch's meta kernel for it is most of the time otherwise.
            vars(module)["forward"] = _unchanged
    inputs: dict[nn.Module, tuple[int, ...]] = {}

    def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs[module] = tuple(args[0].shape[1:])

    for stage in backbone.stages:
        for block in _children(stage):
            block.register_forward_pre_hook(note)
    with torch.no_grad():
        backbone(image)
    return backbone, inputs


def _unchanged(x: Tensor) -> Tensor:
    return x


def _shape_after(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    with torch.no_grad():
        return tuple(module(torch.empty(1, *shape, device="meta")).shape[1:])


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(str(n) for n in shape)


def _block_picture(block: nn.Module, shape: tuple[int, ...], spec: Spec) -> Picture:
    source = Box("x", (_shape(shape),), "data", 110)
    if not isinstance(block, Residual):
        result = Box("y", (_shape(_shape_after(block, shape)),), "data", 110)
        return Column([source, unknown_box(block, spec.block), result])
    choices = {"transform": spec.transform, "gate": spec.gate, "shortcut": spec.shortcut}
    trunk: list[Picture] = []
    labels: list[str | None] = []
    at = shape
    for name in ("reduce", "transform", "expand", "gate", "drop_path"):
        module = getattr(block, name)
        at = _shape_after(module, at)
        drawn = picture(module, choices.get(name))
        if drawn is not None:
            trunk.append(drawn)
            labels.append(_shape(at))
    side = picture(block.shortcut, spec.shortcut)
    tail = Column([picture(block.act) or Wire(), Box("y", (_shape(at),), "data", 110)])
    body = Sum(Column(trunk, labels[:-1]), side or Wire(width=8), tail, None if side else "identity")
    return Column([source, body])


def _stem_parts(stem: nn.Module) -> list[Picture]:
    """The stem's layers one by one when it is a chain of known layers, else one box."""
    drawn = [picture(child) for child in stem.children()]
    return [part for part in drawn if part is not None] or [unknown_box(stem)]


def _stage_box(number: int, blocks: Sequence[nn.Module], spec: Spec) -> Box:
    count = len(blocks)
    words = [type(spec.block).__name__.lower()]
    widths = f"planes {spec.planes[number - 1]}, width {spec.width(number - 1)}"
    if spec.groups > 1:
        widths += f", {spec.groups} groups"
    settings = [_describe(spec.transform, number)]
    if type(spec.gate).__name__ != "NoGate":
        settings.append(_describe(spec.gate, number))
    parameters = sum(p.numel() for block in blocks for p in block.parameters())
    lines = (", ".join(settings), widths, f"{parameters / 1e6:.2f} M parameters")
    return Box(f"stage {number}: {count} × {' '.join(words)}", lines, "plain", 210)


def _describe(choice: object, stage: int) -> str:
    """`AvgDown(SplitAttention(radix=2))` as "AvgDown of SplitAttention"."""
    inner = getattr(choice, "inner", None)
    name = type(choice).__name__
    if isinstance(choice, Deform) and stage < choice.first_stage:
        return _describe(inner, stage)
    return f"{name} of {_describe(inner, stage)}" if inner is not None else name


def _side_by_side(title: str, panels: Sequence[tuple[str, Picture]]) -> Scene:
    scene = Scene(title)
    x = MARGIN
    for heading, drawn in panels:
        width = max(drawn.width, text_width(heading, 14, bold=True))
        scene.text(x + width / 2, MARGIN + 12, heading, 14, color=GREY, bold=True)
        drawn.draw(scene, x + (width - drawn.width) / 2, MARGIN + HEADING - GAP)
        x += width + BETWEEN
    scene.width = x - BETWEEN + MARGIN
    scene.height = MARGIN + HEADING - GAP + max(drawn.height for _, drawn in panels) + MARGIN
    return scene
