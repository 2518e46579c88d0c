"""What a network costs at an input size: parameters, multiply-adds, memory of activations, stage by stage.

The network runs once on torch's meta device, which computes shapes and nothing else, so that the largest network at
the largest size takes a second and no memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from resurge.arch.backbone import Backbone, backbone_of
from resurge.arch.spec import Spec
from resurge.arch.zoo import get_spec
from resurge.errors import UserError
from resurge.explain.modes import in_mode
from resurge.explain.receptive import receptive_fields

# Two images, because norms on 1x1 maps treat a single one differently in training. All figures are for one.
BATCH = 2


@dataclass(frozen=True)
class CostRow:
    """One stage.

    Attributes:
        shape: of the output, (C, H, W), or (C,) for a vector; empty when there is more than one output.
        parameters: weights and biases.
        macs: multiply-adds of convolutions and linear layers for one image; one multiply-add counts 1.
        activation_bytes: what autograd keeps of one fp32 image for the backward pass, parameters not counted.
        receptive_field: side in input pixels, counted from kernels and strides; None for a head.
    """

    name: str
    shape: tuple[int, ...] = ()
    parameters: int = 0
    macs: int = 0
    activation_bytes: int = 0
    receptive_field: int | None = None


@dataclass(frozen=True)
class CostReport:
    """The rows of a network, and its input (C, H, W)."""

    input: tuple[int, int, int]
    rows: tuple[CostRow, ...]

    @property
    def parameters(self) -> int:
        return sum(row.parameters for row in self.rows)

    @property
    def macs(self) -> int:
        return sum(row.macs for row in self.rows)

    @property
    def activation_bytes(self) -> int:
        return sum(row.activation_bytes for row in self.rows)

    @property
    def receptive_field(self) -> int | None:
        return max((row.receptive_field for row in self.rows if row.receptive_field is not None), default=None)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `explain/cost.json` of a run directory holds them."""
        total = {"parameters": self.parameters, "macs": self.macs, "activation_bytes": self.activation_bytes}
        rows = [
            {
                "name": row.name,
                "shape": list(row.shape),
                "parameters": row.parameters,
                "macs": row.macs,
                "activation_bytes": row.activation_bytes,
                "receptive_field": row.receptive_field,
            }
            for row in self.rows
        ]
        return {"input": list(self.input), "rows": rows, "total": total}


def cost(
    model: nn.Module | Spec | str,
    size: tuple[int, int] = (224, 224),
    in_channels: int | None = None,
    num_classes: int | None = 1000,
) -> CostReport:
    """The cost of a model, or of a spec (its text, its name) with a linear classifier.

    Args:
        model: a `Backbone`, a module with a `backbone`, or a spec. A module is left as it was.
        size: height and width of the image.
        in_channels: channels of the image; None takes the model's own, 3 for a spec.
        num_classes: for a spec only; None counts the backbone alone.

    Raises:
        UserError: no such model, a module without a backbone, or a size the network cannot take.
    """
    module = model if isinstance(model, nn.Module) else _build(get_spec(model), in_channels or 3, num_classes)
    backbone = backbone_of(module)
    channels = in_channels or backbone.in_channels
    if min(size) < 1:
        raise UserError(f"the input size must be positive; got {size[0]} x {size[1]}.")
    meter = _Meter(module, backbone)
    image = torch.empty(BATCH, channels, *size, device="meta")
    states = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    shadows = {
        name: torch.empty_like(state, device="meta", dtype=torch.float32 if state.is_floating_point() else None)
        for name, state in states.items()
    }
    for name, parameter in module.named_parameters():
        # Frozen parameters save less; the table speaks of training all of the network.
        shadows[name].requires_grad_(parameter.is_floating_point())
    meter.leave_out(shadows.values())
    with in_mode(module, training=True), meter.attached(), torch.enable_grad():
        try:
            torch.func.functional_call(module, shadows, (image,))
        except RuntimeError as error:
            raise UserError(
                f"the network cannot take an image of {channels} x {size[0]} x {size[1]} ({error}). Try a larger size."
            ) from error
    return CostReport((channels, *size), meter.rows())


