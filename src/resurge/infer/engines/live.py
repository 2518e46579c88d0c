"""A trained run as the engine of a predictor: the network itself, in torch."""

from __future__ import annotations

import numpy as np
import torch

from resurge.runs import Run
from resurge.tasks.detect.model import DetectionModel
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
        """float32 (N, C, H, W) -> logits: (N, K) of a classifier, (N, K, H, W) of a segmenter, float32.

        Of a detector see `objects`; `sizes` are there because every engine takes them. With test-time augmentation, the
        logarithms of a segmenter's averaged probabilities come in the place of logits.
        """
        batch = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        with torch.inference_mode():
            values = get_task(self.run_.task).logits(self.run_.model, batch, tta)
        return {"logits": values.cpu().numpy()}

    def objects(self, images: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
        """What an export of this detector puts out; see `resurge.tasks.detect.outputs`."""
        batch = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        model = self.run_.model
        assert isinstance(model, DetectionModel)
        with torch.inference_mode():
            found = model.detect(batch, torch.from_numpy(sizes).to(self.device))._asdict()
        return {name: values.cpu().numpy() for name, values in found.items() if values is not None}
