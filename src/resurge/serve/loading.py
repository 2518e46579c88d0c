"""The model to serve, from a folder."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from resurge.data.bands import Picture
from resurge.tasks.table import get_task

if TYPE_CHECKING:
    from resurge.infer.predictor import Predictor
    from resurge.runs import Run

log = logging.getLogger("resurge.serve")


@dataclass(frozen=True)
class Loaded:
    """A model that can be served.

    explain: the image with a heat map over it, as PNG; None for an export. It and
    `predictor.predict` are called from one thread.
    """

    predictor: Predictor
    explain: Callable[[Picture], bytes] | None = None


def loader(folder: str, device: str = "auto", threads: int | None = None) -> Callable[[], Loaded]:
    """A function that loads the model of an export or a run; see `resurge.infer.predictor.Predictor`."""

    def load() -> Loaded:
        from resurge.infer.predictor import Predictor

        predictor = Predictor(folder, device=device, threads=threads)
        for note in predictor.notes:
            log.warning("%s", note)
        return Loaded(predictor, None if predictor.run is None else partial(_explain, predictor.run))

    return load


def _explain(run: Run, image: Picture) -> bytes:
    """The image with a heat map over it, as PNG."""
    from resurge.explain.heat import enlarge, overlay

    seen, heat = get_task(run.task).heat_map(run.model, run.preprocessing, image)
    file = io.BytesIO()
    overlay(enlarge(seen.convert("RGB"), 384, 1024), heat).save(file, "PNG")
    return file.getvalue()
