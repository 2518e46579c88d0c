"""What the tasks whose images keep their shape have in common: detection and segmentation. Imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resurge.tasks.task import Task

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from resurge.data.loading import SceneBatch
    from resurge.data.preprocessing import Preprocessing, ScenePreprocessing
    from resurge.tasks.scenes.metrics import PreparedScenes, Scenes

IDLE_IN_SCENES = (
    "augmentation.pad_crop", "augmentation.affine_degrees", "augmentation.affine_translate",
    "augmentation.affine_scale", "augmentation.affine_shear", "augmentation.auto_augment",
    "augmentation.random_erasing", "optimization.balanced_sampling", "regularization.label_smoothing",
    "regularization.mixup", "regularization.cutmix", "regularization.dropout",
)  # fmt: skip
"""Fields of a recipe that only the training of a classifier uses."""


class SceneTask(Task):
    """A task whose images are resized with their aspect kept."""

    def read_preprocessing(self, values: Mapping[str, Any]) -> ScenePreprocessing:
        from resurge.data.preprocessing import ScenePreprocessing

        return ScenePreprocessing.from_json(dict(values))

    def prepared(self, split: Scenes, preprocessing: Callable[[Image.Image], Tensor]) -> PreparedScenes:
        from resurge.tasks.scenes.metrics import PreparedScenes

        return PreparedScenes(split, preprocessing)

    def collate(self, samples: Sequence[Any]) -> SceneBatch:
        from resurge.data.loading import collate_scenes

        return collate_scenes(samples)

    def adjust(self, preprocessing: Preprocessing | ScenePreprocessing, given: Mapping[str, Any]) -> ScenePreprocessing:
        from resurge.data.preprocessing import ScenePreprocessing

        assert isinstance(preprocessing, ScenePreprocessing)
        direct = {name: given[name] for name in ("interpolation", "mean", "std") if name in given}
        found = dataclasses.replace(preprocessing, **direct)
        size, limit = given.get("size"), given.get("max_size")
        if size is not None:
            longest = found.max_size
            if longest is not None and limit is None:
                # the limit changes in proportion to the shorter side, as when it was chosen for the training
                longest = round(longest * size / (found.short_side or size))
            found = dataclasses.replace(found, short_side=size, max_size=longest and max(longest, size))
        if limit is not None:
            short = found.short_side
            found = dataclasses.replace(found, max_size=limit, short_side=None if short is None else min(short, limit))
        return found
