"""Attention over branches in the forms that runtimes and caches like.

Legend: u_r the maps of the R branches, s = sum_r pool(u_r) their pooled sum, g = relu(fc1(s)) with the norm folded.

    R = 2      softmax(z)_0 = sigmoid(z_0 - z_1), so with fc2' = fc2_0 - fc2_1 (weights and biases)
               y = u_1 + sigmoid(fc2'(g)) * (u_0 - u_1)
    R = 1      y = sigmoid(fc2(g)) * u_0
    else       y = sum_r softmax(z)_r * u_r, the softmax over the third of four dimensions

The weights are constant over a channel, so an average pool behind the weighted sum is the weighted sum of average
pools.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from resurge.arch.blocks import Residual
from resurge.arch.layers import BranchAttention, global_pool
from resurge.arch.slicing import conv_like
from resurge.arch.surgery import replace_each
from resurge.arch.transforms import PooledTransform, SelectiveKernelConv, SplitAttentionConv
from resurge.optimize.kernels import mix_pair
from resurge.optimize.passes.layers import by_outputs, is_plain, on_each, row

# ------------------------------------------------------------------------------------------------ where maps come from


class Chunked(nn.Module):
    """One layer whose output is cut into R maps: (N, C', H, W) -> R times (N, C, h, w)."""

    def __init__(self, layer: nn.Module, parts: int) -> None:
        super().__init__()
        self.layer, self.parts = layer, parts

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        result: Sequence[Tensor] = self.layer(x).chunk(self.parts, dim=1)
        return result


class Parallel(nn.Module):
    """R layers side by side, each on the whole input."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        return [layer(x) for layer in self.layers]


class Channels(nn.Module):
    """Run `index` of `parts` equal runs of channels."""

    def __init__(self, index: int, parts: int) -> None:
        super().__init__()
        self.index, self.parts = index, parts

    def forward(self, x: Tensor) -> Tensor:
        width = x.shape[1] // self.parts
        return x[:, self.index * width : (self.index + 1) * width]


# ------------------------------------------------------------------------------------------------------- the attention


class PairWeights(nn.Module):
    """(N, C, 1, 1), the pooled sum of two maps -> the weight of the first, (N, C, 1, 1): the sigmoid of `logits`."""

    def __init__(self, squeeze: nn.Module, difference: nn.Conv2d) -> None:
        super().__init__()
        self.squeeze, self.difference = squeeze, difference

    def logits(self, pooled: Tensor) -> Tensor:
        z: Tensor = self.difference(self.squeeze(pooled))
        return z

    def forward(self, pooled: Tensor) -> Tensor:
        return self.logits(pooled).sigmoid()


class RunWeights(nn.Module):
    """(N, C, 1, 1), the pooled sum of R maps -> R weights (N, C, 1, 1) that sum to one; of one map, a sigmoid."""

    def __init__(self, squeeze: nn.Module, excite: nn.Conv2d, branches: int) -> None:
        super().__init__()
        self.squeeze, self.excite, self.branches = squeeze, excite, branches

    def forward(self, pooled: Tensor) -> Sequence[Tensor]:
        z = self.excite(self.squeeze(pooled))
        if self.branches == 1:
            return [z.sigmoid()]
        runs = torch.stack(z.flatten(1).chunk(self.branches, dim=1), dim=2).softmax(dim=2)
        return [weight[..., None] for weight in runs.split(1, dim=2)]  # type: ignore[no-untyped-call]


class Mixed(nn.Module):
    """The weighted sum of the maps of `source`, pooled one by one before it where `pool` does something.

    With `joint`, the weights are made from the pooled maps behind each other, (N, R C, 1, 1), instead of their sum.
    """

    def __init__(
        self, source: Chunked | Parallel, weights: PairWeights | RunWeights, pool: nn.Module, joint: bool = False
    ) -> None:
        super().__init__()
        self.source, self.weights, self.pool, self.joint = source, weights, pool, joint

    def forward(self, x: Tensor) -> Tensor:
        maps: Sequence[Tensor]
        if self.joint and isinstance(self.source, Chunked):
            u = self.source.layer(x)
            pooled = global_pool(u)
            maps = u.chunk(self.source.parts, dim=1)
        else:
            maps = self.source(x)
            pooled = global_pool(maps[0])
            for u in maps[1:]:
                pooled = pooled + global_pool(u)
        return self.mix([self.pool(u) for u in maps], pooled)

    def mix(self, maps: Sequence[Tensor], pooled: Tensor) -> Tensor:
        """The weighted sum of maps (N, C, H, W), the weights from what was pooled."""
        weights = self.weights(pooled)
        if isinstance(self.weights, PairWeights):
            # one pass over memory; an exporter would write lerp out with a weight of its own
            eager = not torch.compiler.is_compiling()
            return torch.lerp(maps[1], maps[0], weights) if eager else maps[1] + weights * (maps[0] - maps[1])
        mixed = maps[0] * weights[0]
        for u, weight in zip(maps[1:], weights[1:], strict=True):
            mixed = mixed + u * weight
        result: Tensor = mixed
        return result


def flat_attention(model: nn.Module) -> nn.Module:
    """Split attention and selective kernels with weights of four dimensions, and two branches by one sigmoid."""
    return replace_each(model, (SplitAttentionConv, SelectiveKernelConv), _mixed)


def _mixed(module: nn.Module) -> nn.Module:
    assert isinstance(module, SplitAttentionConv | SelectiveKernelConv)
    attention = module.attention
    parts = attention.branches
    source: Chunked | Parallel
    if isinstance(module, SplitAttentionConv):
        source = Chunked(module.split, parts)
    elif module.split_input:
        source = Parallel([nn.Sequential(Channels(i, parts), layer) for i, layer in enumerate(module.branches)])
    else:
        source = Parallel(list(module.branches))
    return Mixed(source, _weights(attention), nn.Identity())


def _weights(attention: BranchAttention) -> PairWeights | RunWeights:
    squeeze = row([attention.fc1, attention.norm, attention.act])
    # From cardinality-major, (K, R, C/K), to the order of the maps, (R, K, C/K).
    excite, (k, r) = attention.fc2, (attention.groups, attention.branches)
    weight = excite.weight.unflatten(0, (k, r, -1))  # type: ignore[no-untyped-call]
    bias = None if excite.bias is None else excite.bias.unflatten(0, (k, r, -1))  # type: ignore[no-untyped-call]
    if r == 2:
        # a difference of floats is best taken in double precision
        less = (weight[:, 0].double() - weight[:, 1].double()).to(weight.dtype).flatten(0, 1)
        shift = None if bias is None else (bias[:, 0].double() - bias[:, 1].double()).to(bias.dtype).flatten(0, 1)
        return PairWeights(squeeze, conv_like(excite, less, groups=k, bias=shift))
    if k > 1:
        # Groups are runs of the outputs, and the order of the maps takes a group apart: r layers in k groups are one
        # dense layer, on a map of a single pixel.
        dense = weight.new_zeros(r, k, weight.shape[2], k, weight.shape[3], 1, 1)
        for group in range(k):
            dense[:, group, :, group] = weight[group]
        weight = dense.flatten(3, 4).flatten(0, 2)
    else:
        weight = weight.flatten(0, 2)
    turned = None if bias is None else bias.transpose(0, 1).flatten()
    return RunWeights(squeeze, conv_like(excite, weight, groups=1, bias=turned), r)


@on_each(PooledTransform)
def pool_before_mix(module: PooledTransform) -> nn.Module:
    """An average pool behind a weighted sum moves before it; the attention still sees the maps as they were."""
    inner = module.inner
    if isinstance(module.pool, nn.Identity):
        return inner
    if isinstance(inner, Mixed) and isinstance(module.pool, nn.AvgPool2d) and not module.before:
        return Mixed(inner.source, inner.weights, row([inner.pool, module.pool]))
    return row([module.pool, inner] if module.before else [inner, module.pool])


def separate_splits(model: nn.Module) -> nn.Module:
    """A convolution for each split, and before it a reduction for each, instead of slices of one wide map."""
    model = replace_each(model, Mixed, _split_source)
    return replace_each(model, Residual, _reduce_each)


def _split_source(module: Mixed) -> nn.Module:
    if not isinstance(module.source, Chunked):
        return module
    layer, parts = module.source.layer, module.source.parts
    if not is_plain(layer) or layer.conv.groups % parts:
        return module
    layers = [nn.Sequential(Channels(r, parts), conv) for r, conv in enumerate(by_outputs(layer, parts))]
    return Mixed(Parallel(layers), module.weights, module.pool)


def _reduce_each(block: Residual) -> nn.Module:
    """The slices at the head of the parallel layers become reductions of their own."""
    source, reduce = getattr(block.transform, "source", None), block.reduce
    if not isinstance(source, Parallel) or not is_plain(reduce):
        return block
    rows = [each for each in source.layers if isinstance(each, nn.Sequential) and isinstance(each[0], Channels)]
    if len(rows) == len(source.layers):
        pieces = by_outputs(reduce, len(rows))
        source.layers = nn.ModuleList(row([piece, *each[1:]]) for piece, each in zip(pieces, rows, strict=True))
        block.reduce = nn.Identity()
    return block


# ---------------------------------------------------------------------------------------------------- on joint branches


@on_each(Mixed)
def joint_pool(module: Mixed) -> nn.Module:
    """Branches that come from one layer are pooled by one mean: fc1(sum_r pool(u_r)) = [fc1 ... fc1] pool(u)."""
    squeeze = module.weights.squeeze
    first, *rest = squeeze if isinstance(squeeze, nn.Sequential) else [squeeze]
    if not isinstance(module.source, Chunked) or module.joint or type(first) is not nn.Conv2d:
        return module
    if first.groups == 1:  # groups are runs of the channels of one branch
        wide = conv_like(first, torch.cat([first.weight] * module.source.parts, dim=1), groups=1, bias=first.bias)
        module.weights.squeeze = row([wide, *rest])
        module.joint = True
    return module


class FusedMixed(Mixed):
    """`Mixed` of two branches whose sigmoid and sum are one kernel on a GPU."""

    def mix(self, maps: Sequence[Tensor], pooled: Tensor) -> Tensor:
        assert isinstance(self.weights, PairWeights)
        result: Tensor = mix_pair(maps[0], maps[1], self.weights.logits(pooled))
        return result


@on_each(Mixed)
def fused_mix(module: Mixed) -> nn.Module:
    """The sigmoid and the weighted sum of two branches become one kernel; see `resurge.optimize.kernels`."""
    pair = isinstance(module.weights, PairWeights)
    return FusedMixed(module.source, module.weights, module.pool, module.joint) if pair else module


class Scaled(nn.Module):
    """The maps of two branches behind each other, each scaled by its weight: (N, cin, H, W) -> (N, 2 C, h, w).

    excite: both weights at once, since 1 - sigmoid(z) = sigmoid(-z).
    """

    def __init__(self, layer: nn.Module, weights: PairWeights, pool: nn.Module) -> None:
        super().__init__()
        half = weights.difference
        bias = None if half.bias is None else torch.cat([half.bias, -half.bias])
        self.layer, self.squeeze, self.pool = layer, weights.squeeze, pool
        self.excite = conv_like(half, torch.cat([half.weight, -half.weight]), groups=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        u = self.layer(x)
        weights = self.excite(self.squeeze(global_pool(u))).sigmoid()
        y: Tensor = self.pool(u) * weights
        return y


class ScaledSum(Scaled):
    """The sum of the two scaled maps, (N, C, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = super().forward(x).chunk(2, dim=1)
        return first + second


def _pair(module: nn.Module) -> tuple[nn.Module, PairWeights, nn.Module] | None:
    """What `Scaled` is made of, if the module is the weighted sum of two branches of one layer, K = 1."""
    if not isinstance(module, Mixed) or not module.joint or not isinstance(module.source, Chunked):
        return None
    weights = module.weights
    if not isinstance(weights, PairWeights) or weights.difference.groups > 1:
        return None
    return module.source.layer, weights, module.pool


def absorb_mix(model: nn.Module, widest: int | None = None) -> nn.Module:
    """The sum of two weighted branches is taken by the expansion behind it: W (a u_0 + b u_1) = [W W] [a u_0; b u_1].

    More products, but one multiplication of the map in place of a slice, a difference, a product and a sum. The
    products grow with the square of the width, the rest with the width; `widest` is up to how many channels of a branch
    it is done, None for all.
    """

    def absorbed(block: Residual) -> nn.Module:
        pair, expand = _pair(block.transform), block.expand
        if pair is None or not is_plain(expand):
            return block
        conv = expand.conv
        if conv.groups == 1 and (widest is None or conv.in_channels <= widest):
            block.transform = Scaled(*pair)
            expand.conv = conv_like(conv, torch.cat([conv.weight, conv.weight], dim=1), groups=1, bias=conv.bias)
        return block

    return replace_each(model, Residual, absorbed)


@on_each(Mixed)
def one_product(module: Mixed) -> nn.Module:
    """Both weights of two branches from one sigmoid, one product of both maps, and the sum of its halves."""
    pair = _pair(module)
    return module if pair is None else ScaledSum(*pair)