class _WithClassifier(nn.Module):
    """A backbone and the linear classifier that published figures count."""

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.channels[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(x)[-1].mean((2, 3)))
        return logits


def _build(spec: Spec, in_channels: int, num_classes: int | None) -> nn.Module:
    with torch.device("meta"):
        backbone = Backbone(spec, in_channels)
        return backbone if num_classes is None else _WithClassifier(backbone, num_classes)


class _Meter:
    """Hooks that write down what passes, row by row."""

    def __init__(self, module: nn.Module, backbone: Backbone) -> None:
        self.module = module
        self.parts: dict[str, nn.Module] = {"stem": backbone.stem}
        self.parts |= {f"stage {i}": stage for i, stage in enumerate(backbone.stages, 1)}
        self.table: dict[str, CostRow] = {name: CostRow(name) for name in (*self.parts, "head")}
        for name, field in zip(self.parts, receptive_fields(backbone), strict=True):
            self.table[name] = replace(self.table[name], receptive_field=field.size)
        self.row_of = {layer: name for name, part in self.parts.items() for layer in part.modules()}
        for layer in module.modules():
            own = sum(p.numel() for p in layer.parameters(recurse=False))
            self._add(self.row_of.get(layer, "head"), parameters=own)
        self.current = "head"
        self.has_head = not isinstance(module, Backbone)
        self.known: dict[int, torch.UntypedStorage] = {}

    def leave_out(self, tensors: Iterable[Tensor]) -> None:
        """Parameters and buffers are there anyway: they are not activations."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self.known[storage._cdata] = storage

    def rows(self) -> tuple[CostRow, ...]:
        return tuple(row for name, row in self.table.items() if name != "head" or self.has_head)

    def _add(self, name: str, *, parameters: int = 0, macs: int = 0, activation_bytes: int = 0) -> None:
        row = self.table[name]
        self.table[name] = replace(
            row,
            parameters=row.parameters + parameters,
            macs=row.macs + macs,
            activation_bytes=row.activation_bytes + activation_bytes,
        )

    @contextmanager
    def attached(self) -> Iterator[None]:
        with ExitStack() as stack:
            for name, part in self.parts.items():
                stack.callback(part.register_forward_pre_hook(self._entering(name)).remove)
                stack.callback(part.register_forward_hook(self._leaving(name)).remove)
            stack.callback(self.module.register_forward_hook(self._finished).remove)
            for layer in self.module.modules():
                if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear):
                    stack.callback(layer.register_forward_hook(self._multiplied).remove)
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(self._saved, lambda kept: kept))
            yield

    def _entering(self, name: str) -> Any:
        def hook(part: nn.Module, args: Any) -> None:
            self.current = name

        return hook

    def _leaving(self, name: str) -> Any:
        def hook(part: nn.Module, args: Any, output: Tensor) -> None:
            self.current = "head"
            self.table[name] = replace(self.table[name], shape=tuple(output.shape[1:]))

        return hook

    def _finished(self, module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            self.table["head"] = replace(self.table["head"], shape=tuple(output.shape[1:]))

    def _multiplied(self, layer: Any, args: Any, output: Tensor) -> None:
        if isinstance(layer, nn.Linear):
            macs = output.numel() * layer.in_features
        elif isinstance(layer, nn.modules.conv._ConvTransposeNd):
            macs = args[0].numel() * layer.weight[0].numel()
        else:
            macs = output.numel() * layer.weight[0].numel()
        self._add(self.row_of.get(layer, "head"), macs=macs // BATCH)

    def _saved(self, tensor: Tensor) -> Tensor:
        """Count the storage of a tensor that autograd keeps, once, however many operations keep it."""
        storage = tensor.untyped_storage()
        # Meta tensors have no address, so a storage is known by its C++ object; it is kept alive here, so that the
        # next one does not get the same place. What has no batch dimension, such as BatchNorm's means, is not an
        # activation.
        if tensor.dim() and tensor.shape[0] == BATCH and storage._cdata not in self.known:
            self.known[storage._cdata] = storage
            self._add(self.current, activation_bytes=storage.nbytes() // BATCH)
        return tensor
