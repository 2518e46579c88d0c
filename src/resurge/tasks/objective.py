"""What a training needs of a task: samples, losses and validation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from resurge.data.loading import SceneBatch, SceneDataset, SomeSplit
from resurge.data.preprocessing import ScenePreprocessing, usual_values
from resurge.data.splits import AnySplit, DataBundle, ObjectSplit, Split
from resurge.data.transforms import never_seen
from resurge.errors import UserError
from resurge.tasks.evaluation import Batch, Gather, Reduce, Seen

if TYPE_CHECKING:
    from resurge.recipe import Recipe
    from resurge.tasks.task import Task

Sums = dict[str, Tensor]


class Objective(ABC):
    """The part of a training that depends on the task; made once, from the recipe and the data.

    Attributes:
        preprocessing: (of the training, of the evaluation).
        scores: what a validation collects.
        metrics: names of the metrics of a validation; the first one picks the weights that are kept.
        notes: what the user should know about the data as this training takes it.
    """

    notes: Sequence[str] = ()

    def __init__(
        self, task: Task, recipe: Recipe, bundle: DataBundle[AnySplit], preprocessing: tuple[Seen, Seen]
    ) -> None:
        """Raises UserError for a field of the recipe that does not fit the data."""
        self.task, self.recipe, self.preprocessing = task, recipe, preprocessing
        self.classes = task.classes or bundle.classes
        self.scores = task.scores(self.classes, examples=0)
        first = recipe.optimization.select_by or task.metrics[0]
        self.metrics = tuple(dict.fromkeys((first, *task.all_metrics)))

    @abstractmethod
    def training_data(self, split: SomeSplit) -> Dataset[object]:
        """Samples by (epoch, index), each a pure function of it and the seed."""

    def collate(self, samples: Sequence[Any]) -> Batch:
        """A batch of samples of a training or of an evaluation; its first field is its images."""
        return self.task.collate(samples)

    def augment_batch(self, batch: Batch) -> Batch:
        """Random augmentation of a whole batch of a training."""
        return batch

    @abstractmethod
    def losses(self, net: nn.Module, batch: Batch) -> tuple[dict[str, Tensor], Sums]:
        """The terms of the loss by name, whose sum is minimised, and sums over the batch of `Task.train_metrics`."""

    def validated(self, reduce: Reduce, gather: Gather) -> dict[str, float]:
        """The metrics over all processes, and `loss` where there is one; empty when nothing was validated."""
        return self.scores.validated(reduce, gather)

    def parts_to_compile(self, net: nn.Module) -> list[nn.Module]:
        """The modules that `torch.compile` is to work on."""
        return [net.get_submodule("backbone")]

    def class_weights(
        self, bundle: DataBundle[AnySplit], automatic: Callable[[AnySplit, int], Tensor]
    ) -> Tensor | None:
        """The weight of each class in the loss, float32 (K,), as the recipe wants it; `automatic` makes those of
        `auto` from the training split and the number of classes. Raises UserError when the recipe lists another number.
        """
        wanted = self.recipe.regularization.class_weights
        if wanted == "none":
            return None
        if wanted == "auto":
            return automatic(bundle.train, bundle.num_classes)
        if len(wanted) != bundle.num_classes:
            raise UserError(f"class_weights has {len(wanted)} numbers, but the data has {bundle.num_classes} classes.")
        return torch.tensor(wanted)


class SceneObjective(Objective):
    """The training of a detector or segmenter; the losses are those of its network."""

    def __init__(self, task: Task, recipe: Recipe, bundle: DataBundle[AnySplit]) -> None:
        self._training, evaluation = scene_preprocessings(recipe, bundle)
        super().__init__(task, recipe, bundle, (self._training, evaluation))
        if isinstance(bundle.train, ObjectSplit):
            self.notes = never_seen(bundle.train, self._training)

    def training_data(self, split: SomeSplit) -> Dataset[object]:
        assert not isinstance(split, Split)
        augment, seed = self.recipe.augmentation, self.recipe.seed
        return SceneDataset(split, self._training, augment, seed, annotation=self.task.annotation)

    def losses(self, net: nn.Module, batch: SceneBatch) -> tuple[dict[str, Tensor], Sums]:
        return net.losses(batch.images, batch.targets, batch.sizes), {}  # type: ignore[operator]


def scene_preprocessings(recipe: Recipe, bundle: DataBundle[AnySplit]) -> tuple[ScenePreprocessing, ScenePreprocessing]:
    """(Of the training, of the evaluation): the same but for the size, in which 0 keeps that of the images. The longer
    side is at most 5/3 of the shorter unless the recipe says another bound (COCO's 800 and 1333)."""
    images, values = recipe.images, pixel_values(recipe, bundle)

    def resized_to(short: int) -> ScenePreprocessing:
        longest = images.max_size or max(round((short or bundle.default_size) * 5 / 3), 1)
        return ScenePreprocessing(min(short, longest) if short else None, longest, *values, images.interpolation)

    training = resized_to(bundle.default_size if images.size is None else images.size)
    return training, training if images.eval_size is None else resized_to(images.eval_size)


def pixel_values(recipe: Recipe, bundle: DataBundle[AnySplit]) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """(mean, std, channels) of the recipe, or the data's usual ones."""
    mean, std = recipe.images.mean, recipe.images.std
    return usual_values(bundle) if mean is None or std is None else (mean, std, len(mean))
