"""Image classification: cross-entropy, mixed batches, accuracy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, default_collate
from torchvision.transforms import v2

from resurge.data.bundle import DataBundle, Split
from resurge.data.loading import IndexedDataset, class_weights
from resurge.data.transforms import Augment, Preprocessing, default_preprocessing, train_transform
from resurge.errors import UserError
from resurge.tasks.classify.evaluate import evaluate
from resurge.tasks.objective import Gather, Sums

if TYPE_CHECKING:
    from resurge.recipe import Recipe

Batch = tuple[Tensor, Tensor]


class Classification:
    """One label an image: images (N, C, H, W), labels (N,) or, mixed, (N, K)."""

    figures: ClassVar[tuple[str, ...]] = ("top1", "top5")
    train_figures: ClassVar[tuple[str, ...]] = ("top1",)

    def __init__(self, recipe: Recipe, bundle: DataBundle) -> None:
        self.recipe = recipe
        self.classes = bundle.classes
        self.preprocessing = preprocessings(recipe, bundle)
        self._class_weights = _class_weights(recipe, bundle)
        self._mix_batch = _batch_mixing(recipe, bundle.num_classes)
        self._sums = torch.zeros(4, dtype=torch.float64)

    # ------------------------------------------------------------------------------------------------- data

    def training_data(self, split: Split) -> Dataset[Any]:
        transform = train_transform(self.preprocessing[0], augmentation(self.recipe))
        return IndexedDataset(split, transform, self.recipe.seed, train=True)

    def evaluation_data(self, split: Split) -> Dataset[Any]:
        return IndexedDataset(split, self.preprocessing[1], strict=True)

    def collate(self, samples: Any) -> Any:
        return default_collate(samples)

    # ---------------------------------------------------------------------------------------------- training

    def augment_batch(self, batch: Batch) -> Batch:
        images, labels = batch
        if self._mix_batch is None or len(images) == 1:
            return batch
        mixed: Batch = self._mix_batch(images, labels)
        return mixed

    def losses(self, net: nn.Module, batch: Batch) -> tuple[dict[str, Tensor], Sums]:
        images, targets = batch
        weights = None if self._class_weights is None else self._class_weights.to(images.device)
        logits = net(images)
        smoothing = self.recipe.regularization.label_smoothing
        loss = F.cross_entropy(logits.float(), targets, weight=weights, label_smoothing=smoothing)
        hard = targets.argmax(1) if targets.ndim > 1 else targets
        return {"loss": loss}, {"top1": (logits.detach().argmax(1) == hard).sum()}

    def parts_to_compile(self, net: nn.Module) -> list[nn.Module]:
        return [net]

    # -------------------------------------------------------------------------------------------- validation

    def start_validation(self, split: Split, device: torch.device) -> None:
        # sums of loss, right answers, right ones among five, images; double, so that no order of sums shows
        self._sums = torch.zeros(4, dtype=torch.float64, device=device)

    def validate(self, net: nn.Module, batch: Batch) -> None:
        images, labels = batch
        logits = net(images).float()
        loss = F.cross_entropy(logits, labels, reduction="sum")
        top = logits.topk(min(5, logits.shape[1]), 1).indices == labels[:, None]
        count = torch.tensor(len(labels), device=logits.device)
        self._sums += torch.stack([loss, top[:, 0].sum(), top.any(1).sum(), count]).double()

    def validated(self, reduce: Callable[[Tensor], Tensor], gather: Gather) -> dict[str, float]:
        loss, top1, top5, count = reduce(self._sums.clone()).tolist()
        return {"loss": loss / count, "top1": top1 / count, "top5": top5 / count, "count": count} if count else {}

    def evaluate(self, net: nn.Module, split: Split, **how: Any) -> dict[str, Any]:
        result = evaluate(net, split, self.preprocessing[1], self.classes, **how)
        return result | {"scores": {key: result[key] for key in ("top1", "top5", "nll", "ece")}}


def preprocessings(recipe: Recipe, bundle: DataBundle) -> tuple[Preprocessing, Preprocessing]:
    """(training's, evaluation's): the same but for the size."""
    images = recipe.images
    training = default_preprocessing(bundle, images.size, crop_pct=images.crop_pct, interpolation=images.interpolation)
    if images.mean is not None and images.std is not None:
        channels = len(images.mean)
        training = replace(training, channels=channels, mean=images.mean, std=images.std)
    if images.eval_size is None:
        return training, training
    return training, replace(training, size=images.eval_size)


def augmentation(recipe: Recipe) -> Augment:
    """The recipe's augmentation in the terms of the data part."""
    setting = recipe.augmentation
    scale, ratio = setting.crop_scale, setting.crop_ratio
    return Augment(
        scale=None if scale is None else (scale[0], scale[1]),
        ratio=(ratio[0], ratio[1]),
        padding_crop=setting.pad_crop,
        hflip=setting.hflip,
        rotate=setting.affine_degrees,
        translate=setting.affine_translate,
        zoom=setting.affine_scale,
        shear=setting.affine_shear,
        auto=setting.auto_augment,
        auto_policy=setting.auto_policy,
        auto_ops=setting.auto_operations,
        auto_magnitude=setting.auto_magnitude,
        jitter=setting.color_jitter,
        erase=setting.random_erasing,
    )


def _class_weights(recipe: Recipe, bundle: DataBundle) -> Tensor | None:
    wanted = recipe.regularization.class_weights
    if wanted == "none":
        return None
    if wanted == "auto":
        return class_weights(bundle.train.labels, bundle.num_classes)
    return given_class_weights(recipe, bundle)


def given_class_weights(recipe: Recipe, bundle: DataBundle) -> Tensor:
    """The recipe's own list, (K,).

    Raises:
        UserError: it has another number of classes.
    """
    wanted = recipe.regularization.class_weights
    if len(wanted) != bundle.num_classes:
        raise UserError(f"class_weights has {len(wanted)} numbers, but the data has {bundle.num_classes} classes.")
    return torch.tensor(wanted)


def _batch_mixing(recipe: Recipe, classes: int) -> Any:
    """Mixup and CutMix of a batch: (images, labels (N,)) -> (images, labels (N, K)); None when both are off."""
    setting = recipe.regularization
    choices: list[nn.Module] = []
    if setting.mixup:
        choices.append(v2.MixUp(alpha=setting.mixup, num_classes=classes))
    if setting.cutmix:
        choices.append(v2.CutMix(alpha=setting.cutmix, num_classes=classes))
    if not choices:
        return None
    return choices[0] if len(choices) == 1 else v2.RandomChoice(choices)
