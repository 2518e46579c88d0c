"""Layers cut, joined, reordered and grouped along their channels: the tools of `forms` and of `resurge.optimize`.

Each function returns new layers with copied weights and draws no random numbers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from resurge.arch.layers import ConvNormAct
from resurge.errors import UserError

M = TypeVar("M", bound=nn.Module)
PER_CHANNEL = ("weight", "bias", "running_mean", "running_var")


def expect(what: str, module: nn.Module, kind: type[M]) -> M:
    """`module`, known to be a `kind`; raises UserError if it is not."""
    if not isinstance(module, kind):
        raise UserError(f"{what}: expected a {kind.__name__}, got a {type(module).__name__}.")
    return module


def expect_all(what: str, modules: nn.Module, kind: type[M]) -> list[M]:
    """The children of a list of modules, known to be of one kind."""
    return [expect(what, module, kind) for module in modules.children()]


def expect_norm(norm: nn.Module) -> nn.BatchNorm2d:
    """`norm`, known to be a batch normalisation with statistics that can be cut; raises UserError if it is not."""
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None:
        raise UserError(
            "only batch normalisation with running statistics is cut and joined by channel, got "
            f"{type(norm).__name__}; convert_norm(model, 'batch') first."
        )
    return norm


def expect_plain(what: str, module: nn.Module) -> ConvNormAct:
    """`module`, known to be convolution, batch normalisation and activation, and nothing else.

    Raises:
        UserError: it is something else, or DropBlock is in it.
    """
    layer = expect(what, module, ConvNormAct)
    expect_norm(layer.norm)
    if type(layer.conv) is not nn.Conv2d:
        raise UserError(f"{what}: expected a plain convolution, got a {type(layer.conv).__name__}, which has no forms.")
    if not isinstance(layer.drop, nn.Identity):
        raise UserError(f"{what}: DropBlock draws by layer and cannot be cut; set_drop_block(model, 0) first.")
    return layer


# ------------------------------------------------------------------------------------------------------- convolutions


def conv_like(
    like: nn.Conv2d, weight: Tensor, *, groups: int, bias: Tensor | None = None, dilation: int | None = None
) -> nn.Conv2d:
    """A convolution with this weight and the stride of `like`, padded so that only the stride changes the size."""
    step = like.dilation[0] if dilation is None else dilation
    cout, cin, kernel = weight.shape[0], weight.shape[1] * groups, weight.shape[-1]
    padding = step * (kernel - 1) // 2
    # on the meta device nothing is initialised, so the random state stays as it was
    conv = nn.Conv2d(cin, cout, kernel, like.stride[0], padding, step, groups, bias=False, device="meta")
    conv.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().clone())
    return conv.train(like.training)


def cut_conv(conv: nn.Conv2d, parts: int) -> list[nn.Conv2d]:
    """A convolution as `parts` ones, by its outputs: each with its own inputs if it is grouped, else with all."""
    groups = max(1, conv.groups // parts)
    biases: Sequence[Tensor | None] = [None] * parts if conv.bias is None else conv.bias.chunk(parts)
    return [conv_like(conv, w, groups=groups, bias=b) for w, b in zip(conv.weight.chunk(parts), biases, strict=True)]


def join_convs(convs: Sequence[nn.Conv2d], groups: int) -> nn.Conv2d:
    """`cut_conv` undone: `groups` is 1 if they share their input, else the groups of all of them together."""
    biases = [conv.bias for conv in convs if conv.bias is not None]
    weight = torch.cat([conv.weight for conv in convs])
    return conv_like(convs[0], weight, groups=groups, bias=torch.cat(biases) if biases else None)


def merge_groups(conv: nn.Conv2d, groups: int) -> nn.Conv2d:
    """A grouped convolution in fewer groups, a divisor: neighbouring ones become one, block-diagonal inside."""
    rows, columns = conv.out_channels // conv.groups, conv.in_channels // conv.groups
    weight = conv.weight.new_zeros(conv.out_channels, conv.in_channels // groups, *conv.kernel_size)
    for k, block in enumerate(conv.weight.detach().chunk(conv.groups)):
        inner = k % (conv.groups // groups)
        weight[k * rows : (k + 1) * rows, inner * columns : (inner + 1) * columns] = block
    return conv_like(conv, weight, groups=groups, bias=conv.bias)


def to_dense(conv: nn.Conv2d) -> nn.Conv2d:
    """A grouped convolution as a dense one whose weight is block-diagonal over channels, all new ones zero."""
    return merge_groups(conv, 1)


def to_groups(conv: nn.Conv2d, groups: int) -> nn.Conv2d:
    """A dense convolution with a block-diagonal weight as a grouped one.

    Raises:
        UserError: the channels cannot be divided into `groups`, or a weight off the diagonal is not zero.
    """
    if conv.groups != 1 or conv.out_channels % groups or conv.in_channels % groups:
        raise UserError(
            f"expected a dense convolution whose channels divide into {groups} groups, got {conv.in_channels} -> "
            f"{conv.out_channels} channels in {conv.groups} groups."
        )
    columns = conv.in_channels // groups
    blocks = [rows[:, k * columns : (k + 1) * columns] for k, rows in enumerate(conv.weight.chunk(groups))]
    grouped = conv_like(conv, torch.cat(blocks), groups=groups, bias=conv.bias)
    rest = (to_dense(grouped).weight - conv.weight).abs().max().item()
    if rest > 0:
        raise UserError(
            f"this convolution is not {groups} groups: a weight of {rest:.3g} joins channels of different groups. "
            "Only a block-diagonal weight can be written in groups without changing the output."
        )
    return grouped


def spread(weight: Tensor, step: int, reach: int) -> Tensor:
    """A 3x3 kernel, taps `step` apart, as a kernel of 2 * reach + 1 with zeros between and around."""
    wide = weight.new_zeros(*weight.shape[:2], 2 * reach + 1, 2 * reach + 1)
    taps = slice(reach - step, reach + step + 1, step)
    wide[:, :, taps, taps] = weight.detach()
    return wide


# -------------------------------------------------------------------------------------------------- norms and layers


def norm_like(like: nn.BatchNorm2d, state: dict[str, Tensor]) -> nn.BatchNorm2d:
    """A norm with these `PER_CHANNEL` tensors, in all else a copy of `like`."""
    norm = copy.deepcopy(like)
    norm.num_features = state["weight"].numel()
    for key in PER_CHANNEL:
        value = state[key].detach().clone()
        setattr(norm, key, nn.Parameter(value) if key in ("weight", "bias") else value)
    return norm


def select_norm(norm: nn.BatchNorm2d, channels: Tensor) -> nn.BatchNorm2d:
    """Some channels of a norm, in this order."""
    state = norm.state_dict()
    return norm_like(norm, {key: state[key][channels] for key in PER_CHANNEL})


def cut_norm(norm: nn.Module, parts: int) -> list[nn.BatchNorm2d]:
    """A batch normalisation as `parts` ones, by its channels."""
    known = expect_norm(norm)
    channels = torch.arange(known.num_features, device=known.weight.device)
    return [select_norm(known, run) for run in channels.chunk(parts)]


def join_norms(norms: Sequence[nn.Module]) -> nn.BatchNorm2d:
    """The norms of parts as the norm of their concatenation."""
    states = [norm.state_dict() for norm in norms]
    return norm_like(expect_norm(norms[0]), {key: torch.cat([state[key] for state in states]) for key in PER_CHANNEL})


def neutral_state(like: nn.BatchNorm2d, channels: int) -> dict[str, Tensor]:
    """The tensors of a norm that is the identity in evaluation."""
    zero = like.weight.detach().new_zeros(channels)
    weight = zero + math.sqrt(1 + like.eps)
    return {"weight": weight, "bias": zero, "running_mean": zero.clone(), "running_var": zero + 1}


def with_parts(layer: ConvNormAct, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> ConvNormAct:
    """The layer with another convolution and norm."""
    # the memo says what a part has already been copied to, so the old weights are not copied to be thrown away
    return copy.deepcopy(layer, {id(layer.conv): conv, id(layer.norm): norm})


def permute_outputs(layer: ConvNormAct, order: Tensor) -> ConvNormAct:
    """A dense layer with its output channels in another order."""
    conv = conv_like(layer.conv, layer.conv.weight[order], groups=1)
    return with_parts(layer, conv, select_norm(expect_norm(layer.norm), order))


def cut(layer: ConvNormAct, parts: int) -> list[ConvNormAct]:
    """The layer as `parts` layers side by side; see `cut_conv`."""
    pairs = zip(cut_conv(layer.conv, parts), cut_norm(layer.norm, parts), strict=True)
    return [with_parts(layer, conv, norm) for conv, norm in pairs]


def join(layers: Sequence[ConvNormAct], groups: int) -> ConvNormAct:
    """`cut` undone; see `join_convs`."""
    conv = join_convs([layer.conv for layer in layers], groups)
    return with_parts(layers[0], conv, join_norms([layer.norm for layer in layers]))
