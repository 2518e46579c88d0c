"""What a training asks of a task."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from resurge.data.bundle import DataBundle

if TYPE_CHECKING:
    from resurge.recipe import Recipe

Sums = dict[str, Tensor]
Gather = Callable[[Any], list[Any]]


class Objective(Protocol):
    """The part of a training that depends on the task; made once, from the recipe and the data.

    Attributes:
        figures: names of what a validation gives besides `loss`, higher is better; the first decides which weights
            are kept.
        train_figures: names of what the training batches give besides the loss and its terms.
        preprocessing: (training's, evaluation's).
    """

    figures: ClassVar[tuple[str, ...]]
    train_figures: ClassVar[tuple[str, ...]]

    @property
    def preprocessing(self) -> tuple[Any, Any]: ...

    def __init__(self, recipe: Recipe, bundle: DataBundle) -> None: ...

    def training_data(self, split: Any) -> Dataset[Any]:
        """Samples by (epoch, index), each a pure function of it and the seed."""
        ...

    def evaluation_data(self, split: Any) -> Dataset[Any]:
        """Samples as a network sees them in evaluation."""
        ...

    def collate(self, samples: Any) -> Any:
        """From samples to a batch, whose first field is its images."""
        ...

    def augment_batch(self, batch: Any) -> Any:
        """What is done at random to a whole batch of training."""
        ...

    def losses(self, net: nn.Module, batch: Any) -> tuple[dict[str, Tensor], Sums]:
        """The terms of the loss by name, their sum is minimised; and sums over the batch of the `train_figures`."""
        ...

    def start_validation(self, split: Any, device: torch.device) -> None:
        """Forget the last validation; `split` is this process's part of the images."""
        ...

    def validate(self, net: nn.Module, batch: Any) -> None:
        """Take in one batch of validation."""
        ...

    def validated(self, reduce: Callable[[Tensor], Tensor], gather: Gather) -> dict[str, float]:
        """The figures over all processes, and `loss` where there is one; empty when nothing was validated.

        `reduce` sums a tensor over the processes, `gather` brings an object of each to all.
        """
        ...

    def evaluate(self, net: nn.Module, split: Any, **how: Any) -> dict[str, Any]:
        """The scores in full, plain data for evaluation.json, and under `scores` the few for model.json."""
        ...

    def parts_to_compile(self, net: nn.Module) -> list[nn.Module]:
        """The modules that `torch.compile` is to work on."""
        ...
