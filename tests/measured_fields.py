"""Receptive fields measured from gradients: the independent side of the tests of `resurge.explain.receptive`."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from resurge.arch.deformable import OffsetConv2d
from resurge.arch.gates import SqueezeExciteGate
from resurge.arch.layers import BranchAttention
from resurge.errors import UserError


class _EqualWeights(nn.Module):
    """What stands for attention while gradients are measured: all branches alike, whatever the input."""

    def __init__(self, branches: int) -> None:
        super().__init__()
        self.branches = branches

    def forward(self, pooled: Tensor) -> Tensor:
        n, c = pooled.shape[:2]
        return pooled.new_full((n, self.branches, c, 1, 1), 1.0 / self.branches)


def positive_copy(module: nn.Module) -> nn.Module:
    """A copy in float64 in which nothing cancels and nothing saturates: its gradients show every path there is.

    Convolutions average with equal positive weights, norms and dropout are identities, attention is constant and
    gates are open; max pools average. With a non-negative input every ReLU then passes everything.
    """
    twin = copy.deepcopy(module).double().eval()
    _make_positive(twin)
    return twin


def _make_positive(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, BranchAttention):
            setattr(module, name, _EqualWeights(child.branches))
        elif isinstance(child, nn.modules.batchnorm._NormBase | nn.GroupNorm | SqueezeExciteGate) or name in (
            "norm",
            "drop",
            "drop_path",
        ):
            setattr(module, name, nn.Identity())
        elif isinstance(child, nn.MaxPool2d):
            # A maximum passes one pixel of its window on; the mean passes all that it could have been.
            setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
        else:
            _make_positive(child)
    if isinstance(module, OffsetConv2d):
        module.reset_parameters()
    elif isinstance(module, nn.Conv2d):
        with torch.no_grad():
            module.weight.fill_(1.0 / module.weight[0].numel())
            if module.bias is not None:
                module.bias.zero_()


def sensitivity(
    module: nn.Module, in_channels: int, size: int, *, channels: slice = slice(None), output: int | None = None
) -> Tensor:
    """How much the middle of the output depends on every input pixel: (size, size), float64, largest value 1.

    Args:
        module: maps (1, in_channels, size, size) to (1, C, h, w); `output` names the map when it returns several.
        channels: which output channels are asked.

    The gradient of the sum of the asked channels at the middle pixel, through `positive_copy(module)`.
    """
    twin = positive_copy(module)
    image = torch.ones(1, in_channels, size, size, dtype=torch.float64, requires_grad=True)
    # A module may work in place on what it is given, which a leaf does not allow.
    y = twin(image * 1.0)
    result: Tensor = y if output is None else y[output]
    middle = result[0, channels, result.shape[2] // 2, result.shape[3] // 2].sum()
    (gradient,) = torch.autograd.grad(middle, image)
    seen = gradient[0].abs().sum(dim=0)
    peak = seen.max()
    return seen / peak if peak > 0 else seen


def measured_field(
    module: nn.Module, in_channels: int, size: int, *, channels: slice = slice(None), output: int | None = None
) -> tuple[int, int]:
    """Height and width of the input window that the middle output pixel depends on; see `sensitivity`.

    Raises:
        UserError: the window reaches the border, so that `size` hides how large it is.
    """
    seen = sensitivity(module, in_channels, size, channels=channels, output=output) > 0
    rows, columns = seen.any(dim=1).nonzero().flatten(), seen.any(dim=0).nonzero().flatten()
    if len(rows) == 0:
        return 0, 0
    edges = (int(rows[0]), int(columns[0]), size - 1 - int(rows[-1]), size - 1 - int(columns[-1]))
    if min(edges) == 0:
        raise UserError(f"the receptive field is not smaller than the input of {size} pixels. Give a larger size.")
    return int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1


def branch_fields(
    transform: nn.Module, in_channels: int, out_channels: int, branches: int, size: int = 65
) -> list[int]:
    """The measured field of each of the `branches` equal runs of output channels of a transform.

    For a later block of Res2Net with scale 4 this is [3, 5, 7, 1]: the first convolution sees 3 pixels, each further
    one adds two by the carry, and the last piece passes as it is (arXiv:1904.01169, section 3.1).

    Raises:
        UserError: the channels cannot be divided, or `size` is too small.
    """
    if branches < 1 or out_channels % branches:
        raise UserError(f"{out_channels} channels cannot be divided into {branches} equal branches.")
    run = out_channels // branches
    return [
        max(measured_field(transform, in_channels, size, channels=slice(i * run, (i + 1) * run)))
        for i in range(branches)
    ]
