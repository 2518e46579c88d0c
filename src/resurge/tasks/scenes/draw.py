"""For the report of a detector or segmenter: images with the truth beside the prediction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from resurge.explain.heat import save_image
from resurge.tasks.result import Result
from resurge.tasks.scenes.metrics import Scenes
from resurge.tasks.task import Network, Task
from resurge.tasks.tta import TTA

SIDES_IN_REPORT = (288, 360)  # at least and at most, of the longer side of a picture, pixels
Draw = Callable[[Image.Image, Result, Any], tuple[Image.Image, Image.Image]]
"""(image, result, truth) -> the pictures of the result and of the truth."""


def write_examples(
    task: Task, network: Network, folder: Path, evaluation: dict[str, Any], split: Scenes, draw: Draw,
    tta: TTA = TTA(),
) -> None:  # fmt: skip
    """Write `explain/KIND_NNN.jpg` (the result) and `explain/KIND_NNN_truth.jpg` of the examples of an evaluation.

    Each example gets the paths as `overlay` and `thumbnail`, from the run directory. Objects are shown from the score
    on that `resurge predict` shows; those of the surest mistakes from their own score on.
    """
    for kind, entries in evaluation["examples"].items():
        for number, entry in enumerate(entries):
            image, truth = split.read(entry["index"]), split.target(entry["index"])
            score = min(task.shown_score, float(entry.get("weight", task.shown_score)))
            (inputs,) = task.batches([network.preprocessing.array(image)])
            size = (image.height, image.width)
            (result,) = task.predict(network.model, inputs, [size], network.classes, score=score, tta=tta)
            entry["overlay"] = f"explain/{kind}_{number:03d}.jpg"
            entry["thumbnail"] = f"explain/{kind}_{number:03d}_truth.jpg"
            for name, picture in zip(("overlay", "thumbnail"), draw(image, result, truth), strict=True):
                save_image(picture, folder / entry[name])
