"""The equal forms of a network's layers, each checked on the network itself: `resurge show NAME --forms`.

The equations stand in docs/family.md and the conversions in `resurge.arch.forms`. A form is compared with the layer it
was made of, in float64, on random maps and with norms whose statistics were measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from resurge.arch import forms
from resurge.arch.backbone import Backbone
from resurge.arch.blocks import Residual
from resurge.arch.gates import SqueezeExciteGate
from resurge.arch.layers import ConvNormAct, fuse, global_pool
from resurge.arch.slicing import to_dense, to_groups
from resurge.arch.spec import Spec
from resurge.arch.transforms import PooledTransform, Res2Conv, SelectiveKernelConv, SplitAttentionConv

SIDE = 16  # of the maps that go in, pixels

Layer = Callable[[Tensor], Tensor]


class Equality(NamedTuple):
    """Two forms of one layer.

    Attributes:
        place: where the layer is, such as "stage 2, block 1".
        forms: what is equal to what.
        largest_difference: of the two outputs, as a share of the largest output.
    """

    place: str
    forms: str
    largest_difference: float


def equalities(spec: Spec) -> list[Equality]:
    """Every equality that holds in a network, each at the first block where it does.

    Raises:
        UserError: the network cannot be built.
    """
    found: dict[str, Equality] = {}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        backbone = Backbone(spec).double()
        for number, stage in enumerate(backbone.stages, 1):
            for index, block in enumerate(list(stage.children())[:2], 1):
                if not isinstance(block, Residual):
                    continue  # a block from elsewhere has no other form
                width = next(layer.in_channels for layer in block.modules() if isinstance(layer, nn.Conv2d))
                x = torch.randn(4, width, SIDE, SIDE, dtype=torch.float64).relu()
                calibrate(block, x)
                for name, inputs, one, other in _forms(block, x):
                    if name not in found:
                        place = f"stage {number}, block {index}"
                        found[name] = Equality(place, name, _difference(one, other, inputs))
    return list(found.values())


def calibrate(model: nn.Module, x: Tensor) -> None:
    """Random scales and shifts of all BatchNorms, then running statistics measured on `x`, in evaluation mode after it:
    zero-initialised norms would hide a fault."""
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.7, 1.3)
        nn.init.normal_(norm.bias, std=0.3)
        norm.momentum = None  # a plain average
    model.train()(x)
    for norm in norms:
        norm.momentum = 0.1
    model.eval()


def _difference(one: Layer, other: Layer, x: Tensor) -> float:
    expected = one(x)
    return float((other(x) - expected).abs().max() / expected.abs().max())


def _forms(block: Residual, x: Tensor) -> Iterator[tuple[str, Tensor, Layer, Layer]]:
    """(name, input, the layer as it is built, another form of it)."""
    if any(isinstance(layer, nn.Conv2d) and type(layer) is not nn.Conv2d for layer in block.modules()):
        return  # a deformable convolution has no other form
    transform = block.transform
    if isinstance(transform, ConvNormAct):
        if transform.conv.groups > 1:
            dense = to_dense(transform.conv)
            inner = _input_of(block, transform, x)
            yield "a grouped convolution = a dense one, block-diagonal", inner, transform.conv, dense
            yield "a block-diagonal convolution = its groups", inner, dense, to_groups(dense, transform.conv.groups)
        if transform.conv.groups > 1 and isinstance(block.reduce, ConvNormAct):
            early, separate = forms.to_early(block), forms.to_separate(block)
            yield "grouped convolution = early concatenation (ResNeXt, form b)", x, block, early
            yield "grouped convolution = separate branches, summed (ResNeXt, form a)", x, block, separate
            yield "separate branches = grouped convolution (ResNeXt, form c)", x, separate, forms.to_grouped(separate)
    inner_transform = transform.inner if isinstance(transform, PooledTransform) else transform
    if isinstance(inner_transform, SplitAttentionConv):
        yield from _of_split_attention(block, inner_transform, x)
    if isinstance(inner_transform, SelectiveKernelConv):
        split = forms.selective_as_split(inner_transform)
        inputs = _input_of(block, inner_transform, x)
        yield "selective kernels = split attention with one large kernel", inputs, inner_transform, split
    if isinstance(inner_transform, Res2Conv):
        inputs = _input_of(block, inner_transform, x).relu()  # a copied piece passes a ReLU again
        kind = "Res2" if inner_transform.carries else "Res2 in the first block of a stage"
        chain = forms.res2_as_chain(inner_transform)
        yield f"{kind} = a chain of ordinary convolutions", inputs, inner_transform, chain
    if isinstance(block.gate, SqueezeExciteGate):
        attention = forms.gate_as_attention(block.gate)
        inputs = _input_of(block, block.gate, x)

        def attended(u: Tensor) -> Tensor:
            return fuse([u], attention(global_pool(u)))

        yield "squeeze-and-excitation = attention of radix 1", inputs, block.gate, attended


def _of_split_attention(
    block: Residual, layer: SplitAttentionConv, x: Tensor
) -> Iterator[tuple[str, Tensor, Layer, Layer]]:
    inputs = _input_of(block, layer, x)
    if isinstance(block.reduce, ConvNormAct):
        naive = forms.to_cardinality_major(block)
        yield "split attention, radix-major = cardinality-major, group by group", x, block, naive
        yield "cardinality-major = radix-major", x, naive, forms.to_radix_major(naive)
    if layer.attention.branches > 1:
        selective = forms.split_as_selective(layer)
        yield "split attention = selective kernels of one size, each on its part", inputs, layer, selective
    else:
        gate = forms.attention_as_gate(layer.attention)
        yield "split attention of radix 1 = squeeze-and-excitation", inputs, layer, lambda u: gate(layer.split(u))


def _input_of(block: Residual, layer: nn.Module, x: Tensor) -> Tensor:
    """What goes into a layer of the block when `x` goes into the block."""
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    try:
        block(x)
    finally:
        handle.remove()
    return seen[0]
