"""What `export` does otherwise when the network finds objects: detectors and instance segmenters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from resurge.errors import UserError
from resurge.export.calibration import Material, unreadable
from resurge.export.fidelity_objects import (
    BATCH,
    ObjectBatch,
    ObjectComparison,
    Told,
    compare_objects,
    object_batches,
)
from resurge.export.fidelity_objects import Run as Find
from resurge.export.quantize import Ask, Trial
from resurge.infer.engines import Engine
from resurge.infer.engines.engine import INPUT, SIZES
from resurge.infer.engines.live import Live
from resurge.runs import Run
from resurge.tasks.detect.model import DetectionModel, ExportedDetector
from resurge.tasks.detect.predict import Suppression
from resurge.tasks.table import get_task

IMAGES = 50
"""Pictures to compare on unless another number is asked for: a detector takes many times a classifier's work."""
CALIBRATION = 64
"""Pictures to set the ranges of int8 by: each has thousands of places, and all of them are in memory at once."""


def require_possible(run: Run, raw: bool) -> None:
    """Raises UserError for what is not made of a network of this task."""
    task = get_task(run.task)
    if raw and not task.takes_sizes:
        raise UserError(
            f"{run.folder} is of the task {run.task}; only a detector has candidates to put out raw. Leave out --raw."
        )
    if raw and task.masks:
        raise UserError(
            f"{run.folder} is of the task instances: its masks are made for the objects that are kept, so that there "
            "are none before that. Leave out --raw."
        )


def deployed(run: Run, model: nn.Module, kind: torch.dtype, raw: bool) -> tuple[ExportedDetector, dict[str, Any]]:
    """The network as it is exported, and what model.json is to say of it."""
    assert isinstance(model, DetectionModel)
    names = ["boxes", "scores", "labels", *(["masks"] if get_task(run.task).masks else [])]
    said: dict[str, Any] = {"outputs": names}
    if raw:
        settings = model.settings
        said["suppression"] = {
            "score": settings.score_threshold,
            "overlap": settings.nms_threshold,
            "most": settings.max_detections,
            "smallest": model.head.smallest,
        }
    return ExportedDetector(model, kind, raw), said


def told_of(run: Run, original: Live, material: Material, images: int) -> Iterator[Told]:
    """At most so many pictures, and what the run says of them.

    Raises:
        UserError: none of the pictures can be read.
    """
    chosen = material.measured.few(images)
    batch = None
    for batch in object_batches(chosen, run.preprocessing, run.classes, get_task(run.task).masks):
        yield batch, original.run(batch.images, batch.sizes)
    if batch is None:
        raise unreadable(material.measured_on)


def compared(
    run: Run, told: Iterable[Told], engine: Engine, said: Mapping[str, Any]
) -> tuple[ObjectComparison, ObjectBatch]:
    """The exported network beside the run's on `told`, and the first pictures of it.

    Args:
        said: what model.json says of the export.
    """
    rest = iter(told)
    first = next(rest)
    found = compare_objects(chain([first], rest), answering(engine.run, said), run.classes)
    return found, first[0]


def trial(run: Run, material: Material, told: Sequence[Told], said: Mapping[str, Any]) -> Trial:
    """What an int8 detector is calibrated with and judged by; see `Trial`."""
    pictures = material.calibration.few(CALIBRATION)
    asked = [
        {INPUT: batch.images, SIZES: batch.sizes}
        for batch in object_batches(pictures, run.preprocessing, run.classes, masks=False, size=1)
    ]

    def judged(ask: Ask, some: Iterable[Told]) -> ObjectComparison:
        def after(images: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
            return ask({INPUT: images, SIZES: sizes})

        return compare_objects(some, answering(after, said), run.classes)

    return Trial(asked, told, judged, BATCH, finds=True)


def answering(find: Find, said: Mapping[str, Any]) -> Find:
    """The network with what it leaves to do."""
    suppression = Suppression.of(said)
    return find if suppression is None else lambda images, sizes: suppression(find(images, sizes))


def questions(batch: ObjectBatch) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Images and sizes for the self-test: one, several, and one whose sides are no multiple of anything."""
    count = len(batch.images)
    uneven = np.pad(batch.images[:1], ((0, 0), (0, 0), (0, 37), (0, 10)))
    images = {"speed_1": batch.images[:1], "other": uneven, **({f"speed_{count}": batch.images} if count > 1 else {})}
    return images, {name: batch.sizes[: len(values)] for name, values in images.items()}
