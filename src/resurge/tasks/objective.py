"""What a training needs of a task: samples, losses and validation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from resurge.data.augmentation import Augmentation
from resurge.data.bands import is_plain
from resurge.data.loading import SceneBatch, SceneDataset, SomeSplit
from resurge.data.preprocessing import PixelValues, ScenePreprocessing, usual_values
from resurge.data.splits import AnySplit, DataBundle, ObjectSplit, Split
from resurge.data.transforms import SceneTransform, never_seen
from resurge.errors import UserError
from resurge.quantities import number_of
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
            there = number_of(bundle.num_classes, "class", "classes")
            raise UserError(f"class_weights has {number_of(len(wanted), 'number')}, but the data has {there}.")
        return torch.tensor(wanted)


class SceneObjective(Objective):
    """The training of a detector or segmenter; the losses are those of its network."""

    def __init__(self, task: Task, recipe: Recipe, bundle: DataBundle[AnySplit]) -> None:
        self._training, evaluation = scene_preprocessings(recipe, bundle)
        self._augmentation = scene_augmentation(recipe, self._training, bundle)
        super().__init__(task, recipe, bundle, (self._training, evaluation))
        SceneTransform(self._training, recipe.augmentation, task.annotation)  # refuses what cannot be done
        self.notes = [f"training images: {_sizes(self._training, self._augmentation)}"]
        if isinstance(bundle.train, ObjectSplit):
            self.notes += never_seen(bundle.train, self._training)

    def training_data(self, split: SomeSplit) -> Dataset[object]:
        assert not isinstance(split, Split)
        return SceneDataset(
            split, self._training, self._augmentation, self.recipe.seed, annotation=self.task.annotation
        )

    def losses(self, net: nn.Module, batch: SceneBatch) -> tuple[dict[str, Tensor], Sums]:
        return net.losses(batch.images, batch.targets, batch.sizes), {}  # type: ignore[operator]


def scene_preprocessings(recipe: Recipe, bundle: DataBundle[AnySplit]) -> tuple[ScenePreprocessing, ScenePreprocessing]:
    """(Of the training, of the evaluation): the same but for the size, in which 0 keeps that of the images. The longer
    side is at most 5/3 of the shorter unless the recipe says another bound (COCO's 800 and 1333)."""
    images, values = recipe.images, vars(pixel_values(recipe, bundle))

    def resized_to(short: int) -> ScenePreprocessing:
        longest = images.max_size or max(round((short or bundle.default_size) * 5 / 3), 1)
        short_side = min(short, longest) if short else None
        return ScenePreprocessing(short_side, longest, interpolation=images.interpolation, **values)

    training = resized_to(bundle.default_size if images.size is None else images.size)
    return training, training if images.eval_size is None else resized_to(images.eval_size)


def pixel_values(recipe: Recipe, bundle: DataBundle[AnySplit]) -> PixelValues:
    """Those of the data, with mean and deviation of the recipe if it has them. Raises UserError when these are of
    another number of channels than the data."""
    mean, std, channels = recipe.images.mean, recipe.images.std, bundle.in_channels
    if mean is None or std is None:
        return usual_values(bundle)
    if is_plain(channels, bundle.depth) and len(mean) in (1, 3):
        return PixelValues(mean, std, len(mean))
    if len(mean) != channels:
        raise UserError(f"mean and std have {len(mean)} numbers each, but the images have {channels} bands.")
    return replace(usual_values(bundle), mean=mean, std=std)


def scene_augmentation(recipe: Recipe, training: ScenePreprocessing, bundle: DataBundle[AnySplit]) -> Augmentation:
    """The augmentation with the crop that scale_jitter needs: a square of the images' short side unless the recipe says
    another, so that no image of usual shape is mostly padding."""
    augment = recipe.augmentation
    if augment.scale_jitter is None or augment.crop_size is not None:
        return augment
    side = training.short_side or bundle.default_size
    return replace(augment, crop_size=(side, side))


def _sizes(seen: ScenePreprocessing, augment: Augmentation) -> str:
    """In words, how large the images of a training are."""
    sides = " or ".join(map(str, augment.short_sides)) or seen.short_side
    found = f"shorter side {sides} pixels" if sides else "their own size"
    found += f", longer side at most {seen.max_size}" if seen.max_size else ""
    if augment.scale_jitter is not None:
        found += ", times {:g} to {:g}".format(*augment.scale_jitter)
    if augment.crop_size is not None:
        found += ", cut or padded to {} x {} (height x width)".format(*augment.crop_size)
    return found
