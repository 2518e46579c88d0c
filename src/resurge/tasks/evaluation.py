"""Scores on a split: one way for the validation of a training and for `resurge eval`, whatever the task."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from resurge.errors import UserError
from resurge.files import atomic_write_text
from resurge.tasks.running import autocast, evaluating, pick_device
from resurge.tasks.tta import TTA

if TYPE_CHECKING:
    from PIL import Image

    from resurge.tasks.task import Task

BatchT = TypeVar("BatchT", contravariant=True)
SplitT = TypeVar("SplitT", contravariant=True)
ImagesT = TypeVar("ImagesT", bound="Images")

Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor over the processes."""
Gather = Callable[[Any], list[Any]]
"""Brings an object of each process to all of them."""


class Images(Protocol):
    """A split of a data set."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Image.Image: ...


class PreparedImages(Dataset[tuple[Tensor, object, int]], Generic[ImagesT]):
    """Images of a split as a network sees them in evaluation: (tensor (C, h, w), what `about` says, index)."""

    def __init__(self, split: ImagesT, preprocessing: Callable[[Image.Image], Tensor]) -> None:
        self.split = split
        self.preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, object, int]:
        index = key[1] if isinstance(key, tuple) else key  # (epoch, index), as samplers of a training ask
        image = self.split.read(index)
        return self.preprocessing(image), self.about(image, index), index

    def about(self, image: Image.Image, index: int) -> object:
        """What a batch holds of an image beside its tensor."""
        raise NotImplementedError


class Scores(ABC, Generic[BatchT, SplitT]):
    """Predicts batches and collects what their scores are computed from.

    The first field of a batch is its images (N, C, H, W), which are on the device of the model.
    """

    @abstractmethod
    def reset(self, device: torch.device | None = None) -> None:
        """Forget all predictions. device: where the model is."""

    @abstractmethod
    def check(self, model: nn.Module, split: object) -> None:
        """See that a model can be scored on a split.

        Raises:
            UserError: it cannot.
        """

    @abstractmethod
    def update(self, model: nn.Module, batch: BatchT, split: SplitT) -> None:
        """Predict a batch of images of the split and take in the result.

        Raises:
            UserError: the model has another number of classes, or an image or its truth cannot be read.
        """

    @abstractmethod
    def compute(self) -> dict[str, Any]:
        """All scores, as plain data."""

    @abstractmethod
    def validated(self, reduce: Reduce, gather: Gather) -> dict[str, float]:
        """The metrics of all processes together, `count` and, where there is one, `loss`; empty without images."""


def evaluate(
    task: Task,
    model: nn.Module,
    split: Images,
    preprocessing: Callable[[Image.Image], Tensor],
    classes: Sequence[str],
    *,
    batch_size: int | None = None,
    device: str | torch.device = "auto",
    precision: str = "fp32",
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
    tta: TTA = TTA(),
    examples: int | None = None,
) -> dict[str, Any]:
    """Score a model on a split; plain data, see the scores of the task for what it holds.

    Args:
        batch_size: images at a time; None for the task's usual number.
        precision: fp32, bf16 or fp16.
        workers: processes that read images.
        progress: called as `progress(done, total)` after every batch.
        tta: test-time augmentation, of segmenters.
        examples: images of each kind that are named to be looked at; None for the task's usual number.

    Raises:
        UserError: there are no images, the model has other classes, an image or its truth cannot be read, or there is
            no such device or precision.
    """
    if not len(split):
        raise UserError("there are no images to evaluate on.")
    scores = task.scores(classes, tta=tta, examples=examples)
    scores.check(model, split)
    target = device if isinstance(device, torch.device) else pick_device(device)
    model = model.to(target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    loader = DataLoader(
        task.prepared(split, preprocessing),
        batch_size=batch_size or task.evaluation_batch,
        num_workers=workers,
        collate_fn=task.collate,
    )
    scores.reset(target)
    done = 0
    with evaluating(model):
        for batch in loader:
            images = batch.images.to(target, memory_format=torch.channels_last)
            with autocast(target, precision):
                scores.update(model, batch._replace(images=images), split)
            done += len(images)
            if progress is not None:
                progress(done, len(split))
    return scores.compute()


def write_evaluation(folder: str | Path, evaluation: dict[str, Any]) -> Path:
    """Write `evaluation.json` into a run directory; returns its path."""
    path = Path(folder) / "evaluation.json"
    atomic_write_text(path, json.dumps(evaluation, indent=1, ensure_ascii=False) + "\n")
    return path
