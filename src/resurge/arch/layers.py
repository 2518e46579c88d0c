"""The few layers that every member shares."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvNormAct(nn.Module):
    """Convolution, normalisation, DropBlock slot, activation: (N, cin, H, W) -> (N, cout, ~H/stride, ~W/stride).

    The convolution has no bias (the norm has one) and is padded so that only the stride changes the size.
    """

    def __init__(
        self, cin: int, cout: int, kernel: int, *, stride: int = 1, dilation: int = 1, groups: int = 1, act: bool = True
    ) -> None:
        super().__init__()
        padding = dilation * (kernel - 1) // 2
        self.conv = nn.Conv2d(cin, cout, kernel, stride, padding, dilation, groups, bias=False)
        self.norm: nn.Module = BatchNorm2d(cout)
        self.drop: nn.Module = nn.Identity()  # surgery.set_drop_block fills it; between norm and act as in ResNeSt
        self.act: nn.Module = nn.ReLU(inplace=True) if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.drop(self.norm(self.conv(x))))
        return y


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that survives a single value per channel in training.

    One value has no variance. It comes up where attention sees globally pooled (1, C, 1, 1) maps, and where a small
    image shrinks to one pixel. Such a batch is normalised by the running statistics, as in evaluation, and leaves
    them as they are. Any larger batch is treated by the usual batch statistics.

    `pooled` says that the norm only ever sees 1x1 maps; `surgery.convert_norm` chooses by it.
    """

    def __init__(self, channels: int, eps: float = 1e-5, pooled: bool = False) -> None:
        super().__init__(channels, eps=eps)
        self.pooled = pooled

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == self.num_features:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        y: Tensor = super().forward(x)
        return y


class BranchAttention(nn.Module):
    """Channel-wise weights over R branches, from their pooled sum: (N, C, 1, 1) -> (N, R, C, 1, 1).

    With K groups, z = fc2(relu(norm(fc1(s)))) is cardinality-major, (K, R, C/K); a softmax over R makes the
    weights of every channel sum to one (ResNeSt, arXiv:2004.08955, equations 2 and 3; SKNet, arXiv:1903.06586,
    equations 3 to 6 is K = 1). One branch has nothing to be compared with, so R = 1 is a sigmoid, which is
    squeeze-and-excitation.
    """

    def __init__(self, channels: int, hidden: int, branches: int, *, groups: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.branches = branches
        self.groups = groups
        self.fc1 = nn.Conv2d(channels, hidden, 1, groups=groups, bias=bias)
        self.norm: nn.Module = BatchNorm2d(hidden, pooled=True)
        self.act: nn.Module = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(hidden, channels * branches, 1, groups=groups, bias=bias)

    def forward(self, pooled: Tensor) -> Tensor:
        n, c = pooled.shape[:2]
        z = self.fc2(self.act(self.norm(self.fc1(pooled))))
        z = z.reshape(n, self.groups, self.branches, c // self.groups)
        weights: Tensor = z.sigmoid() if self.branches == 1 else z.softmax(dim=2)
        return weights.transpose(1, 2).reshape(n, self.branches, c, 1, 1)


def global_pool(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 1, 1), the mean over space."""
    return x.mean((2, 3), keepdim=True)


def fuse(branches: Sequence[Tensor], weights: Tensor) -> Tensor:
    """The weighted sum of R maps (N, C, H, W) by (N, R, C, 1, 1).

    Works on channel slices, never on a five-dimensional view, because that would leave channels-last. Two weights
    that sum to one are an interpolation, and that is a single pass over memory.

    The sum is in the type of the branches: autocast on a GPU computes a softmax in float32 and would leave the weights
    in it, which `lerp` refuses and which would widen every map.
    """
    weights = weights.to(branches[0].dtype)
    if len(branches) == 2:
        return torch.lerp(branches[1], branches[0], weights[:, 0])
    y = branches[0] * weights[:, 0]
    for r in range(1, len(branches)):
        y = torch.addcmul(y, branches[r], weights[:, r])
    return y


def round_channels(value: float, divisor: int, keep: float = 0.0) -> int:
    """`value` rounded to the nearest multiple of `divisor`, at least one; never below `keep * value`."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < keep * value else rounded
