"""Scores on a split: one way for the validation of a training and for `resurge eval`, whatever the task."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from resurge.data.bands import Picture, naming
from resurge.data.loading import SomeSplit
from resurge.data.preprocessing import Preprocessing, ScenePreprocessing
from resurge.data.workers import received, sender
from resurge.errors import UserError, kind_and_line
from resurge.files import Json, atomic_write_text
from resurge.quantities import number_of
from resurge.run_files import EVALUATION
from resurge.tasks.running import autocast, evaluating, pick_device
from resurge.tasks.tta import TTA

if TYPE_CHECKING:
    from resurge.tasks.result import Result
    from resurge.tasks.task import Task

Seen = Preprocessing | ScenePreprocessing
Batch: TypeAlias = Any
"""A batch of a task: a tuple, or a named tuple, that begins with the images (N, C, H, W)."""

BatchT = TypeVar("BatchT", contravariant=True)
SplitT = TypeVar("SplitT", bound=SomeSplit, contravariant=True)

Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor over the processes."""
Gather = Callable[[Any], list[Any]]
"""Brings an object of each process to all of them."""


class PreparedImages(Dataset[tuple[Tensor, object, int]]):
    """Images of a split as a network sees them in evaluation: (tensor (C, h, w), the result of `about`, index)."""

    def __init__(
        self, split: SomeSplit, preprocessing: Callable[[Picture], Tensor],
        about: Callable[[SomeSplit, Picture, int], object],
    ) -> None:  # fmt: skip
        self.split, self.preprocessing, self.about = split, preprocessing, about

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, object, int]:
        index = key[1] if isinstance(key, tuple) else key  # (epoch, index), as samplers of a training ask
        image = self.split.read(index)
        with naming(self.split.ids[index]):
            prepared = self.preprocessing(image)
        return prepared, self.about(self.split, image, index), index


class Scores(ABC, Generic[BatchT, SplitT]):
    """Predicts batches and collects what their scores are computed from."""

    needs: ClassVar[tuple[type, str]]  # the class of the splits that can be scored on; what their images have, in words

    def __init__(self, task: Task, classes: Sequence[str]) -> None:
        self.task, self.classes = task, tuple(classes)
        self.reset()

    @abstractmethod
    def reset(self, device: torch.device | None = None) -> None:
        """Forget all predictions. device: where the model is."""

    def check(self, model: nn.Module, split: SomeSplit) -> None:
        """Raises UserError when a model cannot be scored on a split."""
        kind, what = self.needs
        if not isinstance(split, kind):
            raise UserError(f"the task {self.task.name} needs images with {what}.")
        self.check_classes(getattr(model, "num_classes", len(self.classes)))

    def check_classes(self, known: int) -> None:
        """Raises UserError when the model has another number of classes than the data."""
        if known != len(self.classes):
            count = number_of(known, "class", "classes")
            raise UserError(f"the model tells {count} apart, but the data has {len(self.classes)}.")

    @abstractmethod
    def update(self, model: nn.Module, batch: BatchT, split: SplitT) -> None:
        """Predict a batch of images of the split, which are on the model's device, and take in the result.

        Raises:
            UserError: the model has another number of classes, or an image or its truth cannot be read.
        """

    @abstractmethod
    def compute(self) -> Json:
        """All scores."""

    def results(self) -> dict[int, Result]:
        """What was predicted for the images, by index, of which a report shows the prediction."""
        return {}

    def absent(self, there: Sequence[int]) -> Json:
        """`absent`: the classes of which `there` is nothing; an empty object where there are none."""
        names = [name for name, count in zip(self.classes, there, strict=True) if not count]
        return {"absent": names} if names else {}

    def plugin_scores(self, *results: object) -> dict[str, float]:
        """The metrics of plugins, computed from results of all images.

        Raises:
            UserError: one of them fails.
        """
        scores = {}
        for name, metric in self.task.plugin_metrics.items():
            try:
                scores[name] = float(metric(*results))
            except Exception as error:
                raise UserError(
                    f"the plugin {self.task.name}.metric.{name} fails: {kind_and_line(error)}. Mend or uninstall it."
                ) from error
        return scores

    @abstractmethod
    def validated(self, reduce: Reduce, gather: Gather) -> dict[str, float]:
        """The metrics of all processes together, `count` and, where there is one, `loss`; empty without images."""


class Evaluation(dict[str, Any]):
    """The scores of an evaluation, a JSON object.

    Attributes:
        results: what was predicted for images that it names, by index; see `Scores.results`.
    """

    def __init__(self, scores: Json, results: dict[int, Result]) -> None:
        super().__init__(scores)
        self.results = results

    def __ror__(self, before: Json) -> Evaluation:  # type: ignore[override]
        """`{"model": name} | evaluation`: the same with more in front."""
        return Evaluation({**before, **self}, self.results)


def named(split: SomeSplit, index: int) -> Json:
    """How an evaluation names an image of a split."""
    path = split.path(index)
    return {"id": split.id(index), "index": index, "path": None if path is None else str(path)}


def evaluate(
    task: Task,
    model: nn.Module,
    split: SomeSplit,
    preprocessing: Callable[[Picture], Tensor],
    classes: Sequence[str],
    *,
    batch_size: int | None = None,
    device: str | torch.device = "auto",
    precision: str = "fp32",
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
    tta: TTA = TTA(),
    examples: int | None = None,
) -> Evaluation:
    """Score a model on a split; see the scores of the task for what the result holds, beside `precision`.

    Args:
        batch_size: None for the task's usual number.
        precision: fp32, bf16 or fp16.
        workers: processes that read images.
        progress: called as `progress(done, total)` after every batch.
        tta, examples: see `Task.scores`.

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
    prepared, size = task.prepared(split, preprocessing), batch_size or task.evaluation_batch
    collate = sender(prepared, task.collate, size, workers)
    loader = DataLoader(prepared, batch_size=size, num_workers=workers, collate_fn=collate)
    scores.reset(target)
    done = 0
    with evaluating(model):
        for batch in received(loader):
            images = batch.images.to(target, memory_format=torch.channels_last)
            with autocast(target, precision):
                scores.update(model, batch._replace(images=images), split)
            done += len(images)
            if progress is not None:
                progress(done, len(split))
    return Evaluation({"precision": precision, **scores.compute()}, scores.results())


def write_evaluation(folder: str | Path, evaluation: Json, mark: str | None = None) -> Path:
    """Write `evaluation.json`; returns its path. `mark`: see `files.require_ours`; None into a run directory."""
    path = Path(folder) / EVALUATION
    atomic_write_text(path, json.dumps(evaluation, indent=1, ensure_ascii=False) + "\n", mark)
    return path
