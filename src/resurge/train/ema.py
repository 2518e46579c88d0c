"""The moving average of the weights that is evaluated and kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class Ema:
    """Exponential moving average of a model's parameters and buffers (Polyak and Juditsky 1992; Tan and Le 2019).

    `average += (1 - d) * (value - average)` after every optimizer step, with d = min(decay, (1 + t) / (10 + t)) in step
    t, so that the initial values are forgotten soon. Running statistics are averaged too; counters are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.average: dict[str, Tensor] = {}
        self.reset(model)

    def reset(self, model: nn.Module) -> None:
        """Start again from the model as it is now (also moves the average to the model's device)."""
        self.steps = 0
        self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the model's values in, after an optimizer step."""
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
        own = model.state_dict()
        kept = {name: value.detach().clone() for name, value in own.items()}
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(self.average[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in own.items():
                    value.copy_(kept[name])

    def state_dict(self) -> dict[str, object]:
        """Plain tensors and numbers."""
        return {"steps": self.steps, "average": dict(self.average)}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Continue from `state_dict()`; tensors are copied into place, so they stay on their device."""
        steps, average = state["steps"], state["average"]
        if not isinstance(steps, int) or not isinstance(average, Mapping):
            raise TypeError("not the state of an Ema")
        self.steps = steps
        for name, value in average.items():
            self.average[name].copy_(value)
