"""What `resurge eval` does differently for each task."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resurge.cli.scoring.contract import Scoring

# task -> where its class is; imported when it is needed
_PLACES = {
    "classify": ("resurge.cli.scoring.classify", "Classification"),
    "detect": ("resurge.cli.scoring.scenes", "Objects"),
    "instances": ("resurge.cli.scoring.scenes", "Objects"),
    "segment": ("resurge.cli.scoring.scenes", "LabelMaps"),
}


def scoring_of(task: str) -> Scoring:
    """What scores a task of `resurge.tasks.table.TASKS`."""
    module, name = _PLACES[task]
    found: Scoring = getattr(importlib.import_module(module), name)()
    return found
