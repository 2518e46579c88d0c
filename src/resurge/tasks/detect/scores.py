"""Scores of detectors and instance segmenters at the images' own size, and what their surest mistakes are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from resurge.data.loading import SceneBatch
from resurge.data.splits import ObjectSplit
from resurge.errors import UserError
from resurge.tasks.detect.metrics import AveragePrecision, Matches, encode_masks, f1, match
from resurge.tasks.detect.outputs import found_in
from resurge.tasks.result import Size
from resurge.tasks.scenes.metrics import EXAMPLES, SceneScores, own_size
from resurge.tasks.task import Task


class ObjectScores(SceneScores[ObjectSplit]):
    """COCO's average precision and recall of boxes, and of masks where the task has them; see `SceneScores`.

    `metrics` has `box`, for instances also `mask`, as `AveragePrecision.compute` gives them, and `objects`, their
    number without crowds.
    """

    def __init__(self, task: Task, classes: Sequence[str], examples: int = EXAMPLES) -> None:
        self._truth: dict[str, tuple[Size, dict[str, Any]]] = {}
        super().__init__(task, classes, examples)

    def reset(self, device: torch.device | None = None) -> None:
        """Forget all predictions. The truth is kept, so that another validation reads no annotations."""
        super().reset()
        self._precision = AveragePrecision(self.classes, ("box", "mask") if self.task.masks else ("box",))

    def empty(self) -> ObjectScores:
        return ObjectScores(self.task, self.classes, self.examples)

    def check(self, model: nn.Module, split: object) -> None:
        if not isinstance(split, ObjectSplit):
            raise UserError(f"the task {self.task.name} needs images with objects.")
        if len(set(split.image_ids)) < len(split):
            raise UserError("the image numbers of the data must differ, but one occurs twice.")
        known = getattr(model, "num_classes", len(self.classes))
        if known != len(self.classes):
            raise UserError(f"the model tells {known} classes apart, but the data has {len(self.classes)}.")

    def state(self) -> dict[str, Any]:
        return super().state() | {"precision": self._precision.state()}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        super().merge(states)
        self._precision.merge(state["precision"] for state in states)

    def metrics(self) -> dict[str, Any]:
        found = self._precision.compute()
        return found | {"objects": sum(row["n"] for row in found["box"]["per_class"])}

    def update(self, model: nn.Module, batch: SceneBatch, split: ObjectSplit) -> None:
        sizes = torch.tensor(batch.sizes, device=batch.images.device)
        outputs = {name: values.cpu().numpy() for name, values in self.task.outputs(model, batch.images, sizes).items()}
        for row, index in enumerate(batch.indices.tolist()):
            size, truth = self._objects(batch, row, split, index)
            found = found_in(outputs, row, batch.sizes[row], size)
            kept = self._precision.add(split.image_ids[index], size, truth, vars(found))
            image = self.entry(split, index)
            if self.examples:
                matches = match(*kept, "mask" if self.task.masks else "box")
                image |= {"score": f1(*kept, matches), **_surest_mistake(*kept, matches, self.classes)}
            self._images[split.id(index)] = image

    def _objects(self, batch: SceneBatch, row: int, split: ObjectSplit, index: int) -> tuple[Size, dict[str, Any]]:
        """Size and objects of an image as it is, its masks encoded; read once."""
        known = self._truth.get(split.id(index))
        if known is None:
            size = own_size(batch, row, split, index)
            objects = split.target(index)
            truth: dict[str, Any] = {
                "boxes": objects.boxes, "labels": objects.labels, "crowd": objects.crowd, "area": objects.area,
            }  # fmt: skip
            if self.task.masks:
                if objects.regions is None:
                    raise UserError("instance segmentation needs a mask for every object, but the data has boxes only.")
                truth["masks"] = [encode_masks(region.decode(*size)[None], size)[0] for region in objects.regions]
            known = self._truth[split.id(index)] = (size, truth)
        return known


def _surest_mistake(
    truth: dict[str, Any], found: dict[str, Any], matches: Matches, classes: Sequence[str]
) -> dict[str, Any]:
    """`overlap`, mean IoU of the objects found; `weight` and `wrong`, score and text of the surest other one."""
    hits = np.flatnonzero(matches.object >= 0)
    result: dict[str, Any] = {"overlap": float(matches.iou[hits, matches.object[hits]].mean()) if hits.size else 0.0}
    misses = np.flatnonzero(matches.object == -1)
    if not misses.size:
        return result
    row = misses[np.argmax(found["scores"][misses])]
    score, label = float(found["scores"][row]), int(found["labels"][row])
    overlaps = np.where(truth["crowd"], 0.0, matches.iou[row])
    nearest = int(overlaps.argmax()) if overlaps.size else -1
    same = np.where(truth["labels"] == label, overlaps, 0.0)
    text = f"{classes[label]} {score:.2f} "
    if same.size and same.max() >= 0.5:
        text += "where another detection has found the object"
    elif overlaps.size and overlaps[nearest] >= 0.5:
        text += f"on {classes[truth['labels'][nearest]]} (IoU {overlaps[nearest]:.2f})"
    elif same.size and same.max() >= 0.1:
        text += f"off its place (IoU {same.max():.2f})"
    else:
        text += "where no object is"
    return result | {"weight": score, "wrong": text}
