"""Objects drawn on their image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from resurge.data.splits import Objects, ObjectSplit
from resurge.explain.overlays import SIDES, draw_objects
from resurge.tasks.detect.predict import Found
from resurge.tasks.result import Result
from resurge.tasks.scenes.draw import SIDES_IN_REPORT, write_examples
from resurge.tasks.task import Network, Task


def draw(image: Image.Image, result: Result, classes: Sequence[str], sides: tuple[int, int] = SIDES) -> Image.Image:
    """The image with boxes, scores and masks, resized so that its longer side is within `sides`."""
    assert isinstance(result, Found)
    return draw_objects(
        image,
        result.boxes,
        result.labels.tolist(),
        classes,
        scores=result.scores.tolist(),
        masks=result.decoded(),
        sides=sides,
    )


def write_pictures(task: Task, network: Network, folder: Path, evaluation: dict[str, Any], split: ObjectSplit) -> None:
    """See `resurge.tasks.scenes.draw.write_examples`."""

    def both(image: Image.Image, result: Result, truth: Objects) -> tuple[Image.Image, Image.Image]:
        regions = truth.regions
        there = draw_objects(
            image,
            truth.boxes,
            truth.labels.tolist(),
            network.classes,
            masks=None if regions is None else (region.decode(image.height, image.width) for region in regions),
            notes=["(crowd)" if crowd else "" for crowd in truth.crowd.tolist()],
            sides=SIDES_IN_REPORT,
        )
        return draw(image, result, network.classes, SIDES_IN_REPORT), there

    write_examples(task, network, folder, evaluation, split, both)
