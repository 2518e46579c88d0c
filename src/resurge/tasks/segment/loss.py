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
from resurge.tasks.objective import SceneObjective, Sums

if TYPE_CHECKING:
    from resurge.recipe import Recipe
    from resurge.tasks.task import Task

log = logging.getLogger(__name__)


class Segmentation(SceneObjective):
    """A class per pixel."""

    def __init__(self, task: Task, recipe: Recipe, bundle: DataBundle[MaskSplit]) -> None:
        super().__init__(task, recipe, bundle)
        self._class_weights = self.class_weights(bundle, median_frequency_weights)
        self._train = bundle.train
        # of the training images whose crops held ignored pixels only: whether the whole label map does
        self._ignored: dict[int, bool] = {}
        self._warned = False

    def losses(self, net: nn.Module, batch: SceneBatch) -> tuple[dict[str, Tensor], Sums]:
        height, width = batch.images.shape[-2:]
        maps = [target["mask"] for target in batch.targets]
        padded = [F.pad(m, (0, width - m.shape[1], 0, height - m.shape[0]), value=IGNORE) for m in maps]
        masks = torch.stack(padded)
        if not self._warned:
            blank = (masks == IGNORE).flatten(1).all(1)
            for index in batch.indices.to(blank.device)[blank].tolist():
                if index not in self._ignored:  # a crop may rightly hold ignored pixels only
                    self._ignored[index] = _is_ignored(self._train, index)
        weights = None if self._class_weights is None else self._class_weights.to(masks.device)
        return net.losses(batch.images, masks, weights), {}  # type: ignore[operator]

    def validated(self, reduce: Reduce, gather: Gather) -> dict[str, float]:
        if not self._warned:
            found = sorted({index for one in gather(self._ignored) for index, ignored in one.items() if ignored})
            self._warned = bool(found)
            if found and is_first():
                log.warning(
                    "of %d training images %d have nothing but ignored pixels in their label maps and teach nothing: "
                    "%s%s; label them, or remove the images",
                    len(self._train),
                    len(found),
                    ", ".join(self._train.ids[index] for index in found[:3]),
                    ", …" if len(found) > 3 else "",
                )
        return super().validated(reduce, gather)


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
