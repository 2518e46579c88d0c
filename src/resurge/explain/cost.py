"""What a network costs at an input size: parameters, multiply-adds, memory of activations, stage by stage.

The network runs once on torch's meta device, which computes shapes and nothing else, so that the largest network at
the largest size takes a second and no memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor, nn

from resurge.arch.backbone import Backbone, backbone_of
from resurge.arch.layers import global_pool
from resurge.arch.spec import Spec
from resurge.arch.zoo import get_spec
from resurge.errors import UserError
from resurge.explain.receptive import receptive_fields

# Two images, because norms on 1x1 maps treat a single one differently in training. All figures are for one.
BATCH = 2


@dataclass
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
    def total(self) -> CostRow:
        """The sums of all rows."""
        names = ("parameters", "macs", "activation_bytes")
        return CostRow("total", **{name: sum(getattr(row, name) for row in self.rows) for name in names})

    @property
    def receptive_field(self) -> int | None:
        return max((row.receptive_field for row in self.rows if row.receptive_field is not None), default=None)

    def to_json(self, backbone_of: int | None = None) -> dict[str, object]:
        """Plain values, as `explain/cost.json` of a run directory holds them.

        `backbone_of` are the parameters of the whole network where the rows are those of its backbone.
        """
        *rows, total = (asdict(row) | {"shape": list(row.shape)} for row in (*self.rows, self.total))
        sums = {name: total[name] for name in ("parameters", "macs", "activation_bytes")}
        plain: dict[str, object] = {"input": list(self.input), "rows": rows, "total": sums}
        if backbone_of is not None:
            plain |= {"of": "backbone", "other_parameters": backbone_of - self.total.parameters}
        return plain


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
    image = torch.empty(BATCH, channels, *size, device="meta")
    shadows = {}
    for name, state in (*module.named_parameters(), *module.named_buffers()):
        kind = torch.float32 if state.is_floating_point() else None
        shadows[name] = torch.empty_like(state, device="meta", dtype=kind)
        # Frozen parameters save less; the table speaks of training all of the network.
        shadows[name].requires_grad_(isinstance(state, nn.Parameter) and state.is_floating_point())
    meter = _Meter(module, backbone, shadows)
    with in_mode(module, training=True), meter.attached(), torch.enable_grad():
        try:
            torch.func.functional_call(module, shadows, (image,))
        except RuntimeError as error:
            raise UserError(
                f"the network cannot take an image of {channels} x {size[0]} x {size[1]} ({error}). Try a larger size."
            ) from error
    rows = meter.rows if module is not backbone else {name: meter.rows[name] for name in meter.parts}
    return CostReport((channels, *size), tuple(rows.values()))


class _WithClassifier(nn.Module):
    """A backbone and the linear classifier that published figures count."""

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.channels[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(global_pool(self.backbone(x)[-1]).flatten(1))
        return logits


def _build(spec: Spec, in_channels: int, num_classes: int | None) -> nn.Module:
    with torch.device("meta"):
        backbone = Backbone(spec, in_channels)
        return backbone if num_classes is None else _WithClassifier(backbone, num_classes)


class _Meter:
    """Hooks that write down what passes, row by row. `states`: parameters and buffers, which are no activations."""

    def __init__(self, module: nn.Module, backbone: Backbone, states: dict[str, Tensor]) -> None:
        self.module = module
        self.parts = {"stem": backbone.stem} | {f"stage {i}": stage for i, stage in enumerate(backbone.stages, 1)}
        fields = zip(self.parts, receptive_fields(backbone), strict=True)
        self.rows = {name: CostRow(name, receptive_field=field.size) for name, field in fields}
        self.current = self.head = self.rows["head"] = CostRow("head")
        self.row_of = {layer: self.rows[name] for name, part in self.parts.items() for layer in part.modules()}
        for layer in module.modules():
            self.row_of.setdefault(layer, self.head).parameters += sum(
                p.numel() for p in layer.parameters(recurse=False)
            )
        storages = [tensor.untyped_storage() for tensor in states.values()]
        self.known = {storage._cdata: storage for storage in storages}

    @contextmanager
    def attached(self) -> Iterator[None]:
        with ExitStack() as stack:
            for name, part in self.parts.items():
                stack.callback(part.register_forward_pre_hook(partial(self._entering, self.rows[name])).remove)
                stack.callback(part.register_forward_hook(self._leaving).remove)
            for layer in self.module.modules():
                if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear):
                    stack.callback(layer.register_forward_hook(self._multiplied).remove)
            stack.callback(self.module.register_forward_hook(self._leaving).remove)
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(self._saved, lambda kept: kept))
            yield

    def _entering(self, row: CostRow, part: nn.Module, args: object) -> None:
        self.current = row

    def _leaving(self, part: nn.Module, args: object, output: object) -> None:
        if isinstance(output, Tensor):
            self.current.shape = tuple(output.shape[1:])
        self.current = self.head

    def _multiplied(self, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer.weight, Tensor)
        # each pixel of the input is multiplied by a transposed convolution, each one of the output by others
        pixels = args[0] if isinstance(layer, nn.modules.conv._ConvTransposeNd) else output
        self.row_of[layer].macs += pixels.numel() * layer.weight[0].numel() // BATCH

    def _saved(self, tensor: Tensor) -> Tensor:
        """Count the storage of a tensor that autograd keeps, once, however many operations keep it."""
        storage = tensor.untyped_storage()
        # Meta tensors have no address, so a storage is known by its C++ object; it is kept alive here, so that the
        # next one does not get the same place. What has no batch dimension, such as BatchNorm's means, is not an
        # activation.
        if tensor.dim() and tensor.shape[0] == BATCH and storage._cdata not in self.known:
            self.known[storage._cdata] = storage
            self.current.activation_bytes += storage.nbytes() // BATCH
        return tensor


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """This mode for all of `model`, and afterwards each part in the mode it had."""
    modes = {part: part.training for part in model.modules()}
    for part in modes:
        part.training = training
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
