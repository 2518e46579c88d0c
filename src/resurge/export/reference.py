"""The run that an export is compared with, on images: inputs, outputs, and how far the export is from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from io import BytesIO
from typing import Any, cast

import numpy as np

from resurge.errors import UserError
from resurge.export.calibration import Annotated, Batch, ExportData, Pictures, unreadable
from resurge.export.fidelity import Comparison, LabelComparison, MapComparison, Outputs, decisions
from resurge.export.fidelity_objects import ObjectComparison
from resurge.files import Json
from resurge.infer.engines.engine import INPUT, SIZES
from resurge.infer.engines.torch import Live
from resurge.runs import Run
from resurge.tasks.table import get_task

COMPARISONS: dict[str, type[Comparison]] = {
    "labels": LabelComparison, "maps": MapComparison, "boxes": ObjectComparison, "masks": ObjectComparison,
}  # fmt: skip
"""How a network is compared, by what it was trained on."""

Runner = Callable[[dict[str, np.ndarray]], Outputs]
"""Inputs by name -> outputs by name."""
Expected = tuple[Batch, Outputs]
"""Images, and what the run puts out for them."""


class Reference:
    """A run on the images of `data`.

    Args:
        images: how many to compare on, at most; None for as many as is usual.
        made: the part `export` of model.json.
    """

    def __init__(self, run: Run, data: ExportData, images: int | None, made: Json) -> None:
        self.run, self.data, self.made = run, data, made
        self.task = get_task(run.task)
        self.kind = COMPARISONS[self.task.annotation]
        self.pictures = data.measured.few(images or self.kind.most)
        self._original = Live(run)
        self._expected: list[Expected] | None = None

    def inputs(self, batch: Batch) -> dict[str, np.ndarray]:
        """What the exported network is given, by name."""
        return {INPUT: batch.images, **({SIZES: batch.sizes} if self.task.takes_sizes else {})}

    def compare(self, runner: Runner, some: Iterable[object] | None = None) -> Comparison:
        """An exported network beside the run, on all images or on some of those remembered.

        Raises:
            UserError: it puts out what is no number, or none of the images can be read.
        """
        found = self.kind(self.run.classes)
        for batch, before in self.expected() if some is None else map(self.recalled, some):
            after = self.task.finish(runner(self.inputs(batch)), self.made)
            for name, values in after.items():
                if not np.isfinite(values).all():
                    raise UserError(
                        f"the exported network puts out {name} that are not finite numbers. Use another --precision: "
                        "fp16 overflows beyond 65504."
                    )
            found.take(batch, before, after)
        if not found.images:
            raise unreadable(self.data.measured_on)
        return found.final()

    def expected(self) -> Iterable[Expected]:
        """The images, and what the run puts out for them, one batch at a time unless all are in memory."""
        if self._expected is not None:
            return self._expected
        return ((batch, self._original.run(batch.images, batch.sizes)) for batch in self.batches(self.pictures))

    @cached_property
    def remembered(self) -> Sequence[object]:
        """The same for an export that is compared several times; see `recalled`.

        The images of a segmenter keep their size, and its logits have a plane per class: hundreds of either do not fit
        into memory. An image is read whenever it is used, and of what the run puts out the decisions are kept.
        """
        if self.kind is MapComparison:
            return [_packed(MapComparison(self.run.classes), *each) for each in self.expected()]
        self._expected = list(self.expected())
        return self._expected

    def recalled(self, item: Any) -> Expected:
        """What was remembered as this item."""
        if self.kind is not MapComparison:
            kept: Expected = item
            return kept
        index, content = item
        with np.load(BytesIO(content)) as arrays:
            return self._read(self.pictures, index), dict(arrays)

    @cached_property
    def calibration(self) -> list[int]:
        """The images to set the ranges of int8 by; see `calibrating`."""
        pictures = self.data.calibration
        return [batch.indices[0] for batch in self.batches(pictures.few(self.kind.calibration), 1)]

    def calibrating(self, index: int) -> dict[str, np.ndarray]:
        """What the network is given of an image of the calibration."""
        return self.inputs(self._read(self.data.calibration, index))

    def batches(self, pictures: Pictures, size: int | None = None) -> Iterator[Batch]:
        """Images as the run is given them, with their annotations; `size` at a time, or as many as is usual."""
        split = cast(Annotated, pictures.split)
        truth = None if pictures.classes is None else partial(self.kind.truth, split, pictures.classes)
        return pictures.batches(self.task, self.run.preprocessing, size or self.kind.batch, truth)

    def _read(self, pictures: Pictures, index: int) -> Batch:
        return next(self.batches(replace(pictures, indices=(index,)), 1))


def _packed(comparison: MapComparison, batch: Batch, outputs: Outputs) -> tuple[int, bytes]:
    """Label maps are mostly areas of one class, confusion matrices mostly zeros."""
    arrays: Any = {"classes": decisions(outputs).astype(np.uint8)}
    if batch.truth is not None:
        arrays["confusion"] = comparison.confused(batch, outputs)
    content = BytesIO()
    np.savez_compressed(content, **arrays)
    return batch.indices[0], content.getvalue()
