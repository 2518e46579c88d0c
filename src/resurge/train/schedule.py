"""How long a training is and what the learning rate is at each step: pure functions of the recipe. No torch here."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

from resurge.recipe import Optimization


@dataclass(frozen=True)
class Length:
    """The extent of a training, counted in optimizer steps.

    `batches` a device in an epoch; the last step of an epoch may have fewer than `accumulate` batches.
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
        return (1.0 - (step - warmup) / max(1, span.steps - warmup)) ** 0.9
    if setting.schedule == "step":
        unit = 1 if setting.steps is not None else span.steps_per_epoch
        return setting.gamma ** bisect.bisect_right([milestone * unit for milestone in setting.milestones], step)
    return 1.0
