"""How each part of a block is drawn: one table from the class of a module to a function that makes its picture.

The pictures are made from built modules, so what they say about channels, groups and strides is what is computed. A
class without an entry still draws, as a box with its name; `PARTS[NewConv] = picture_of_it` gives it a picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

from torch import nn

from resurge.arch.deformable import DeformableConv2d
from resurge.arch.gates import SqueezeExciteGate
from resurge.arch.layers import BranchAttention, ConvNormAct
from resurge.arch.shortcuts import HalvingPool, PooledProjection, ZeroPadShortcut
from resurge.arch.transforms import PooledTransform, Res2Conv, SelectiveKernelConv, SplitAttentionConv
from resurge.explain.layout import Box, Cascade, Column, Frame, Picture, Weighted, Wire


def picture(module: nn.Module, choice: object = None) -> Picture | None:
    """The picture of a module, None for an identity. `choice` is the spec's choice that built it, for its name."""
    for kind in type(module).__mro__:
        if kind in PARTS:
            return PARTS[kind](module)
    return unknown_box(module, choice)


def unknown_box(module: nn.Module, choice: object = None) -> Box:
    """Name and settings of something that has no picture of its own."""
    known_choice = choice is not None and is_dataclass(choice) and not isinstance(choice, type)
    settings = [f"{f.name} = {getattr(choice, f.name)}" for f in fields(choice)] if known_choice else []  # type: ignore[arg-type]
    count = sum(parameter.numel() for parameter in module.parameters())
    name = type(choice).__name__ if known_choice else type(module).__name__
    return Box(name, tuple(settings) + ((f"{count:,} parameters",) if count else ()), "unknown")


def conv_box(conv: nn.Conv2d, *after: nn.Module) -> Box:
    """A convolution and what directly follows it."""
    kernel = " × ".join(str(n) for n in conv.kernel_size)
    details = ["deformable"] if isinstance(conv, DeformableConv2d) else []
    if conv.groups > 1:
        depthwise = conv.groups == conv.in_channels == conv.out_channels
        details.append("depthwise" if depthwise else f"{conv.groups} groups")
    if max(conv.stride) > 1:
        details.append(f"stride {conv.stride[0]}")
    if max(conv.dilation) > 1:
        details.append(f"dilation {conv.dilation[0]}")
    lines = [f"{conv.in_channels} → {conv.out_channels}"]
    if details:
        lines.append(", ".join(details))
    following = [name for module in after if (name := _short(module))]
    if following:
        lines.append(", ".join(following))
    return Box(f"conv {kernel}", tuple(lines), "conv")


def _short(module: nn.Module) -> str:
    """A layer that follows a convolution, in a word or two."""
    if isinstance(module, nn.Identity):
        return ""
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return "batch norm"
    if "DropBlock" in type(module).__name__:
        return "DropBlock"
    return {"GroupNorm": "group norm", "FrozenBatchNorm2d": "frozen norm"}.get(
        type(module).__name__, type(module).__name__
    )


def _conv_norm_act(module: nn.Module) -> Picture:
    m: Any = module
    return conv_box(m.conv, m.norm, m.drop, m.act)


def _pooled_projection(module: nn.Module) -> Picture:
    m: Any = module
    pool = picture(m.pool)
    conv = conv_box(m.conv, m.norm, m.act)
    return Column([pool, conv]) if pool is not None else conv


def _zero_pad(module: nn.Module) -> Picture:
    m: Any = module
    taken = (
        f"every {m.stride}nd pixel" if m.stride == 2 else f"every {m.stride}th pixel" if m.stride > 2 else "every pixel"
    )
    return Box("zero padding", (taken, f"{m.before + m.after} channels of zeros"), "plain")


def _avg_pool(module: nn.Module) -> Picture:
    m: Any = module
    return _pool_box("average pool", m.kernel_size, m.stride)


def _max_pool(module: nn.Module) -> Picture:
    m: Any = module
    return _pool_box("max pool", m.kernel_size, m.stride)


def _pool_box(title: str, kernel: Any, stride: Any) -> Box:
    k, s = (n[0] if isinstance(n, tuple) else n for n in (kernel, stride))
    return Box(title, (f"{k} × {k}" + (f", stride {s}" if s > 1 else ""),), "pool")


def _sequential(module: nn.Module) -> Picture | None:
    inner = [drawn for child in module.children() if (drawn := picture(child)) is not None]
    return Column(inner) if inner else None


