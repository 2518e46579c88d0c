"""What the trainings of detectors and of segmenters have in common: preprocessing, augmentation and batches."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch.utils.data import Dataset

from resurge.data.loading import SceneBatch, SceneDataset, collate_scenes
from resurge.data.preprocessing import ScenePreprocessing, default_scene_preprocessing
from resurge.data.splits import DataBundle
from resurge.tasks.objective import Objective

if TYPE_CHECKING:
    from resurge.recipe import Recipe
    from resurge.tasks.task import Task


class SceneObjective(Objective):
    """The training of a detector or segmenter."""

    def __init__(self, task: Task, recipe: Recipe, bundle: DataBundle) -> None:
        super().__init__(task, recipe, bundle)
        self.preprocessing = scene_preprocessings(recipe, bundle)

    def training_data(self, split: Any) -> Dataset[Any]:
        augment, seed = self.recipe.augmentation, self.recipe.seed
        return SceneDataset(split, self.preprocessing[0], augment, seed, annotation=self.task.annotation)

    def collate(self, samples: Any) -> SceneBatch:
        return collate_scenes(samples)


def scene_preprocessings(recipe: Recipe, bundle: DataBundle) -> tuple[ScenePreprocessing, ScenePreprocessing]:
    """(Of the training, of the evaluation): the same but for the size."""
    images = recipe.images
    size = bundle.default_size if images.size is None else images.size
    training = default_scene_preprocessing(bundle, size, max_size=images.max_size, interpolation=images.interpolation)
    if images.mean is not None and images.std is not None:
        training = replace(training, channels=len(images.mean), mean=images.mean, std=images.std)
    if images.eval_size is None:
        return training, training
    evaluation = default_scene_preprocessing(bundle, images.eval_size, max_size=images.max_size)
    return training, replace(training, short_side=evaluation.short_side, max_size=evaluation.max_size)
