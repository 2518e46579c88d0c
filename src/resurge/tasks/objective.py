"""What a training needs of a task: samples, losses and validation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from resurge.data.splits import DataBundle
from resurge.errors import UserError
from resurge.tasks.evaluation import Gather, Reduce, Scores, evaluate
from resurge.tasks.tta import TTA

if TYPE_CHECKING:
    from resurge.recipe import Recipe
    from resurge.tasks.task import Task

Sums = dict[str, Tensor]


class Objective(ABC):
    """The part of a training that depends on the task; made once, from the recipe and the data.

    Attributes:
        preprocessing: (of the training, of the evaluation).
    """

    preprocessing: tuple[Any, Any]

    def __init__(self, task: Task, recipe: Recipe, bundle: DataBundle) -> None:
        """Raises UserError for a field of the recipe that does not fit the data."""
        self.task, self.recipe, self.classes = task, recipe, task.classes or bundle.classes
        self._split: Any = None
        self._scores: Scores[Any, Any] | None = None

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the metrics of a validation, higher is better; the first decides which weights are kept."""
        return self.task.metrics

    @property
    def train_figures(self) -> tuple[str, ...]:
        """Names of the metrics of the training batches, besides the loss and its terms."""
        return self.task.train_metrics

    @abstractmethod
    def training_data(self, split: Any) -> Dataset[Any]:
        """Samples by (epoch, index), each a pure function of it and the seed."""

    def evaluation_data(self, split: Any) -> Dataset[Any]:
        """Samples as a network sees them in evaluation."""
        return self.task.prepared(split, self.preprocessing[1])

    @abstractmethod
    def collate(self, samples: Any) -> Any:
        """A batch of samples of a training or of an evaluation; its first field is its images."""

    def augment_batch(self, batch: Any) -> Any:
        """Random augmentation of a whole batch of a training."""
        return batch

    @abstractmethod
    def losses(self, net: nn.Module, batch: Any) -> tuple[dict[str, Tensor], Sums]:
        """The terms of the loss by name, whose sum is minimised, and sums over the batch of the `train_figures`."""

    def start_validation(self, split: Any, device: torch.device) -> None:
        """Forget the last validation; `split` is this process's part of the images."""
        if self._scores is None or self._split is not split:
            self._scores = self.task.scores(self.classes, examples=0)
        self._split = split
        self._scores.reset(device)

    def validate(self, net: nn.Module, batch: Any) -> None:
        """Take in one batch of validation."""
        assert self._scores is not None
        self._scores.update(net, batch, self._split)

    def validated(self, reduce: Reduce, gather: Gather) -> dict[str, float]:
        """The metrics over all processes, and `loss` where there is one; empty when nothing was validated.

        `reduce` sums a tensor over the processes, `gather` brings an object of each to all.
        """
        return {} if self._scores is None else self._scores.validated(reduce, gather)

    def evaluate(self, net: nn.Module, split: Any, **how: Any) -> dict[str, Any]:
        """All scores, plain data for evaluation.json, and under `scores` the few for model.json.

        Args:
            how: as `resurge.tasks.evaluation.evaluate` takes it.
        """
        tta = TTA.of_recipe(self.recipe)
        result = evaluate(self.task, net, split, self.preprocessing[1], self.classes, tta=tta, **how)
        return result | {"scores": self.task.summary(result)}

    def parts_to_compile(self, net: nn.Module) -> list[nn.Module]:
        """The modules that `torch.compile` is to work on."""
        return [net.backbone]  # type: ignore[list-item]


def given_class_weights(recipe: Recipe, bundle: DataBundle) -> Tensor:
    """The recipe's own list, (K,).

    Raises:
        UserError: it has another number of classes.
    """
    wanted = recipe.regularization.class_weights
    if len(wanted) != bundle.num_classes:
        raise UserError(f"class_weights has {len(wanted)} numbers, but the data has {bundle.num_classes} classes.")
    return torch.tensor(wanted)
