"""Label maps drawn on their image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resurge.data.splits import IGNORE, MaskSplit
from resurge.explain.overlays import BACKGROUND, colour, draw_label_map
from resurge.tasks.result import Result
from resurge.tasks.scenes.draw import SIDES_IN_REPORT, write_examples
from resurge.tasks.task import Network, Task
from resurge.tasks.tta import TTA


def write_pictures(
    task: Task, network: Network, folder: Path, evaluation: dict[str, Any], split: MaskSplit, tta: TTA
) -> None:
    """See `resurge.tasks.scenes.draw.write_examples`; the colours of the classes are added as `colours`."""
    evaluation["colours"] = {
        name: "#" + bytes(colour(index)).hex() for index, name in enumerate(network.classes) if name != BACKGROUND
    }

    def both(image: Image.Image, result: Result, truth: np.ndarray) -> tuple[Image.Image, Image.Image]:
        # two maps are compared best where the same pixels are left out
        assert result.label_map is not None
        labels = np.where(truth == IGNORE, truth, result.label_map)
        found, there = (
            draw_label_map(image, values, network.classes, legend=False, sides=SIDES_IN_REPORT)
            for values in (labels, truth)
        )
        return found, there

    write_examples(task, network, folder, evaluation, split, both, tta)
