"""The training of a classifier: cross-entropy, mixed batches, accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, default_collate
from torchvision.transforms import v2

from resurge.data.loading import IndexedDataset, SomeSplit, class_weights
from resurge.data.preprocessing import Preprocessing
from resurge.data.splits import DataBundle, Split
from resurge.data.transforms import TrainTransform
from resurge.errors import UserError
from resurge.quantities import number_of
from resurge.tasks.classify.report import TOP
from resurge.tasks.objective import Objective, Sums, pixel_values

if TYPE_CHECKING:
    from resurge.recipe import Recipe
    from resurge.tasks.task import Task

Batch = tuple[Tensor, Tensor]


class Classification(Objective):
    """One label per image: images (N, C, H, W), labels (N,) or, mixed, (N, K)."""

    def __init__(self, task: Task, recipe: Recipe, bundle: DataBundle[Split]) -> None:
        training, evaluation = preprocessings(recipe, bundle)
        super().__init__(task, recipe, bundle, (training, evaluation))
        if recipe.optimization.select_by == "top5" and len(self.classes) <= TOP:
            raise UserError(
                f"select_by=top5 picks nothing among {number_of(len(self.classes), 'class', 'classes')}, where every "
                "prediction is among the best five. Take top1."
            )
        self._transform = TrainTransform(training, recipe.augmentation)
        self._class_weights = self.class_weights(bundle, lambda split, count: class_weights(split.labels, count))
        self._mix_batch = _batch_mixing(recipe, len(self.classes))

    def training_data(self, split: SomeSplit) -> Dataset[object]:
        assert isinstance(split, Split)
        return IndexedDataset(split, self._transform, self.recipe.seed)

    def collate(self, samples: Sequence[Any]) -> Any:
        return default_collate(list(samples)) if len(samples[0]) == 2 else super().collate(samples)

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


def preprocessings(recipe: Recipe, bundle: DataBundle[Split]) -> tuple[Preprocessing, Preprocessing]:
    """(Of the training, of the evaluation): the same but for the size. Data sets of tiny images (up to 64 pixels) are
    resized whole to the square; of others 0.875 of the side is cut out unless the recipe says another share."""
    images, tiny = recipe.images, bundle.default_size <= 64
    size = bundle.default_size if images.size is None else images.size
    crop = (1.0 if tiny else 0.875) if images.crop_pct is None else images.crop_pct
    values = vars(pixel_values(recipe, bundle))
    training = Preprocessing(size, crop, interpolation=images.interpolation, squash=tiny and crop == 1, **values)
    return training, training if images.eval_size is None else replace(training, size=images.eval_size)


def _batch_mixing(recipe: Recipe, classes: int) -> nn.Module | None:
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
