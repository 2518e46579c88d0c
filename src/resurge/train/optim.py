"""Parameter groups, frozen layers, the optimizer, and the moving average of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TypedDict

import torch
from torch import Tensor, nn

from resurge.arch.backbone import backbone_of
from resurge.errors import UserError
from resurge.recipe import Recipe


class EmaState(TypedDict):
    """An :class:`Ema` as plain tensors and numbers."""

    steps: int
    average: dict[str, Tensor]


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
    """Depth per parameter for layer-wise learning rates: 0 for the stem, one more per block, the head deepest."""
    stem, *stages = parts(model)
    layers = [stem, *(block for stage in stages for block in stage.children())]
    depth_of = {id(parameter): depth for depth, layer in enumerate(layers) for parameter in layer.parameters()}
    return {name: depth_of.get(id(parameter), len(layers)) for name, parameter in model.named_parameters()}


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, object]]:
    """Parameter groups of a model.

    Biases and everything of a normalisation (all tensors with fewer than two axes) are not decayed, as in He et al.
    2019, "Bag of tricks", section 3.1. A parameter at depth d of D learns at `layer_decay ** (D - d)` of the rate, its
    `lr_scale` (Clark et al. 2020 and Bao et al. 2022 use it for fine-tuning). Frozen parameters are in no group.
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
    """The recipe's optimizer over :func:`parameter_groups`; raises UserError if nothing is left to train."""
    setting = recipe.optimization
    groups = parameter_groups(model, setting.weight_decay, setting.layer_decay)
    if not groups:
        raise UserError("every parameter is frozen; lower freeze.")
    lr = recipe.peak_lr()
    if setting.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr)
    return torch.optim.SGD(groups, lr=lr, momentum=setting.momentum, nesterov=setting.nesterov)


class Ema:
    """Exponential moving average of a model's parameters and buffers (Polyak and Juditsky 1992; Tan and Le 2019).

    `average += (1 - d) * (value - average)` after every optimizer step, with d = min(decay, (1 + t) / (10 + t)) in step
    t, so that the initial values are forgotten soon. Running statistics are averaged too; counters are copied.
    torch's `AveragedModel` takes the first update as the start of the average and keeps the number of updates in a
    tensor, which a GPU would have to be asked for in each step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.average = _copy(model.state_dict())

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Average the model's values in, after an optimizer step."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        averages: list[Tensor] = []
        values: list[Tensor] = []
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                averages.append(self.average[name])
                values.append(value)
            else:
                self.average[name].copy_(value)
        torch._foreach_lerp_(averages, values, 1.0 - decay)

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model has the averaged values inside the block, and exactly its own after it."""
        own = _copy(model.state_dict())
        _assign(model, self.average)
        try:
            yield
        finally:
            _assign(model, own)

    def state_dict(self) -> EmaState:
        """Plain tensors and numbers."""
        return {"steps": self.steps, "average": dict(self.average)}

    def load_state_dict(self, state: EmaState) -> None:
        """Continue from `state_dict()`; tensors are copied into place, so they stay on their device."""
        self.steps = state["steps"]
        for name, value in state["average"].items():
            self.average[name].copy_(value)


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


@torch.no_grad()
def _assign(model: nn.Module, values: dict[str, Tensor]) -> None:
    for name, own in model.state_dict().items():
        own.copy_(values[name])
