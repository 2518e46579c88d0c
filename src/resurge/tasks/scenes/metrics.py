"""What the scores of detectors and of segmenters have in common: images at their own size, and examples to look at."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from resurge.data.images import read_bytes, read_header
from resurge.data.loading import SceneBatch
from resurge.data.splits import MaskSplit, ObjectSplit
from resurge.tasks.evaluation import Gather, PreparedImages, Reduce, Scores, SplitT
from resurge.tasks.result import Size

if TYPE_CHECKING:
    from PIL import Image
    from typing_extensions import Self

    from resurge.tasks.task import Task

EXAMPLES = 12
Scenes = ObjectSplit | MaskSplit
Entry = dict[str, Any]
"""What is kept of an image, by name."""


class PreparedScenes(PreparedImages[Scenes]):
    """Images of a split as a network sees them in evaluation: ((C, h, w), {"original": (2,)}, index)."""

    def about(self, image: Image.Image, index: int) -> dict[str, Tensor]:
        return {"original": torch.tensor([image.height, image.width])}


class SceneScores(Scores[SceneBatch, SplitT]):
    """Scores of a detector or segmenter.

    The images of a batch are found in the split by the batch's indices. The truth is taken from the split at the size
    of the image, not from the targets of the batch, which are resized. An image counts once however often it comes.

    Beside the scores, images to look at are named: lists `best`, `worst` and `wrong` with `id`, `index`, `path` and
    `score`. The score of an image is F1 at IoU 0.5 and a detection score of 0.5 (of masks for instances; among equal
    ones the mean overlap of the objects found decides), for segment the mean IoU over the classes that are in the
    truth or the prediction; images without anything to score are left out. `wrong` is ordered by `weight`: the score of
    the surest detection that finds no object, for segment the probability of the predicted class summed over the wrong
    pixels and divided by the number of pixels; its text `wrong` says what was taken for what.

    Args:
        task: the task.
        classes: their names.
        examples: images in each list.
    """

    def __init__(self, task: Task, classes: Sequence[str], examples: int = EXAMPLES) -> None:
        self.task = task
        self.classes = tuple(classes)
        self.examples = examples
        self.reset()

    def reset(self, device: torch.device | None = None) -> None:
        """Forget all predictions."""
        self._images: dict[str, Entry] = {}

    def state(self) -> dict[str, Any]:
        """What has been collected; can be pickled and sent to another process."""
        return {"images": self._images}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Take in what other processes have collected, in any order."""
        for state in states:
            for name, image in state["images"].items():
                present = self._images.get(name)
                if present is None or _rank(image) > _rank(present):
                    self._images[name] = image

    def compute(self) -> dict[str, Any]:
        found = {"task": self.task.name, "count": len(self._images)}
        return found | self.metrics() | {"examples": self._named()}

    @abstractmethod
    def metrics(self) -> dict[str, Any]:
        """The scores over all images, as plain data."""

    @abstractmethod
    def empty(self) -> Self:
        """The same without any image."""

    def merged(self, gather: Gather) -> Self:
        """What all processes have collected together."""
        whole = self.empty()
        whole.merge(gather(self.state()))
        return whole

    def validated(self, reduce: Reduce, gather: Gather) -> dict[str, float]:
        result = self.merged(gather).compute()
        if not result["count"]:
            return {}
        # a score that is not defined, since there is nothing to find, is the worst
        return {name: value or 0.0 for name, value in self.task.summary(result).items()} | {"count": result["count"]}

    def entry(self, split: Scenes, index: int) -> Entry:
        """What is kept of every image."""
        path = split.path(index)
        return {"id": split.id(index), "index": index, "path": None if path is None else str(path)}

    def _named(self) -> dict[str, list[dict[str, Any]]]:
        """Images to look at. Where two are equal, the earlier one of the split comes first."""
        images = sorted(self._images.values(), key=lambda image: (image["index"], image["id"]))
        scored = [image for image in images if image.get("score") is not None]
        mistaken = [image for image in images if "wrong" in image]
        keys = ("id", "index", "path", "score")
        best = sorted(scored, key=lambda image: (-image["score"], -image.get("overlap", 0.0)))[: self.examples]
        worst = sorted(scored, key=lambda image: (image["score"], image.get("overlap", 0.0)))[: self.examples]
        wrong = sorted(mistaken, key=lambda image: -image["weight"])[: self.examples]
        return {
            "best": [{key: image[key] for key in keys} for image in best],
            "worst": [{key: image[key] for key in keys} for image in worst],
            "wrong": [{key: image[key] for key in (*keys, "weight", "wrong")} for image in wrong],
        }


def own_size(batch: SceneBatch, row: int, split: Scenes, index: int) -> Size:
    """(height, width) of the upright image, from the batch if it says, else from the file's header."""
    told = batch.targets[row].get("original")
    if told is not None:
        height, width = told.tolist()
        return int(height), int(width)
    path = split.path(index)
    if path is None:
        width, height = split.read(index).size
    else:
        header = read_header(read_bytes(path), str(path))
        width, height = header.size if header.orientation < 5 else header.size[::-1]  # 5 to 8 lie on their side
    return height, width


def _rank(image: dict[str, Any]) -> tuple[Any, ...]:
    """An order between two results for one image: other batches may have changed its last digits."""
    places, counts = image.get("confusion", (np.zeros(0), np.zeros(0)))
    return places.tolist(), counts.tolist(), image.get("score") or 0.0, image.get("weight", 0.0), image["index"]
