"""A convolution with its bias, its ReLU and the residual sum as one kernel of cuDNN.

PyTorch in eager mode adds the bias of a convolution on a GPU in a kernel of its own. In bf16 it costs more than the
batch normalisation that was folded into it, so folding alone makes a network slower there. cuDNN has both as one:

    y = relu(W x + b)          torch.cudnn_convolution_relu
    y = relu(W x + b + z)      torch.cudnn_convolution_add_relu, z the shortcut of a residual block

The bias of a projection shortcut is added to b. On other devices, and where cuDNN has no such kernel, the modules here
compute the same with PyTorch's own operators.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from resurge.arch.blocks import Residual
from resurge.optimize.passes.walking import replace_each


class ConvReLU(nn.Module):
    """relu(conv(x)), or relu(conv(x) + z): (N, cin, H, W), and z of the output's shape -> (N, cout, h, w)."""

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
    padding = conv.padding
    if isinstance(padding, str):
        return None
    shape = (conv.stride, padding, conv.dilation, conv.groups)
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
        self.reduce = block.reduce
        self.transform = block.transform
        self.shortcut = block.shortcut
        self.expand = ConvReLU(expand)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.expand(self.transform(self.reduce(x)), self.shortcut(x))
        return y


def fuse_convolutions(model: nn.Module, *, grouped: bool = True) -> nn.Module:
    """Convolutions with a bias that are followed by a ReLU, or by the sum and the ReLU of a residual block.

    Args:
        grouped: grouped convolutions too; cuDNN has slower kernels for them, or none.
    """

    def fits(layer: nn.Module | None) -> bool:
        return (
            type(layer) is nn.Conv2d
            and layer.bias is not None
            and layer.padding_mode == "zeros"
            and (grouped or layer.groups == 1)
        )

    def in_row(row: nn.Module) -> nn.Module:
        if type(row) is not nn.Sequential:
            return row
        layers: list[nn.Module] = []
        for layer in row:
            if type(layer) is nn.ReLU and layers and fits(layers[-1]):
                layers[-1] = ConvReLU(layers[-1])  # type: ignore[arg-type]
            else:
                layers.append(layer)
        return row if len(layers) == len(row) else layers[0] if len(layers) == 1 else nn.Sequential(*layers)

    def in_block(block: nn.Module) -> nn.Module:
        assert isinstance(block, Residual)
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
