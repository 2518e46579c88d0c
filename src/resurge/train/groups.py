"""Which parameters are trained, how fast, and which are decayed."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from resurge.arch.backbone import backbone_of
from resurge.errors import UserError
from resurge.recipe import Recipe


def parts(model: nn.Module) -> list[nn.Module]:
    """The stem and the stages of a model's backbone, in the order of the computation."""
    backbone = backbone_of(model)
    return [backbone.stem, *backbone.stages]


def freeze(model: nn.Module, count: int) -> list[nn.Module]:
    """Stop training the first `count` of stem and stages; returns them.

    Their parameters get no gradient. Their normalisation must also stay in evaluation mode while the rest trains:
    call `.eval()` on the returned modules whenever the model was put into training mode.

    Raises:
        UserError: the backbone has fewer parts.
    """
    available = parts(model)
    if count > len(available):
        raise UserError(
            f"freeze={count}, but this network has {len(available)} parts (the stem and {len(available) - 1} stages)."
        )
    for part in available[:count]:
        part.requires_grad_(False)
    return available[:count]


def depths(model: nn.Module) -> dict[str, int]:
    """Depth of every parameter for layer-wise learning rates: 0 the stem, then one a block, the head the deepest."""
    found: dict[str, int] = {}
    blocks = [child for part in parts(model)[1:] for child in part.children()]
    owners: list[tuple[nn.Module, int]] = [(parts(model)[0], 0)]
    owners += [(block, index + 1) for index, block in enumerate(blocks)]
    by_identity = {id(parameter): depth for module, depth in owners for parameter in module.parameters()}
    for name, parameter in model.named_parameters():
        found[name] = by_identity.get(id(parameter), len(blocks) + 1)
    return found


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Optimizer groups; each has `params`, `weight_decay` and `lr_scale`.

    Biases and everything of a normalisation (all tensors with fewer than two axes) are not decayed, as in He et al.
    2019, "Bag of tricks", section 3.1. A parameter at depth d of D learns at `layer_decay ** (D - d)` of the rate
    (Clark et al. 2020 and Bao et al. 2022 use it for fine-tuning). Frozen parameters are in no group.
    """
    depth_of = depths(model)
    deepest = max(depth_of.values())
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (weight_decay if parameter.ndim > 1 else 0.0, layer_decay ** (deepest - depth_of[name]))
            groups.setdefault(key, []).append(parameter)
    return [{"params": params, "weight_decay": decay, "lr_scale": scale} for (decay, scale), params in groups.items()]


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over :func:`parameter_groups`.

    Raises:
        UserError: nothing is left to train.
    """
    setting = recipe.optimization
    groups = parameter_groups(model, setting.weight_decay, setting.layer_decay)
    if not groups:
        raise UserError("every parameter is frozen; lower freeze.")
    lr = recipe.peak_lr()
    if setting.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr)
    return torch.optim.SGD(groups, lr=lr, momentum=setting.momentum, nesterov=setting.nesterov)