def _attention(module: nn.Module) -> Picture:
    m: Any = module
    last = "sigmoid" if m.branches == 1 else f"softmax over R = {m.branches}"
    grouped = f", {m.groups} groups" if m.groups > 1 else ""
    lines = (
        "sum" if m.branches > 1 else "",
        "mean over H × W",
        _linear(m.fc1) + grouped,
        f"{_short(m.norm)}, {_short(m.act)}",
        _linear(m.fc2) + grouped,
        last,
    )
    return Box("attention", tuple(line for line in lines if line), "attention")


def _linear(conv: nn.Conv2d) -> str:
    return f"1 × 1: {conv.in_channels} → {conv.out_channels}"


def _split_attention(module: nn.Module) -> Picture:
    m: Any = module
    radix, channels = m.attention.branches, m.attention.fc1.in_channels
    conv = picture(m.split)
    slices = [Box(f"split {r + 1}", (f"{channels} channels",), "data", 84) for r in range(radix)]
    if radix == 1:
        weighted = Weighted([Wire()], _with_title(m.attention, "attention"))
    else:
        weighted = Weighted(slices, _with_title(m.attention, "attention"))
    caption = f"split attention, R = {radix}" + (f", K = {m.attention.groups}" if m.attention.groups > 1 else "")
    return Frame(Column([p for p in (conv, weighted) if p is not None]), caption)


def _with_title(module: nn.Module, title: str) -> Picture:
    drawn = picture(module)
    return drawn if drawn is not None else Box(title, (), "attention")


def _selective_kernel(module: nn.Module) -> Picture:
    m: Any = module
    branches = [drawn for branch in m.branches if (drawn := picture(branch)) is not None]
    caption = f"selective kernel, {len(branches)} branches" + (", sliced input" if m.split_input else "")
    return Frame(Weighted(branches, _with_title(m.attention, "attention")), caption)


def _res2(module: nn.Module) -> Picture:
    m: Any = module
    pieces: list[Picture] = [drawn for conv in m.convs if (drawn := picture(conv)) is not None]
    carries = [m.carries and i > 0 for i in range(len(pieces))]
    if m.scale > 1:
        pieces.append(picture(m.pool) or Wire(width=56))
        carries.append(False)
    inputs, outputs = ([f"{letter}{i + 1}" for i in range(len(pieces))] for letter in "xy")
    cascade: Picture = Cascade(pieces, carries, inputs, outputs, "concatenate")
    adapt = picture(m.adapt)
    return Frame(Column([adapt, cascade]) if adapt is not None else cascade, f"Res2, scale {m.scale}")


def _pooled_transform(module: nn.Module) -> Picture | None:
    m: Any = module
    parts = [picture(m.pool), picture(m.inner)] if m.before else [picture(m.inner), picture(m.pool)]
    drawn = [part for part in parts if part is not None]
    return Column(drawn) if drawn else None


def _squeeze_excite(module: nn.Module) -> Picture:
    m: Any = module
    lines = ("mean over H × W", _linear(m.fc1), _short(m.act), _linear(m.fc2), "sigmoid")
    return Weighted([Wire()], Box("squeeze-excite", lines, "attention"))


def _nothing(module: nn.Module) -> None:
    return None


def _drop(module: nn.Module) -> Picture:
    rate = getattr(module, "rate", getattr(module, "p", None))
    return Box(type(module).__name__, (f"rate {rate:g}",) if isinstance(rate, float) else (), "plain")


PARTS: dict[type[nn.Module], Callable[[nn.Module], Picture | None]] = {
    nn.Identity: _nothing,
    nn.Sequential: _sequential,
    nn.AvgPool2d: _avg_pool,
    nn.MaxPool2d: _max_pool,
    nn.ZeroPad2d: lambda module: Box("zero padding", ("right and bottom",), "plain"),
    nn.ReLU: lambda module: Box("ReLU", (), "plain"),
    nn.Dropout: _drop,
    ConvNormAct: _conv_norm_act,
    HalvingPool: lambda module: _pool_box("average pool", 2, 2),
    PooledProjection: _pooled_projection,
    ZeroPadShortcut: _zero_pad,
    BranchAttention: _attention,
    SplitAttentionConv: _split_attention,
    SelectiveKernelConv: _selective_kernel,
    Res2Conv: _res2,
    PooledTransform: _pooled_transform,
    SqueezeExciteGate: _squeeze_excite,
}
