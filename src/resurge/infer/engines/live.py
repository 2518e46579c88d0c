"""A trained run as the engine of a predictor: the network itself, in torch."""

from __future__ import annotations

import numpy as np
import torch

from resurge.runs import Run
from resurge.tasks.table import get_task
from resurge.tasks.tta import TTA


class Live:
    """The network of a run, on the device where it is."""

    format = "run"
    precision = "fp32"
    notes: tuple[str, ...] = ()

    def __init__(self, run: Run) -> None:
        self.run_ = run
        self.device = next(run.model.parameters()).device

    def run(self, images: np.ndarray, sizes: np.ndarray | None = None, tta: TTA = TTA()) -> dict[str, np.ndarray]:
        """float32 (N, C, H, W) and the sizes (N, 2) of the images without padding -> `Task.outputs`, as arrays."""
        if sizes is None:
            sizes = np.full((len(images), 2), images.shape[2:], dtype=np.int64)
        batch, own = (torch.from_numpy(np.ascontiguousarray(values)).to(self.device) for values in (images, sizes))
        with torch.inference_mode():
            outputs = get_task(self.run_.task).outputs(self.run_.model, batch, own, tta)
        return {name: values.cpu().numpy() for name, values in outputs.items()}
