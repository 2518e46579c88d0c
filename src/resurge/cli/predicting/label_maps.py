"""A class for every pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from resurge.cli.options import Views
from resurge.cli.predicting.contract import Asked, Opened
from resurge.cli.predicting.files import Names
from resurge.cli.predicting.scenes import Pictures, limited
from resurge.errors import UserError
from resurge.explain.heat import save_png
from resurge.explain.overlays import draw_label_map, index_image
from resurge.training.evaluate_scenes import class_values, enlarged_classes


@dataclass(frozen=True)
class LabelMap:
    """labels: uint8 (H, W), of the size of the image as it is. confidence: mean probability of the predicted classes.
    tensor: (C, h, w), what the network saw."""

    labels: np.ndarray
    confidence: float
    tensor: Tensor


def segment_images(
    model: nn.Module, preprocessing: Any, images: Sequence[Image.Image], device: torch.device, views: Views
) -> Iterator[LabelMap]:
    """The label map of each image, of a model in evaluation mode.

    Images of one size after the preprocessing go through the network together and without padding, so that an answer
    does not depend on what else is in the batch.
    """
    tensors = [preprocessing(image) for image in images]
    by_size: dict[tuple[int, ...], list[int]] = {}
    for index, tensor in enumerate(tensors):
        by_size.setdefault(tuple(tensor.shape), []).append(index)
    values: dict[int, Tensor] = {}
    with torch.inference_mode():
        for rows in by_size.values():
            batch = torch.stack([tensors[row] for row in rows]).to(device)
            values.update(zip(rows, class_values(model, batch, **asdict(views)), strict=True))
        for index, image in enumerate(images):
            labels, confidence = enlarged_classes(values.pop(index), (image.height, image.width))
            yield LabelMap(labels.to(torch.uint8).cpu().numpy(), float(confidence.mean()), tensors[index])


class Segmenting:
    """The label map of each picture."""

    takes = frozenset({"overlays", "max_size", "scales", "flip", "window"})
    batch_size = 1

    def __init__(self, asked: Asked) -> None:
        options = asked.options
        self.run, self.device = asked.run, asked.device
        self.preprocessing = limited(asked.run.preprocessing, options.max_size)
        self.views = Views.of(options, asked.run.recipe)
        self.pictures = Pictures(asked, options)
        if options.out and Path(options.out).suffix in (".json", ".csv"):
            raise UserError(
                f"--out {options.out}: {asked.run.folder} is a segmenter, and --out is the folder its label maps are "
                "written to. Give a folder, and send --json or --csv to a file with > FILE."
            )
        self.folder = Path(options.out) if options.out else None
        self.names = Names()

    def predict(self, images: Sequence[Opened]) -> Iterator[LabelMap]:
        pictures = [opened.image for opened in images]
        return segment_images(self.run.model, self.preprocessing, pictures, self.device, self.views)

    def text(self, opened: Opened, answer: LabelMap) -> str:
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, _, share in self._shares(answer))
        return f"{opened.path}  {shares}"

    def json(self, opened: Opened, answer: LabelMap) -> dict[str, Any]:
        plain: dict[str, Any] = {"width": opened.image.width, "height": opened.image.height}
        if self.folder is not None:
            plain["map"] = str(self.folder / self.names.of(opened.path))
        shares = self._shares(answer)
        return plain | {
            "confidence": answer.confidence,
            "classes": [{"class": name, "pixels": pixels, "share": share} for name, pixels, share in shares],
        }

    def csv_head(self) -> list[str]:
        return ["path", "class", "pixels", "share"]

    def csv_rows(self, opened: Opened, answer: LabelMap) -> Iterator[list[str]]:
        for name, pixels, share in self._shares(answer):
            yield [str(opened.path), name, str(pixels), f"{share:.6f}"]

    def _shares(self, answer: LabelMap) -> list[tuple[str, int, float]]:
        """(class, its pixels, their share of the image) of the classes that are there, largest first."""
        counts = np.bincount(answer.labels.ravel(), minlength=len(self.run.classes))
        order = np.argsort(-counts, kind="stable")
        return [(self.run.classes[k], int(counts[k]), float(counts[k] / counts.sum())) for k in order if counts[k]]

    def write(self, opened: Opened, answer: LabelMap) -> None:
        if self.folder is not None:
            save_png(index_image(answer.labels, self.run.classes), self.folder / self.names.of(opened.path))
        picture = None
        if self.pictures.folder is not None:
            picture = draw_label_map(opened.image, answer.labels, self.run.classes)
        self.pictures.write(opened, picture, answer.tensor)

    def finish(self) -> None:
        self.pictures.finish()
