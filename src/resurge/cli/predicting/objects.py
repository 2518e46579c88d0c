"""Objects with boxes, and masks where the network gives them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faster_coco_eval.core import mask as run_lengths
from PIL import Image
from torch import Tensor, nn

from resurge.cli.predicting.contract import Asked, Opened
from resurge.cli.predicting.scenes import Pictures, limited
from resurge.data.scenes import Sample, collate_scenes
from resurge.explain.overlays import draw_objects
from resurge.files import atomic_write_text
from resurge.tasks.average_precision import encode_masks

SCORE = 0.5
"""Objects of a lower score are left out unless the command line says otherwise."""

_PIXELS_AT_ONCE = 1 << 27  # of masks at the image's own size, before they are run lengths


@dataclass(frozen=True)
class Found:
    """The n objects of an image, surest first, in the pixels of the image as it is.

    boxes: (n, 4) x1, y1, x2, y2. scores, labels: (n,). masks: n COCO run lengths, or None. tensor: (C, h, w), what the
    network saw.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: list[dict[str, Any]] | None
    tensor: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def decoded(self) -> Iterator[np.ndarray] | None:
        """The masks as bool (H, W), one after the other."""
        return None if self.masks is None else (run_lengths.decode(mask).astype(bool) for mask in self.masks)


def find_objects(
    model: nn.Module, preprocessing: Any, images: Sequence[Image.Image], device: torch.device, score: float
) -> Iterator[Found]:
    """The objects in each image with at least this score, of a model in evaluation mode.

    Memory is bounded by what the preprocessing makes of the images: masks are brought to the size of the image a few at
    a time and kept as run lengths.
    """
    samples: list[Sample] = [(preprocessing(image), {}, index) for index, image in enumerate(images)]
    batch = collate_scenes(samples)
    with torch.inference_mode():
        detections = model(batch.images.to(device), batch.sizes)
    for row, found in enumerate(detections):
        size = (images[row].height, images[row].width)
        with torch.inference_mode():
            yield _at_own_size(model, found, batch.sizes[row], size, score, samples[row][0])


def _at_own_size(
    model: Any, found: dict[str, Tensor], seen: tuple[int, int], size: tuple[int, int], score: float, tensor: Tensor
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
        tensor,
    )


class Finding:
    """The objects of each picture."""

    takes = frozenset({"score", "overlays", "coco_json", "max_size"})
    batch_size = 1

    def __init__(self, asked: Asked) -> None:
        options = asked.options
        self.run, self.device = asked.run, asked.device
        self.score = SCORE if options.score is None else options.score
        self.preprocessing = limited(asked.run.preprocessing, options.max_size)
        self.pictures = Pictures(asked, options)
        self.coco = CocoFile(Path(options.coco_json), asked.run.classes) if options.coco_json else None

    def predict(self, images: Sequence[Opened]) -> Iterator[Found]:
        pictures = [opened.image for opened in images]
        return find_objects(self.run.model, self.preprocessing, pictures, self.device, self.score)

    def text(self, opened: Opened, answer: Found) -> str:
        if not len(answer):
            return f"{opened.path}  nothing found"
        counted = Counter(answer.labels.tolist()).most_common()
        counts = ", ".join(f"{number} {self.run.classes[label]}" for label, number in counted)
        best = f"{self.run.classes[answer.labels[0]]} {100 * answer.scores[0]:.2f} %"
        return f"{opened.path}  {counts}; surest {best}"

    def json(self, opened: Opened, answer: Found) -> dict[str, Any]:
        return {"width": opened.image.width, "height": opened.image.height, "objects": list(self._objects(answer))}

    def _objects(self, answer: Found) -> Iterator[dict[str, Any]]:
        for row in range(len(answer)):
            plain: dict[str, Any] = {
                "class": self.run.classes[answer.labels[row]],
                "score": float(answer.scores[row]),
                "box": [round(side, 2) for side in answer.boxes[row].tolist()],
            }
            if answer.masks is not None:
                plain["mask"] = as_text(answer.masks[row])
            yield plain

    def csv_head(self) -> list[str]:
        return ["path", "class", "score", "x1", "y1", "x2", "y2"]

    def csv_rows(self, opened: Opened, answer: Found) -> Iterator[list[str]]:
        for box, score, label in zip(
            answer.boxes.tolist(), answer.scores.tolist(), answer.labels.tolist(), strict=True
        ):
            yield [str(opened.path), self.run.classes[label], f"{score:.6f}", *(f"{side:.2f}" for side in box)]

    def write(self, opened: Opened, answer: Found) -> None:
        picture = None
        if self.pictures.folder is not None:
            picture = draw_objects(
                opened.image,
                answer.boxes,
                answer.labels.tolist(),
                self.run.classes,
                scores=answer.scores.tolist(),
                masks=answer.decoded(),
            )
        self.pictures.write(opened, picture, answer.tensor)
        if self.coco is not None:
            self.coco.add(opened, answer)

    def finish(self) -> None:
        self.pictures.finish()
        if self.coco is not None:
            self.coco.write()


class CocoFile:
    """Gathers what was found and writes it as one COCO file with images, categories and annotations."""

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        self.path = path
        self.categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self._files: list[Path] = []

    def add(self, opened: Opened, found: Found) -> None:
        """Take in one image."""
        self._files.append(opened.path)
        image_id = len(self._files)
        self.images.append({"id": image_id, "width": opened.image.width, "height": opened.image.height})
        areas = None if found.masks is None else run_lengths.area(found.masks) if found.masks else []
        for row in range(len(found)):
            left, top, right, bottom = (round(side, 3) for side in found.boxes[row].tolist())
            width, height = round(right - left, 3), round(bottom - top, 3)
            entry: dict[str, Any] = {
                "id": len(self.annotations) + 1,
                "image_id": image_id,
                "category_id": int(found.labels[row]) + 1,
                "bbox": [left, top, width, height],
                "area": round(width * height, 3) if areas is None else float(areas[row]),
                "iscrowd": 0,
                "score": float(found.scores[row]),
            }
            if found.masks is not None:
                entry["segmentation"] = as_text(found.masks[row])
            self.annotations.append(entry)

    def write(self) -> None:
        """Write the file; images are named from the folder that holds all of them.

        Raises:
            UserError: the file cannot be written.
        """
        whole = [path.absolute() for path in self._files]
        root = os.path.commonpath([path.parent for path in whole]) if whole else ""
        images = [
            {"id": image["id"], "file_name": Path(os.path.relpath(path, root)).as_posix(), **image}
            for image, path in zip(self.images, whole, strict=True)
        ]
        content = {"images": images, "categories": self.categories, "annotations": self.annotations}
        atomic_write_text(self.path, json.dumps(content, ensure_ascii=False) + "\n")


def as_text(mask: dict[str, Any]) -> dict[str, Any]:
    """Compressed run lengths as JSON holds them."""
    counts = mask["counts"]
    return {"size": list(mask["size"]), "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}
