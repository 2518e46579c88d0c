"""What the scores of detectors and of segmenters have in common: images at their own size, and example images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from resurge.data.loading import SceneBatch, SomeSplit
from resurge.files import Json
from resurge.tasks.evaluation import Gather, Reduce, Scores, SplitT, named
from resurge.tasks.result import Result, Size
from resurge.tasks.tta import TTA

if TYPE_CHECKING:
    from typing_extensions import Self

    from resurge.tasks.task import Task

EXAMPLES = 12


class SceneScores(Scores[SceneBatch, SplitT]):
    """Scores of a detector or segmenter.

    The images of a batch are found in the split by the batch's indices. The truth is taken from the split at the size
    of the image, not from the targets of the batch, which are resized. An image counts once however often it comes.

    Beside the scores, example images are named: lists `best`, `worst` and `wrong` with `id`, `index`, `path` and
    `score`. The score of an image is F1 at IoU 0.5 and a detection score of 0.5 (of masks for instances; among equal
    ones the mean overlap of the objects found decides), for segment the mean IoU over the classes that are in the
    truth or the prediction; images without anything to score are left out. `wrong` is ordered by `weight`: the score of
    the surest detection that finds no object, for segment the probability of the predicted class summed over the wrong
    pixels and divided by the number of pixels; its text `wrong` names what was taken for what.

    `examples` is the number of images in each list.
    """

    def __init__(self, task: Task, classes: Sequence[str], examples: int | None = None, tta: TTA = TTA()) -> None:
        self.examples, self.tta = EXAMPLES if examples is None else examples, tta
        super().__init__(task, classes)

    def reset(self, device: torch.device | None = None) -> None:
        self.images: dict[str, Json] = {}  # what is kept of each image, by its id

    def merged(self, gather: Gather) -> Self:
        """What all processes have collected together, whatever their order."""
        whole = type(self)(self.task, self.classes, self.examples, self.tta)
        for images in gather(self.images):
            for name, image in images.items():
                present = whole.images.get(name)
                if present is None or self.rank(image) > self.rank(present):
                    whole.images[name] = image
        return whole

    def compute(self) -> Json:
        scores, results = self.metrics()
        plugins = self.plugin_scores(results)
        about = {"task": self.task.name, "count": len(self.images)} | scores | {"examples": self._named()}
        return about | ({"plugin_metrics": plugins} if plugins else {})

    @abstractmethod
    def metrics(self) -> tuple[Json, object]:
        """The scores over all images, and what metrics of plugins take."""

    @abstractmethod
    def rank(self, image: Json) -> tuple[object, ...]:
        """An order between two results for one image: other batches may have changed its last digits."""

    def validated(self, reduce: Reduce, gather: Gather) -> dict[str, float]:
        result = self.merged(gather).compute()
        if not result["count"]:
            return {}
        # a score that is not defined, since there is nothing to find, is the worst
        return {name: value or 0.0 for name, value in self.task.summary(result).items()} | {"count": result["count"]}

    def keep(self, split: SomeSplit, index: int, **values: object) -> None:
        """Keep what an image gave; what came of it before is forgotten."""
        self.images[split.id(index)] = named(split, index) | values

    def results(self) -> dict[int, Result]:
        return {image["index"]: self.result(image) for image in self.shown()}

    @abstractmethod
    def result(self, image: Json) -> Result:
        """What was predicted, of what is kept of an image that is among the examples."""

    def shown(self) -> list[Json]:
        """What is kept of the images that are examples."""
        return list({image["id"]: image for images in self._examples().values() for image in images}.values())

    def _named(self) -> dict[str, list[Json]]:
        more: dict[str, tuple[str, ...]] = {"wrong": ("weight", "wrong")}
        keys = {kind: ("id", "index", "path", "score", *more.get(kind, ())) for kind in self._examples()}
        return {k: [{key: one[key] for key in keys[k]} for one in images] for k, images in self._examples().items()}

    def _examples(self) -> dict[str, list[Json]]:
        """The example images. Where two are equal, the earlier one of the split comes first."""
        images = sorted(self.images.values(), key=lambda image: (image["index"], image["id"]))
        scored = [image for image in images if image.get("score") is not None]
        mistaken = [image for image in images if "wrong" in image]
        best = sorted(scored, key=lambda image: (-image["score"], -image.get("overlap", 0.0)))[: self.examples]
        worst = sorted(scored, key=lambda image: (image["score"], image.get("overlap", 0.0)))[: self.examples]
        wrong = sorted(mistaken, key=lambda image: -image["weight"])[: self.examples]
        return {"best": best, "worst": worst, "wrong": wrong}


def own_size(batch: SceneBatch, row: int) -> Size:
    """(height, width) of the upright image of a batch of evaluation."""
    height, width = batch.targets[row]["original"].tolist()
    return int(height), int(width)
