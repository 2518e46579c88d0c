"""A trained run as the engine of a predictor: the network itself, in torch."""

from __future__ import annotations

import numpy as np
import torch

from resurge.infer.engines.engine import Arrays, Engine
from resurge.runs import Run
from resurge.tasks.table import get_task
from resurge.tasks.tta import TTA


class Live(Engine):
    """The network of a run, on the device where it is."""

    format = "run"

    def __init__(self, run: Run) -> None:
        self._task, self._model = get_task(run.task), run.model
        self._device = next(run.model.parameters()).device

    def run(self, images: np.ndarray, sizes: np.ndarray | None = None, tta: TTA = TTA()) -> Arrays:
        if sizes is None:
            sizes = np.full((len(images), 2), images.shape[2:], dtype=np.int64)
        batch, own = (torch.from_numpy(np.ascontiguousarray(values)).to(self._device) for values in (images, sizes))
        with torch.inference_mode():
            outputs = self._task.outputs(self._model, batch, own, tta)
        return {name: values.cpu().numpy() for name, values in outputs.items()}
