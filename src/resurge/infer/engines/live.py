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
        with torch.inference_mode():
            detections = self.run_.model(batch, [(int(height), int(width)) for height, width in sizes])
        most = max([len(found["scores"]) for found in detections] + [1])
        return {
            name: np.stack([_filled(found[name].cpu().numpy(), most, -1 if name == "labels" else 0)
                            for found in detections])
            for name in detections[0]
        }  # fmt: skip


def _filled(values: np.ndarray, count: int, rest: int) -> np.ndarray:
    """(n, ...) -> (count, ...); masks lose their axis of one channel."""
    values = values[:, 0] if values.ndim == 4 else values
    result = np.full((count, *values.shape[1:]), rest, dtype=values.dtype)
    result[: len(values)] = values
    return result
