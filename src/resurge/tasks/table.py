"""The table of tasks. A new task is one folder beside this file and one line here. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from resurge.data.annotations import Annotation
from resurge.errors import UserError, require_one_of, suggest
from resurge.plugins import Table
from resurge.tasks.classify.task import Classify
from resurge.tasks.detect.task import Detect, Instances
from resurge.tasks.segment.task import Segment
from resurge.tasks.task import Task

if TYPE_CHECKING:
    from torch import nn

    from resurge.arch.spec import Spec
    from resurge.config import Section


def _plugin_task(name: str, part: object) -> Task:
    """Raises UserError when the object of a plugin is no task of that name."""
    if not isinstance(part, type) or not issubclass(part, Task) or part.name != name:
        raise UserError(f"is {part!r}; expected a subclass of resurge.tasks.task.Task with the name {name!r}.")
    try:
        return part()
    except TypeError as error:  # an abstract method is left
        raise UserError(f"cannot be made: {error}.") from error


_OWN = {task.name: task for task in (Classify(), Segment(), Detect(), Instances())}
TASKS: Mapping[str, Task] = Table("task", _OWN, _plugin_task)
"""By name; the first one is the default."""
DEFAULT = next(iter(_OWN))

DATA_WORDS: dict[Annotation, str] = {task.annotation: f"--task {task.name}" for task in _OWN.values()}
"""What messages about data tell the user to choose for each kind of annotation."""


def get_task(name: str) -> Task:
    """The task of a name. Raises UserError when there is none; the nearest is suggested."""
    require_one_of("task", name, TASKS)
    return TASKS[name]


def pick_head(task: str, head: str | None) -> str:
    """The head to build: the named one, or the task's first. Raises UserError when the task is unknown, or has no such
    head; a task that has it is named."""
    heads = get_task(task).heads
    if head is None or head in heads:
        return head or heads[0]
    other = next((f" It belongs to --task {name}." for name, each in TASKS.items() if head in each.heads), None)
    hint = suggest(head, heads) if other is None else other
    raise UserError(f"the task {task} has the heads {', '.join(heads)}, not {head!r}.{hint}")


def build_task_model(
    task: str, spec: Spec, num_classes: int, in_channels: int = 3, head: str | None = None,
    settings: Section | None = None, *, dropout: float = 0.0,
) -> nn.Module:  # fmt: skip
    """A network with random weights, in training mode; see `resurge.tasks.task.Task.build`. Raises UserError when the
    task or the head is unknown, or a number is out of range."""
    return get_task(task).build(spec, num_classes, in_channels, pick_head(task, head), settings, dropout=dropout)
