"""The training of a segmenter: cross-entropy per pixel."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resurge.data.loading import SceneBatch
from resurge.data.splits import IGNORE, DataBundle, MaskSplit
from resurge.errors import UserError
from resurge.processes import is_first
from resurge.tasks.evaluation import Gather, Reduce
from resurge.tasks.objective import Sums, given_class_weights
from resurge.tasks.scenes.loss import SceneObjective

if TYPE_CHECKING:
    from resurge.recipe import Recipe
    from resurge.tasks.task import Task

log = logging.getLogger(__name__)


class Segmentation(SceneObjective):
    """A class per pixel."""

    def __init__(self, task: Task, recipe: Recipe, bundle: DataBundle) -> None:
        super().__init__(task, recipe, bundle)
        wanted = recipe.regularization.class_weights
        self._class_weights: Tensor | None = None
        if wanted == "auto":
            self._class_weights = median_frequency_weights(bundle.train, bundle.num_classes)
        elif wanted != "none":
            self._class_weights = given_class_weights(recipe, bundle)
        self._train = bundle.train
        # of the training images whose crops held ignored pixels only: whether the whole label map does
        self._ignored: dict[int, bool] = {}
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

    def validated(self, reduce: Reduce, gather: Gather) -> dict[str, float]:
        if not self._warned:
            found = [index for one in gather(self._ignored) for index, ignored in one.items() if ignored]
            self._warn(sorted(set(found)))
        return super().validated(reduce, gather)

    def _watch(self, indices: Tensor, blank: Tensor) -> None:
        """Look at the whole label map where only ignored pixels were seen: in a crop that may be right."""
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
