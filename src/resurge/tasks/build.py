"""From the name of a task, a head and a spec to a network."""

from __future__ import annotations

from torch import nn

from resurge.arch.spec import Spec
from resurge.config import Section
from resurge.tasks.table import get_task, pick_head


def build_task_model(
    task: str, spec: Spec, num_classes: int, in_channels: int = 3, head: str | None = None,
    settings: Section | None = None, *, dropout: float = 0.0,
) -> nn.Module:  # fmt: skip
    """A network with random weights, in training mode; see `resurge.tasks.task.Task.build`.

    Raises:
        UserError: the task or the head is unknown (the nearest is suggested), or a number is out of range.
    """
    return get_task(task).build(spec, num_classes, in_channels, pick_head(task, head), settings, dropout=dropout)
