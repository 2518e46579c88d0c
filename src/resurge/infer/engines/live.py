"""A trained run as the engine of a predictor: the network itself, in torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from resurge.data.scenes import Sample, collate_scenes
from resurge.infer.tta import Views
from resurge.runs import Run
from resurge.tasks.detect.metrics import encode_masks
from resurge.tasks.evaluate_scenes import class_values
from resurge.tasks.results import Found

_PIXELS_AT_ONCE = 1 << 27  # of masks at the image's own size, before they are run lengths


class Live:
    """The network of a run, on the device where it is."""

    format = "run"
    precision = "fp32"
    notes: tuple[str, ...] = ()

    def __init__(self, run: Run) -> None:
        self.run_ = run
        self.device = next(run.model.parameters()).device

    def run(self, images: np.ndarray, sizes: np.ndarray | None = None, views: Views = Views()) -> dict[str, np.ndarray]:
        """float32 (N, C, H, W) -> logits: (N, K) of a classifier, (N, K, H, W) of a segmenter, float32.

        Of a detector see `objects`; `sizes` are there because every engine takes them. With several views, the
        logarithms of a segmenter's averaged probabilities come in the place of logits.
        """
        batch = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        with torch.inference_mode():
            values = class_values(self.run_.model, batch, **asdict(views))
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

    def find(self, images: Sequence[Image.Image], preprocessing: Any, score: float) -> Iterator[Found]:
        """The objects in each image with at least this score, of a detector.

        Memory is bounded by what the preprocessing makes of the images: masks are brought to the size of the image a
        few at a time and kept as run lengths.
        """
        samples: list[Sample] = [(preprocessing(image), {}, index) for index, image in enumerate(images)]
        batch = collate_scenes(samples)
        with torch.inference_mode():
            detections = self.run_.model(batch.images.to(self.device), batch.sizes)
        for row, found in enumerate(detections):
            size = (images[row].height, images[row].width)
            with torch.inference_mode():
                yield _at_own_size(self.run_.model, found, batch.sizes[row], size, score)


def _filled(values: np.ndarray, count: int, rest: int) -> np.ndarray:
    """(n, ...) -> (count, ...); masks lose their axis of one channel."""
    values = values[:, 0] if values.ndim == 4 else values
    result = np.full((count, *values.shape[1:]), rest, dtype=values.dtype)
    result[: len(values)] = values
    return result


def _at_own_size(
    model: Any, found: dict[str, Tensor], seen: tuple[int, int], size: tuple[int, int], score: float
) -> Found:
    fine = (found["scores"] >= score) & found["boxes"].isfinite().all(1)
    found = {key: value[fine] for key, value in found.items()}
    order = found["scores"].argsort(descending=True, stable=True)
    found = {key: value[order] for key, value in found.items()}
    parts: list[dict[str, Tensor]] = []
    masks: list[dict[str, Any]] = []
    step = max(1, _PIXELS_AT_ONCE // (size[0] * size[1])) if "masks" in found else max(1, len(order))
    for start in range(0, len(order), step):
        few = {key: value[start : start + step] for key, value in found.items()}
        (own,) = model.postprocess([few], [seen], [size])
        if "masks" in own:
            masks += encode_masks(own.pop("masks").cpu(), size)
        parts.append(own)
    whole = {key: torch.cat([part[key] for part in parts]) for key in parts[0]} if parts else found
    return Found(
        whole["boxes"].double().cpu().numpy().reshape(-1, 4),
        whole["scores"].double().cpu().numpy(),
        whole["labels"].cpu().numpy(),
        masks if "masks" in found else None,
    )
