"""What `resurge predict` does differently for each task."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resurge.cli.predicting.contract import Predicting

# task -> where its class is; imported when it is needed
_PLACES = {
    "classify": ("resurge.cli.predicting.classify", "Classifying"),
    "detect": ("resurge.cli.predicting.objects", "Finding"),
    "instances": ("resurge.cli.predicting.objects", "Finding"),
    "segment": ("resurge.cli.predicting.label_maps", "Segmenting"),
}


def predicting_of(task: str) -> type[Predicting]:
    """The class that predicts for a task of `resurge.tasks.table.TASKS`."""
    module, name = _PLACES[task]
    found: type[Predicting] = getattr(importlib.import_module(module), name)
    return found
