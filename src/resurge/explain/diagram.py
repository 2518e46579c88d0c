"""Diagrams of a network: its blocks stage by stage, and the whole of it, as SVG or PNG.

Nothing is computed: modules are built and run on torch's meta device, which knows shapes only.
"""

from __future__ import annotations

from collections.abc import Sequence

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


class Diagrams:
    """The drawings of one network.

    Args:
        model: a spec, its text, or a name.
        size: height and width of the image, for the shapes in the drawings.

    Raises:
        UserError: there is no such model, or it cannot be built.
    """

    def __init__(
        self,
        model: str | Spec,
        size: tuple[int, int] = (224, 224),
        in_channels: int = 3,
        output_stride: int = 32,
    ) -> None:
        self.spec = get_spec(model)
        self.image = (in_channels, *size)
        self.shapes: dict[nn.Module, Sequence[int]] = {}
        """The shape (C, H, W) that leaves each module."""
        with torch.device("meta"):
            self.backbone = Backbone(self.spec, in_channels, output_stride).eval()
            image = torch.empty(1, *self.image)
        for module in self.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase):
                # It keeps the shape, and torch's meta kernel for it is most of the time otherwise.
                vars(module)["forward"] = _unchanged
            if module is not self.backbone:
                module.register_forward_hook(self._note)
        with torch.no_grad():
            self.backbone(image)

    def _note(self, module: nn.Module, args: object, output: Tensor) -> None:
        self.shapes[module] = output.shape[1:]

    @property
    def name(self) -> str:
        try:
            return canonical_name(self.spec) or str(self.spec)
        except UserError:
            # A choice that has no word yet has no text either.
            return "unnamed network"

    def network(self, num_classes: int | None = 1000) -> Scene:
        """The whole network from image to classes, or only its backbone: a box per stage, and shapes between."""
        # The stem's layers one by one when it is a chain of known layers, else one box.
        stem = [part for child in self.backbone.stem.children() if (part := picture(child)) is not None]
        parts = [box("image", (), "data", 150), *(stem or [unknown_box(self.backbone.stem)])]
        labels = [_shape(self.image), *(None for _ in parts[2:]), _shape(self.shapes[self.backbone.stem])]
        for number, stage in enumerate(self.backbone.stages, 1):
            parts.append(_stage_box(number, stage, self.spec))
            labels.append(_shape(self.shapes[stage]))
        if num_classes is not None:
            channels = self.backbone.channels[-1]
            parts.append(box("mean over H × W", (), "pool", 150))
            parts.append(box("linear", [f"{channels} → {num_classes}"], "conv", 150))
            labels.append(str(channels))
        return _side_by_side(self.name, [(self.name, column(parts, labels))])

    def blocks(self, stage: int) -> Scene:
        """The blocks of one stage (the first is 1): its entry block, and beside it the later ones, which are alike.

        Raises:
            UserError: there is no such stage.
        """
        if not 1 <= stage <= len(self.spec.depths):
            raise UserError(f"{self.name} has stages 1 to {len(self.spec.depths)}; there is no stage {stage}.")
        before = self.backbone.stages[stage - 2] if stage > 1 else self.backbone.stem
        blocks, panels = list(self.backbone.stages[stage - 1].children()), []
        for number, block in enumerate(blocks[:2], 1):
            numbers = f"blocks 2 to {len(blocks)}" if number == 2 < len(blocks) else f"block {number}"
            panels.append((f"stage {stage}, {numbers} of {len(blocks)}", self._block(block, before)))
            before = block
        return _side_by_side(f"{self.name}: blocks of stage {stage}", panels)

    def all(self, num_classes: int | None) -> list[Scene]:
        """The whole network, then the blocks of each of its stages."""
        return [self.network(num_classes), *(self.blocks(i + 1) for i in range(len(self.spec.depths)))]

    def _block(self, block: nn.Module, before: nn.Module) -> Picture:
        source = box("x", [_shape(self.shapes[before])], "data", 110)
        result = box("y", [_shape(self.shapes[block])], "data", 110)
        if not isinstance(block, Residual):
            return column([source, unknown_box(block, self.spec.block), result])

        def part(name: str) -> Picture | None:
            module = getattr(block, name)
            return picture(module) if is_known(module) else unknown_box(module, getattr(self.spec, name, None))

        names = ("reduce", "transform", "expand", "gate", "drop_path")
        drawn = {name: found for name in names if (found := part(name)) is not None}
        labels = [_shape(self.shapes[getattr(block, name)]) for name in drawn]
        tail = column([part("act") or wire(), result])
        return column([source, residual(column(list(drawn.values()), labels[:-1]), part("shortcut"), tail)])


def _unchanged(x: Tensor) -> Tensor:
    return x


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


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
