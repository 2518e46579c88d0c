"""Detection, instance segmentation and semantic segmentation: batches of scenes, their losses and their scores."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from resurge.data.bundle import DataBundle
from resurge.data.scene_transforms import SceneAugment, SceneDataset, ScenePreprocessing, default_scene_preprocessing
from resurge.data.scenes import IGNORE, MaskSplit, SceneBatch, collate_scenes
from resurge.errors import UserError
from resurge.processes import is_first
from resurge.tasks.classify.objective import given_class_weights
from resurge.tasks.evaluate_scenes import PreparedScenes, SceneScores, evaluate_scenes
from resurge.tasks.objective import Gather, Sums

if TYPE_CHECKING:
    from resurge.recipe import Recipe

log = logging.getLogger(__name__)


class _Scenes:
    """What the three have in common."""

    task: ClassVar[str]
    figures: ClassVar[tuple[str, ...]]
    train_figures: ClassVar[tuple[str, ...]] = ()

    def __init__(self, recipe: Recipe, bundle: DataBundle) -> None:
        self.recipe = recipe
        self.classes = bundle.classes
        self.preprocessing = scene_preprocessings(recipe, bundle)
        self._scores: SceneScores | None = None
        self._split: Any = None

    def training_data(self, split: Any) -> Dataset[Any]:
        augment = scene_augmentation(self.recipe)
        return SceneDataset(split, self.preprocessing[0], augment, self.recipe.seed, train=True, task=self.task)

    def evaluation_data(self, split: Any) -> Dataset[Any]:
        # the truth is read from the split, at the images' own size
        return PreparedScenes(split, self.preprocessing[1])

    def collate(self, samples: Any) -> SceneBatch:
        return collate_scenes(samples)

    def augment_batch(self, batch: SceneBatch) -> SceneBatch:
        return batch

    def parts_to_compile(self, net: nn.Module) -> list[nn.Module]:
        return [net.backbone]  # type: ignore[list-item]

    def start_validation(self, split: Any, device: torch.device) -> None:
        if self._scores is None or self._split is not split:
            self._scores = SceneScores(self.task, self.classes, examples=0)
        self._split = split
        self._scores.reset()

    def validate(self, net: nn.Module, batch: SceneBatch) -> None:
        assert self._scores is not None
        self._scores.update(net, batch, self._split)

    def validated(self, reduce: Callable[[Tensor], Tensor], gather: Gather) -> dict[str, float]:
        if self._scores is None:
            return {}
        result = self._scores.compute(gather)
        if not result["count"]:
            return {}
        return {name: _number(value) for name, value in few_scores(result).items()} | {"count": result["count"]}

    def evaluate(self, net: nn.Module, split: Any, **how: Any) -> dict[str, Any]:
        testing = self.recipe.testing
        if self.task == "segment":
            how |= {"scales": testing.test_scales, "flip": testing.test_flip, "window": testing.test_window}
        result = evaluate_scenes(net, split, self.preprocessing[1], self.classes, task=self.task, **how)
        return result | {"scores": few_scores(result)}


class Segmentation(_Scenes):
    """A class for every pixel."""

    task = "segment"
    figures: ClassVar[tuple[str, ...]] = ("miou", "pixel_accuracy")

    def __init__(self, recipe: Recipe, bundle: DataBundle) -> None:
        super().__init__(recipe, bundle)
        wanted = recipe.regularization.class_weights
        self._class_weights: Tensor | None = None
        if wanted == "auto":
            self._class_weights = median_frequency_weights(bundle.train, bundle.num_classes)
        elif wanted != "none":
            self._class_weights = given_class_weights(recipe, bundle)
        self._train = bundle.train
        self._ignored: dict[int, bool] = {}  # of training images with a view of ignored pixels only: is all of it so
        self._warned = False

    def losses(self, net: nn.Module, batch: SceneBatch) -> tuple[dict[str, Tensor], Sums]:
        height, width = batch.images.shape[-2:]
        masks = torch.stack(
            [
                F.pad(mask, (0, width - mask.shape[1], 0, height - mask.shape[0]), value=IGNORE)
                for mask in (target["mask"] for target in batch.targets)
            ]
        )
        if not self._warned:
            self._watch(batch.indices, (masks == IGNORE).flatten(1).all(1))
        weights = None if self._class_weights is None else self._class_weights.to(masks.device)
        return net.losses(batch.images, masks, weights), {}  # type: ignore[operator]

    def validated(self, reduce: Callable[[Tensor], Tensor], gather: Gather) -> dict[str, float]:
        if not self._warned:
            found = [index for one in gather(self._ignored) for index, ignored in one.items() if ignored]
            self._warn(sorted(set(found)))
        return super().validated(reduce, gather)

    def _watch(self, indices: Tensor, blank: Tensor) -> None:
        """Look at the whole label maps of images that showed nothing but ignored pixels: a crop may, and be right."""
        for index in indices.to(blank.device)[blank].tolist():
            if index not in self._ignored:
                self._ignored[index] = _is_ignored(self._train, index)

    def _warn(self, indices: list[int]) -> None:
        """Say once, in one process, which training images teach nothing."""
        self._warned = bool(indices)
        if indices and is_first():
            log.warning(
                "of %d training images %d have nothing but ignored pixels in their label maps and teach nothing: %s%s; "
                "label them, or remove the images",
                len(self._train),
                len(indices),
                ", ".join(self._train.ids[index] for index in indices[:3]),
                ", …" if len(indices) > 3 else "",
            )


class Detection(_Scenes):
    """Boxes with classes."""

    task = "detect"
    figures: ClassVar[tuple[str, ...]] = ("box_ap", "box_ap50")

    def losses(self, net: nn.Module, batch: SceneBatch) -> tuple[dict[str, Tensor], Sums]:
        return net.losses(batch.images, batch.targets, batch.sizes), {}  # type: ignore[operator]


class Instances(Detection):
    """Boxes and masks with classes."""

    task = "instances"
    figures: ClassVar[tuple[str, ...]] = ("mask_ap", "mask_ap50", "box_ap", "box_ap50")


def median_frequency_weights(split: MaskSplit, num_classes: int) -> Tensor:
    """float32 (num_classes,): the median of the classes' frequencies, divided by the class's (Eigen and Fergus 2015,
    arXiv:1411.4734, section 6.3.2). A frequency is over the pixels of the images that have the class; one that no image
    has weighs nothing. Reads every label map once."""
    pixels, present = torch.zeros(num_classes, dtype=torch.float64), torch.zeros(num_classes, dtype=torch.float64)
    for index in range(len(split)):
        try:
            labels = torch.from_numpy(split.target(index)).flatten().long()
        except UserError:
            continue  # training replaces it when its turn comes, and says so
        counts = torch.bincount(labels[labels != IGNORE], minlength=num_classes)[:num_classes].double()
        pixels += counts
        present += (counts > 0) * labels.numel()
    frequency = pixels / present.clamp(min=1)
    known = frequency > 0
    if not bool(known.any()):
        raise UserError("the label maps hold ignored pixels only, so class_weights=auto has nothing to go by.")
    return torch.where(known, frequency[known].median() / frequency.clamp(min=1e-12), 0.0).float()


def _is_ignored(split: MaskSplit, index: int) -> bool:
    """Whether no pixel of a label map counts."""
    try:
        return bool((split.target(index) == IGNORE).all())
    except UserError:
        return False


def few_scores(result: dict[str, Any]) -> dict[str, float | None]:
    """The scores that stand for an evaluation: of `evaluate_scenes` or `SceneScores.compute`."""
    if "miou" in result:
        return {"miou": result["miou"], "pixel_accuracy": result["pixel_accuracy"]}
    return {f"{kind}_{key}": result[kind][key] for kind in ("mask", "box") if kind in result for key in ("ap", "ap50")}


def _number(value: float | None) -> float:
    """A score to compare by; one that is not defined, since there is nothing to find, is the worst."""
    return 0.0 if value is None else value


def scene_preprocessings(recipe: Recipe, bundle: DataBundle) -> tuple[ScenePreprocessing, ScenePreprocessing]:
    """(training's, evaluation's): the same but for the size."""
    images = recipe.images
    size = bundle.default_size if images.size is None else images.size
    training = default_scene_preprocessing(bundle, size, max_size=images.max_size, interpolation=images.interpolation)
    if images.mean is not None and images.std is not None:
        training = replace(training, channels=len(images.mean), mean=images.mean, std=images.std)
    if images.eval_size is None:
        return training, training
    evaluation = default_scene_preprocessing(bundle, images.eval_size, max_size=images.max_size)
    return training, replace(training, short_side=evaluation.short_side, max_size=evaluation.max_size)


def scene_augmentation(recipe: Recipe) -> SceneAugment:
    """The recipe's augmentation in the terms of the data part."""
    setting = recipe.augmentation
    jitter, crop = setting.scale_jitter, setting.crop_size
    return SceneAugment(
        short_sides=setting.short_sides,
        jitter=None if jitter is None else (jitter[0], jitter[1]),
        crop=None if crop is None else (crop[0], crop[1]),
        hflip=setting.hflip,
        vflip=setting.vflip,
        rotate90=setting.rotate90,
        photometric=setting.photometric,
        colour=setting.color_jitter,
    )
