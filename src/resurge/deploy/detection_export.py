"""What `export` does otherwise when the network finds objects: detectors and instance segmenters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from resurge.deploy.detection import DeployedDetector
from resurge.deploy.detection_answers import Suppression
from resurge.deploy.detection_measure import ObjectBatch, ObjectComparison, compare_objects, object_batches
from resurge.deploy.engines import Engine
from resurge.deploy.live import Live
from resurge.deploy.material import Material
from resurge.errors import UserError
from resurge.tasks.boxes import SMALLEST
from resurge.training.run import Run

TASKS = ("detect", "instances")
IMAGES = 50
"""Pictures to compare on unless another number is asked for: a detector takes many times a classifier's work."""


def require_possible(run: Run, precision: str, raw: bool) -> None:
    """Raises UserError for what is not made of a network of this task."""
    if raw and run.task not in TASKS:
        raise UserError(
            f"{run.folder} is of the task {run.task}; only a detector has candidates to put out raw. Leave out --raw."
        )
    if raw and run.task == "instances":
        raise UserError(
            f"{run.folder} is of the task instances: its masks are made for the objects that are kept, so that there "
            "are none before that. Leave out --raw."
        )
    if precision == "int8" and run.task in TASKS:
        raise UserError(
            f"{run.folder} is of the task {run.task}, and detectors are not quantised to int8 here. Take --precision "
            "bf16 or fp16."
        )


def deployed(run: Run, model: Any, kind: torch.dtype, raw: bool) -> tuple[DeployedDetector, dict[str, Any]]:
    """The network as it is exported, and what model.json is to say of it."""
    names = ["boxes", "scores", "labels", *(["masks"] if run.task == "instances" else [])]
    said: dict[str, Any] = {"outputs": names}
    if raw:
        settings: Any = run.model.settings
        said["suppression"] = {
            "score": settings.score_threshold,
            "overlap": settings.nms_threshold,
            "most": settings.max_detections,
            "smallest": 0.0 if run.model.head_name == "retinanet" else SMALLEST,  # as their heads have it
        }
    return DeployedDetector(model, kind, raw), said


def compared(
    run: Run, original: Live, engine: Engine, told: Mapping[str, Any], material: Material, images: int
) -> tuple[ObjectComparison, ObjectBatch]:
    """The exported network beside the run's on at most so many pictures, and some of these.

    Args:
        told: what model.json says of the export.

    Raises:
        UserError: none of the pictures can be read.
    """
    first: list[ObjectBatch] = []

    def batches() -> Any:
        chosen = material.measured.few(images)
        for batch in object_batches(chosen, run.preprocessing, run.classes, run.task == "instances"):
            if not first:
                first.append(batch)
            yield batch

    found = compare_objects(original.objects, answering(engine, told), batches(), run.classes)
    if not first:
        raise UserError(f"none of the {material.measured_on} can be read. Name others with --calibrate DIR.")
    return found, first[0]


def answering(engine: Engine, told: Mapping[str, Any]) -> Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]:
    """The engine with what its network leaves to do."""
    suppression = Suppression.of(told)
    if suppression is None:
        return engine.run
    return lambda images, sizes: suppression(engine.run(images, sizes))


def questions(batch: ObjectBatch) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Images and sizes for the self-test: one, several, and one whose sides are no multiple of anything."""
    count = len(batch.images)
    uneven = np.pad(batch.images[:1], ((0, 0), (0, 0), (0, 37), (0, 10)))
    images = {"speed_1": batch.images[:1], "other": uneven, **({f"speed_{count}": batch.images} if count > 1 else {})}
    return images, {name: batch.sizes[: len(values)] for name, values in images.items()}
