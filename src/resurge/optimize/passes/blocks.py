"""Passes on residual blocks: squeeze-and-excitation, Res2, and the kernels of cuDNN."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from resurge.arch.blocks import Residual
from resurge.arch.gates import SqueezeExciteGate
from resurge.arch.layers import global_pool
from resurge.arch.slicing import conv_like
from resurge.arch.surgery import replace_each
from resurge.arch.transforms import Res2Conv, res2
from resurge.optimize.passes.layers import by_outputs, is_plain, on_each, row

# ---------------------------------------------------------------------------------------------- squeeze-and-excitation


class GatedExpand(nn.Module):
    """A 1x1 expansion whose outputs are scaled by what its pooled input says: (N, C, H, W) -> (N, C', H, W)."""

    def __init__(self, expand: nn.Module, squeeze: nn.Module, excite: nn.Conv2d) -> None:
        super().__init__()
        self.expand, self.squeeze, self.excite = expand, squeeze, excite

    def forward(self, t: Tensor) -> Tensor:
        scale = self.excite(self.squeeze(global_pool(t))).sigmoid()
        y: Tensor = self.expand(t) * scale
        return y


@on_each(Residual)
def early_squeeze(block: Residual) -> nn.Module:
    """Squeeze-and-excitation behind a 1x1 expansion pools the expansion's input, which is narrower or as narrow.

    A mean over space commutes with a 1x1 convolution y = W t + b: fc1(pool(y)) = (fc1 W) pool(t) + fc1(b).
    """
    expand, gate = block.expand, block.gate
    if not isinstance(gate, SqueezeExciteGate) or not is_plain(expand):
        return block
    conv = expand.conv
    one_to_one = conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.groups == 1
    if not one_to_one or not isinstance(expand.act, nn.Identity):
        return block
    exact = gate.fc1.weight.double()[..., 0, 0]
    bias = exact.new_zeros(gate.fc1.out_channels) if gate.fc1.bias is None else gate.fc1.bias.double()
    if conv.bias is not None:
        bias = bias + exact @ conv.bias.double()
    weight = (exact @ conv.weight.double()[..., 0, 0])[..., None, None]
    like = conv.weight.dtype
    squeeze = conv_like(gate.fc1, weight.to(like), groups=1, bias=bias.to(like))
    block.expand = GatedExpand(conv, row([squeeze, gate.act]), gate.fc2)
    block.gate = nn.Identity()
    return block


# ---------------------------------------------------------------------------------------------------------------- Res2


class PieceByPiece(nn.Module):
    """`Res2Conv` and the reduction before it, as a reduction of the whole input for each piece, without slices."""

    def __init__(self, reductions: Sequence[nn.Module], conv: Res2Conv) -> None:
        super().__init__()
        self.reductions = nn.ModuleList(reductions)
        self.convs, self.pool, self.carries = conv.convs, conv.pool, conv.carries

    def forward(self, x: Tensor) -> Tensor:
        return res2([reduce(x) for reduce in self.reductions], self.convs, self.pool, self.carries)


@on_each(Residual)
def separate_pieces(block: Residual) -> nn.Module:
    """The reduction before a Res2 transform becomes one for each piece."""
    reduce, conv = block.reduce, block.transform
    if isinstance(conv, Res2Conv) and isinstance(conv.adapt, nn.Identity) and is_plain(reduce):
        block.transform, block.reduce = PieceByPiece(by_outputs(reduce, conv.scale), conv), nn.Identity()
    return block


# ---------------------------------------------------------------------------------------------------- kernels of cuDNN
# PyTorch in eager mode adds the bias of a convolution on a GPU in a kernel of its own. In bf16 it costs more than the
# batch normalisation that was folded into it, so folding alone makes a network slower there. cuDNN has both as one:
#     y = relu(W x + b)          torch.cudnn_convolution_relu
#     y = relu(W x + b + z)      torch.cudnn_convolution_add_relu, z the shortcut of a residual block


class ConvReLU(nn.Module):
    """relu(conv(x)), or relu(conv(x) + z): (N, cin, H, W), and z of the output's shape -> (N, cout, h, w).

    One kernel on a GPU; on other devices, and where cuDNN has no such kernel, PyTorch's own operators.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        # the kernels have no derivative, and a compiler fuses by itself
        if x.is_cuda and not x.requires_grad and not torch.compiler.is_compiling():
            found = cudnn_conv_relu(self.conv, x, z)
            if found is not None:
                return found
        y: Tensor = self.conv(x)
        return torch.relu_(y if z is None else y.add_(z))


def cudnn_conv_relu(conv: nn.Conv2d, x: Tensor, z: Tensor | None) -> Tensor | None:
    """`ConvReLU` by cuDNN, on a GPU; None where cuDNN has no kernel for this type or these shapes."""
    if isinstance(conv.padding, str):
        return None
    shape = (conv.stride, conv.padding, conv.dilation, conv.groups)
    try:
        if z is None:
            return torch.cudnn_convolution_relu(x, conv.weight, conv.bias, *shape)
        return torch.cudnn_convolution_add_relu(x, conv.weight, z, 1.0, conv.bias, *shape)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return None


class FusedResidual(nn.Module):
    """`Residual` whose last convolution adds the shortcut and applies the ReLU: relu(expand(transform(...)) + z)."""

    def __init__(self, block: Residual, expand: nn.Conv2d) -> None:
        super().__init__()
        self.reduce, self.transform, self.shortcut = block.reduce, block.transform, block.shortcut
        self.expand = ConvReLU(expand)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.expand(self.transform(self.reduce(x)), self.shortcut(x))
        return y


def fuse_convolutions(model: nn.Module, *, grouped: bool = True) -> nn.Module:
    """Convolutions with a bias that are followed by a ReLU, or by the sum and the ReLU of a residual block.

    Args:
        grouped: grouped convolutions too; cuDNN has slower kernels for them, or none.
    """

    def fits(layer: nn.Module) -> bool:
        if type(layer) is not nn.Conv2d or layer.bias is None:
            return False
        return layer.padding_mode == "zeros" and (grouped or layer.groups == 1)

    def in_row(layers: nn.Sequential) -> nn.Module:
        if type(layers) is not nn.Sequential:
            return layers
        fused: list[nn.Module] = []
        for layer in layers:
            if type(layer) is nn.ReLU and fused and fits(fused[-1]):
                fused[-1] = ConvReLU(fused[-1])  # type: ignore[arg-type]
            else:
                fused.append(layer)
        return layers if len(fused) == len(layers) else row(fused)

    def in_block(block: Residual) -> nn.Module:
        plain = isinstance(block.gate, nn.Identity) and isinstance(block.drop_path, nn.Identity)
        expand = block.expand
        if not plain or type(block.act) is not nn.ReLU or type(expand) is not nn.Conv2d or not fits(expand):
            return block
        _take_bias(expand, block.shortcut)
        return FusedResidual(block, expand)

    return replace_each(replace_each(model, nn.Sequential, in_row), Residual, in_block)


def _take_bias(expand: nn.Conv2d, shortcut: nn.Module) -> None:
    """The bias of a projection shortcut becomes part of that of the expansion."""
    last = shortcut[-1] if type(shortcut) is nn.Sequential and len(shortcut) else shortcut
    if type(last) is nn.Conv2d and last.bias is not None and expand.bias is not None:
        both = (expand.bias.double() + last.bias.double()).to(expand.bias.dtype)
        expand.bias = nn.Parameter(both, requires_grad=False)
        last.bias = None
