"""Parameter groups, frozen layers, the optimizer, its learning rate, and the moving average of the weights."""

from __future__ import annotations

import bisect
import copy
import math
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor, nn

from resurge.arch.backbone import backbone_of
from resurge.errors import UserError
from resurge.recipe import Optimization, Recipe


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


@dataclass(frozen=True)
class Length:
    """The extent of a training, counted in optimizer steps.

    `batches` per device and epoch; the last step of an epoch may have fewer than `accumulate` batches.
    """

    batches: int
    steps_per_epoch: int
    steps: int

    @property
    def epochs(self) -> int:
        """Epochs begun; the last one is cut short when `steps` does not divide."""
        return math.ceil(self.steps / self.steps_per_epoch)


def length(setting: Optimization, batches: int) -> Length:
    """The extent of a training whose epoch has `batches` batches."""
    steps_per_epoch = math.ceil(batches / setting.accumulate)
    steps = setting.steps if setting.steps is not None else setting.epochs * steps_per_epoch
    return Length(batches, steps_per_epoch, steps)


def lr_factor(setting: Optimization, span: Length, step: int) -> float:
    """What the peak learning rate is multiplied by in optimizer step `step` (counted from 0).

    Linear warm-up (Goyal et al. 2017, section 2.2); then 1, or half a cosine down to 0 over the remaining steps
    (Loshchilov and Hutter 2017, eq. 5 without restarts), or the remaining share to the power of 0.9 (the "poly" rule of
    Chen et al. 2017, arXiv:1606.00915, section 4.1.1), or `gamma` to the number of milestones passed.
    """
    warmup = min(round(setting.warmup * span.steps_per_epoch), span.steps - 1)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if setting.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, span.steps - warmup)))
    if setting.schedule == "poly":
        result: float = (1.0 - (step - warmup) / max(1, span.steps - warmup)) ** 0.9
        return result
    if setting.schedule == "step":
        unit = 1 if setting.steps is not None else span.steps_per_epoch
        return setting.gamma ** bisect.bisect_right([milestone * unit for milestone in setting.milestones], step)
    return 1.0


class Ema:
    """Exponential moving average of a model's parameters and buffers (Polyak and Juditsky 1992; Tan and Le 2019), as a
    model in evaluation mode.

    `average += (1 - d) * (value - average)` after every optimizer step, with d = min(decay, (1 + t) / (10 + t)) in step
    t, so that the initial values are forgotten soon. Running statistics are averaged too; counters are copied.
    torch's `AveragedModel` takes the first update as the start of the average and keeps the number of updates in a
    tensor, which a GPU would have to be asked for in each step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Average the model's values in, after an optimizer step."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        averages: list[Tensor] = []
        values: list[Tensor] = []
        for average, value in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if value.is_floating_point():
                averages.append(average)
                values.append(value)
            else:
                average.copy_(value)
        torch._foreach_lerp_(averages, values, 1.0 - decay)

    def state_dict(self) -> EmaState:
        """Plain tensors and numbers."""
        return {"steps": self.steps, "average": self.model.state_dict()}

    def load_state_dict(self, state: EmaState) -> None:
        """Continue from `state_dict()`; tensors are copied into place, so they stay on their device."""
        self.steps = state["steps"]
        self.model.load_state_dict(state["average"])
