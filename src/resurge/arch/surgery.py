"""Changes to a built network that are in nobody's signature: regularisation and normalisation.

Each function works on any module that contains blocks of this family (a backbone, a classifier, a detector), in
place, and keeps parameter names, so weights load before or after.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torchvision.ops import DropBlock2d, FrozenBatchNorm2d, StochasticDepth

from resurge.arch.backbone import Backbone
from resurge.arch.blocks import Residual
from resurge.arch.layers import BatchNorm2d, ConvNormAct
from resurge.errors import UserError, require_one_of

M = TypeVar("M", bound=nn.Module)


def backbones(model: nn.Module) -> list[Backbone]:
    """The backbones in a model; raises UserError if there is none."""
    found = [module for module in model.modules() if isinstance(module, Backbone)]
    if not found:
        raise UserError(f"expected a model with a resurge Backbone in it, got {type(model).__name__}.")
    return found


def replace_each(model: nn.Module, kind: type[M] | tuple[type[M], ...], build: Callable[[M], nn.Module]) -> nn.Module:
    """`model` with every module of this kind replaced by `build(module)`, innermost first, itself included.

    A module that stands in several places is built once, and the new one stands in all of them.
    """
    done: dict[nn.Module, nn.Module] = {}

    def visit(module: nn.Module) -> nn.Module:
        if module not in done:
            for name, child in list(module._modules.items()):  # named_children() leaves out a child's second name
                if child is not None and (new := visit(child)) is not child:
                    setattr(module, name, new)
            done[module] = build(module) if isinstance(module, kind) else module
        return done[module]

    return visit(model)


def _units(model: nn.Module) -> list[Residual]:
    return [module for module in model.modules() if isinstance(module, Residual)]


def _check_rate(what: str, rate: float) -> None:
    if not 0.0 <= rate < 1.0:
        raise UserError(f"{what} must be a probability from 0 up to, not including, 1; got {rate!r}.")


def set_drop_path(model: nn.Module, rate: float) -> None:
    """Drop residuals by sample, with a rate that grows linearly from 0 in the first block to `rate` in the last.

    Stochastic depth, arXiv:1603.09382, section 3. The shortcut is never dropped.
    """
    _check_rate("drop_path", rate)
    for backbone in backbones(model):
        units = _units(backbone)
        for i, unit in enumerate(units):
            own = rate * i / max(1, len(units) - 1)
            unit.drop_path = (StochasticDepth(own, "row") if own > 0 else nn.Identity()).train(unit.training)


def set_drop_block(model: nn.Module, rate: float, block_size: int = 3, stages: int = 2) -> None:
    """Drop square regions behind every norm of the residual branch in the last `stages` stages.

    DropBlock, arXiv:1810.12890; placed as the ResNeSt authors place it. Maps smaller than `block_size` are left
    alone. The other stages drop nothing, whatever an earlier call set.
    """
    _check_rate("drop_block", rate)
    if block_size < 1 or block_size % 2 == 0 or stages < 0:
        raise UserError(f"drop_block needs an odd block_size >= 1 and stages >= 0; got {block_size} and {stages}.")
    for backbone in backbones(model):
        first = len(backbone.stages) - stages
        for i, stage in enumerate(backbone.stages):
            on = rate > 0 and i >= first
            branches = [branch for unit in _units(stage) for branch in (unit.reduce, unit.transform, unit.expand)]
            for layer in (layer for branch in branches for layer in branch.modules()):
                if isinstance(layer, ConvNormAct):
                    drop = _SmallMapDropBlock(rate, block_size) if on else nn.Identity()
                    layer.drop = drop.train(layer.training)


class _SmallMapDropBlock(DropBlock2d):  # type: ignore[misc]
    """torchvision's DropBlock, off where the map is smaller than a block."""

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[-2:]) < self.block_size:
            return x
        y: Tensor = super().forward(x)
        return y


def zero_init_last(model: nn.Module) -> None:
    """Start every block as its shortcut: the last gamma of the residual branch is 0 (arXiv:1706.02677, section 5.1)."""
    for unit in (unit for backbone in backbones(model) for unit in _units(backbone)):
        if isinstance(unit.expand, ConvNormAct) and isinstance(unit.expand.norm.weight, Tensor):
            nn.init.zeros_(unit.expand.norm.weight)


# ------------------------------------------------------------------------------------------------------ norms


class SyncBatchNorm(nn.SyncBatchNorm):
    """`layers.BatchNorm2d` with statistics over all processes: one value in all of them has no variance."""

    def __init__(self, channels: int, eps: float, pooled: bool) -> None:
        super().__init__(channels, eps=eps)
        self.pooled = pooled

    def forward(self, x: Tensor) -> Tensor:
        alone = not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1)
        if self.training and alone and x.numel() == self.num_features:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        y: Tensor = super().forward(x)
        return y


def _group(channels: int, eps: float, pooled: bool) -> nn.Module:
    # A pooled map has one value per channel: a group must hold all of them, or it would normalise them to nothing.
    # Elsewhere up to 32 groups (arXiv:1803.08494, section 4.1) of at least two channels.
    groups = 1 if pooled else math.gcd(32, channels)
    if groups == channels and channels > 1:
        groups = channels // 2 if channels % 2 == 0 else 1
    return nn.GroupNorm(groups, channels, eps=eps)


NORMS: dict[str, Callable[[int, float, bool], nn.Module]] = {
    "batch": BatchNorm2d,
    "sync": SyncBatchNorm,
    "frozen": lambda channels, eps, pooled: FrozenBatchNorm2d(channels, eps=eps),
    "group": _group,
}


def convert_norm(model: nn.Module, kind: str) -> nn.Module:
    """Replace every normalisation by `kind`: "batch", "sync", "frozen" or "group". Returns the model.

    Scale and shift are kept, and whether they are trained; running statistics and their momentum are kept between the
    kinds of batch normalisation (frozen has no momentum), and lost on the way to group normalisation. The norms on 1x1
    maps inside attention keep their policy for a batch of one: batch and sync use their running statistics then,
    frozen always does, group normalises over all channels.

    Raises:
        UserError: `kind` is none of the four.
    """
    require_one_of("norm", kind, NORMS)
    kinds = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d, nn.GroupNorm)
    return replace_each(model, kinds, partial(_converted, kind))


def _converted(kind: str, old: Any) -> nn.Module:
    pooled = getattr(old, "pooled", False)
    weight = old.weight
    new: Any = NORMS[kind](weight.numel(), old.eps, pooled).to(weight.device, weight.dtype)
    new.pooled = pooled
    own = new.state_dict()
    own.update({key: value for key, value in old.state_dict().items() if key in own})
    new.load_state_dict(own)
    for key in ("weight", "bias"):
        if isinstance(getattr(old, key), nn.Parameter) and isinstance(getattr(new, key), nn.Parameter):
            getattr(new, key).requires_grad_(getattr(old, key).requires_grad)
    if hasattr(old, "momentum") and hasattr(new, "momentum"):
        new.momentum = old.momentum
    module: nn.Module = new.train(old.training)
    return module
