"""What the tasks whose images keep their shape have in common: detection and segmentation. Imports no torch."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from resurge.tasks.task import Network, Task

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from resurge.data.bands import Picture
    from resurge.data.loading import SceneBatch, SomeSplit
    from resurge.data.preprocessing import ScenePreprocessing
    from resurge.data.splits import DataBundle
    from resurge.recipe import Recipe
    from resurge.tasks.evaluation import Evaluation, Seen
    from resurge.tasks.objective import Objective
    from resurge.tasks.result import Result
    from resurge.weights.download import Source

SIDES = (288, 360)  # at least and at most, of the longer side of a picture for a report, pixels
IDLE_IN_SCENES = (
    "augmentation.pad_crop", "augmentation.affine_degrees", "augmentation.affine_translate",
    "augmentation.affine_scale", "augmentation.affine_shear", "augmentation.auto_augment",
    "augmentation.random_erasing", "optimization.balanced_sampling", "regularization.label_smoothing",
    "regularization.mixup", "regularization.cutmix", "regularization.dropout",
)  # fmt: skip
"""Fields of a recipe that only the training of a classifier uses."""


class SceneTask(Task):
    """A task whose images are resized with their aspect kept."""

    published_size: ClassVar[tuple[int, int]]  # the shorter side and the limit of the longer one of published networks

    def published_preprocessing(self, source: Source | None = None) -> ScenePreprocessing:
        from resurge.data.preprocessing import ScenePreprocessing

        return ScenePreprocessing(*self.published_size)

    def about(self, split: SomeSplit, image: Picture, index: int) -> dict[str, Tensor]:
        """The height and width of the image itself."""
        import torch

        return {"original": torch.tensor([image.height, image.width])}

    def collate(self, samples: Sequence[Any]) -> SceneBatch:
        from resurge.data.loading import collate_scenes

        return collate_scenes(samples)

    def objective(self, recipe: Recipe, bundle: DataBundle[Any]) -> Objective:
        from resurge.tasks.objective import SceneObjective

        return SceneObjective(self, recipe, bundle)

    @abstractmethod
    def compare(
        self, image: Image.Image, result: Result, truth: Any, classes: Sequence[str], sides: tuple[int, int]
    ) -> tuple[Image.Image, Image.Image]:
        """The image with its result and the image with the truth on it, their longer side within `sides`, pixels."""

    def write_pictures(self, network: Network, folder: Path, evaluation: Evaluation, split: Any) -> None:
        """Write `explain/KIND_NNN.jpg` (the result) and `explain/KIND_NNN_truth.jpg` of the examples of an evaluation.

        Each example gets the paths as `overlay` and `thumbnail`, from the run directory. Objects are shown from the
        score on that `resurge predict` shows; those of the surest mistakes from their own score on. For label maps the
        colours of the classes are added as `colours`.
        """
        from resurge.explain.heat import save_image
        from resurge.explain.overlays import BACKGROUND, colour

        if self.label_maps:
            named = [(name, "#" + bytes(colour(k)).hex()) for k, name in enumerate(network.classes)]
            evaluation["colours"] = {name: tone for name, tone in named if name != BACKGROUND}
        for kind, entries in evaluation["examples"].items():
            for number, entry in enumerate(entries):
                image, truth = split.read(entry["index"]), split.target(entry["index"])
                score = min(self.shown_score, float(entry.get("weight", self.shown_score)))
                result = evaluation.results[entry["index"]].from_score(score)
                entry["overlay"] = f"explain/{kind}_{number:03d}.jpg"
                entry["thumbnail"] = f"explain/{kind}_{number:03d}_truth.jpg"
                shown = network.preprocessing.shown(image)
                found, there = self.compare(shown, result, truth, network.classes, SIDES)
                save_image(found, folder / entry["overlay"])
                save_image(there, folder / entry["thumbnail"])

    def adjust(self, preprocessing: Seen, given: Mapping[str, Any]) -> ScenePreprocessing:
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
