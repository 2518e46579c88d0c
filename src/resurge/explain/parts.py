"""How each part of a block is drawn: a function from a module to its picture for each class of modules.

The pictures are made from built modules, so the channels, groups and strides they show are those that are computed. A
class without a function still draws, as a box with its name; `picture.register` gives it a picture.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import singledispatch

from torch import nn

from resurge.arch.deformable import DeformableConv2d
from resurge.arch.gates import SqueezeExciteGate
from resurge.arch.layers import BranchAttention, ConvNormAct
from resurge.arch.shortcuts import HalvingPool, PooledProjection, ZeroPadShortcut
from resurge.arch.transforms import PooledTransform, Res2Conv, SelectiveKernelConv, SplitAttentionConv
from resurge.explain.layout import Picture, box, cascade, column, frame, weighted, wire

FOLLOWING = {"GroupNorm": "group norm", "FrozenBatchNorm2d": "frozen norm"}


@singledispatch
def picture(module: nn.Module) -> Picture | None:
    """The picture of a module, None for an identity."""
    return unknown_box(module)


def is_known(module: nn.Module) -> bool:
    """Whether the class of a module has a picture of its own."""
    return picture.dispatch(type(module)) is not picture.dispatch(object)


def unknown_box(module: nn.Module, choice: object = None) -> Picture:
    """Name and settings of something that has no picture of its own. `choice`: that of the spec that built it."""
    name, lines = type(module).__name__, []
    if is_dataclass(choice) and not isinstance(choice, type):
        name = type(choice).__name__
        lines = [f"{field.name} = {getattr(choice, field.name)}" for field in fields(choice)]
    count = sum(parameter.numel() for parameter in module.parameters())
    return box(name, lines + ([f"{count:,} parameters"] if count else []), "unknown")


def stack(*modules: nn.Module) -> Picture | None:
    """Modules one after the other; None when all are identities."""
    drawn = [part for module in modules if (part := picture(module)) is not None]
    return column(drawn) if drawn else None


def _conv(conv: nn.Conv2d, *after: nn.Module) -> Picture:
    """A convolution and what directly follows it."""
    details = ["deformable"] if isinstance(conv, DeformableConv2d) else []
    if conv.groups > 1:
        depthwise = conv.groups == conv.in_channels == conv.out_channels
        details.append("depthwise" if depthwise else f"{conv.groups} groups")
    if max(conv.stride) > 1:
        details.append(f"stride {conv.stride[0]}")
    if max(conv.dilation) > 1:
        details.append(f"dilation {conv.dilation[0]}")
    following = ", ".join(filter(None, map(_short, after)))
    lines = (f"{conv.in_channels} → {conv.out_channels}", ", ".join(details), following)
    return box(f"conv {' × '.join(map(str, conv.kernel_size))}", [line for line in lines if line])


def _short(module: nn.Module) -> str:
    """A layer that follows a convolution, in a word or two."""
    if isinstance(module, nn.Identity):
        return ""
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return "batch norm"
    name = type(module).__name__
    return "DropBlock" if "DropBlock" in name else FOLLOWING.get(name, name)


def _linear(conv: nn.Conv2d) -> str:
    return f"1 × 1: {conv.in_channels} → {conv.out_channels}"


def _pool(title: str, kernel: int | tuple[int, ...], stride: int | tuple[int, ...]) -> Picture:
    k, s = (n if isinstance(n, int) else n[0] for n in (kernel, stride))
    return box(title, [f"{k} × {k}" + (f", stride {s}" if s > 1 else "")], "pool")


picture.register(nn.Identity, lambda module: None)
picture.register(nn.Sequential, lambda module: stack(*module.children()))
picture.register(nn.AvgPool2d, lambda module: _pool("average pool", module.kernel_size, module.stride))
picture.register(HalvingPool, lambda module: _pool("average pool", 2, 2))
picture.register(nn.MaxPool2d, lambda module: _pool("max pool", module.kernel_size, module.stride))
picture.register(nn.ZeroPad2d, lambda module: box("zero padding", ["right and bottom"], "plain"))
picture.register(nn.ReLU, lambda module: box("ReLU", paint="plain"))
picture.register(nn.Dropout, lambda module: box("Dropout", [f"rate {module.p:g}"], "plain"))
picture.register(ConvNormAct, lambda module: _conv(module.conv, module.norm, module.drop, module.act))


@picture.register
def _(module: PooledProjection) -> Picture:
    pool, conv = picture(module.pool), _conv(module.conv, module.norm, module.act)
    return conv if pool is None else column([pool, conv])


@picture.register
def _(module: ZeroPadShortcut) -> Picture:
    ordinal = {1: "", 2: "2nd "}.get(module.stride, f"{module.stride}th ")
    return box("zero padding", [f"every {ordinal}pixel", f"{module.before + module.after} channels of zeros"], "plain")


@picture.register
def _attention(module: BranchAttention) -> Picture:
    grouped = f", {module.groups} groups" if module.groups > 1 else ""
    lines = [
        "mean over H × W",
        _linear(module.fc1) + grouped,
        f"{_short(module.norm)}, {_short(module.act)}",
        _linear(module.fc2) + grouped,
    ]
    lines = ["sum", *lines, f"softmax over R = {module.branches}"] if module.branches > 1 else [*lines, "sigmoid"]
    return box("attention", lines, "attention")


@picture.register
def _(module: SplitAttentionConv) -> Picture:
    radix, groups, channels = module.attention.branches, module.attention.groups, module.attention.fc1.in_channels
    slices = [box(f"split {r + 1}", [f"{channels} channels"], "data", 84) for r in range(radix)]
    conv, summed = stack(module.split), weighted(slices if radix > 1 else [wire()], _attention(module.attention))
    caption = f"split attention, R = {radix}" + (f", K = {groups}" if groups > 1 else "")
    return frame(summed if conv is None else column([conv, summed]), caption)


@picture.register
def _(module: SelectiveKernelConv) -> Picture:
    branches = [drawn for branch in module.branches if (drawn := picture(branch)) is not None]
    caption = f"selective kernel, {len(branches)} branches" + (", sliced input" if module.split_input else "")
    return frame(weighted(branches, _attention(module.attention)), caption)


@picture.register
def _(module: Res2Conv) -> Picture:
    pieces = [drawn for conv in module.convs if (drawn := picture(conv)) is not None]
    carries = [module.carries and i > 0 for i in range(len(pieces))]
    if module.scale > 1:
        pieces.append(picture(module.pool) or wire(56))
        carries.append(False)
    adapt, drawn = picture(module.adapt), cascade(pieces, carries)
    return frame(drawn if adapt is None else column([adapt, drawn]), f"Res2, scale {module.scale}")


@picture.register
def _(module: PooledTransform) -> Picture | None:
    return stack(module.pool, module.inner) if module.before else stack(module.inner, module.pool)


@picture.register
def _(module: SqueezeExciteGate) -> Picture:
    lines = ["mean over H × W", _linear(module.fc1), _short(module.act), _linear(module.fc2), "sigmoid"]
    return weighted([wire()], box("squeeze-excite", lines, "attention"))
