"""Images to the training: caching and loaders, from a recipe and a data set."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import lightning as L
from torch.utils.data import DataLoader

from resurge.data.bundle import ArrayImages, DataBundle
from resurge.data.images import UnreadableImage
from resurge.data.loading import EpochSampler, cache, make_loader, verify
from resurge.recipe import Recipe
from resurge.tasks.objective import Objective
from resurge.train.module import Position


def readable(bundle: DataBundle) -> DataBundle:
    """The data set without the validation and test images that cannot be decoded; `notes` name them.

    Training images need no such pass: an unreadable one is replaced when its turn comes. A score must be over known
    images.
    """
    splits: dict[str, Any] = {}
    notes = list(bundle.notes)
    for name, split in (("val", bundle.val), ("test", bundle.test)):
        if split is None or isinstance(split.images, ArrayImages):
            continue
        splits[name], problems = verify(split, threads=os.cpu_count() or 1)
        notes += [f"left out of {name}: {problem.message}" for problem in problems]
    return replace(bundle, notes=tuple(notes), **splits)


def cached(split: Any, gibibytes: float) -> Any:
    """The split with its images decoded into memory, if all of them fit into `gibibytes` by the look of some."""
    if not gibibytes or isinstance(split.images, ArrayImages):
        return split
    sizes = []
    for index in range(0, len(split), max(1, len(split) // 16)):
        try:
            image = split.read(index)
        except UnreadableImage:
            continue
        sizes.append(image.width * image.height * len(image.getbands()))
    budget = int(gibibytes * 2**30)
    if not sizes or sum(sizes) / len(sizes) * len(split) > 0.9 * budget:
        return split
    return cache(split, budget, threads=os.cpu_count() or 1)


def pick_workers(wanted: int | None, devices: int = 1) -> int:
    """Loader processes a device: `wanted`, or the processors that are left over once each device has one, up to 8."""
    if wanted is not None:
        return wanted
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, min(8, processors // devices - 1)) if processors > 2 else 0


class _EpochBatches:
    """A loader without a length: Lightning then takes an epoch to be what it yields, which after resuming is a rest."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)


class _DueBatches:
    """The validation loader in epochs that are evaluated, nothing in the others."""

    def __init__(self, feed: Feed, loader: DataLoader[Any]) -> None:
        self.feed = feed
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader) if self.feed.evaluation_due() else iter(())


class Feed(L.LightningDataModule):
    """Loaders of a training; the position in the data is that of the module being trained.

    Args:
        bundle: the data.
        recipe: batch size, sampling, augmentation, workers.
        objective: makes samples and batches of the data.

    Attributes:
        validation_split: the images that this process validates on.
    """

    def __init__(self, bundle: DataBundle, recipe: Recipe, objective: Objective) -> None:
        super().__init__()
        self.bundle = bundle
        self.recipe = recipe
        self.objective = objective
        self.validation_split: Any = bundle.val
        self.batches = len(self._sampler(0, recipe.machine.devices * recipe.machine.nodes))
        self.sampler: EpochSampler | None = None

    def _sampler(self, rank: int, world_size: int) -> EpochSampler:
        setting = self.recipe.optimization
        return EpochSampler(
            self.bundle.train.labels,
            setting.batch_size,
            self.recipe.seed,
            balanced=setting.balanced_sampling,
            drop_last=True,
            rank=rank,
            world_size=world_size,
        )

    @property
    def _training(self) -> Any:
        if self.trainer is None:
            raise RuntimeError("a Feed gives loaders only inside a Trainer")
        return self.trainer.lightning_module

    def seek(self, position: Position) -> None:
        """Let the next epoch's loader start here."""
        if self.sampler is not None and (self.sampler.epoch, self.sampler.start_batch) != (
            position.epoch,
            position.batch,
        ):
            self.sampler.set_position(position.epoch, position.batch)

    def train_dataloader(self) -> _EpochBatches:
        assert self.trainer is not None
        split = cached(self.bundle.train, self.recipe.machine.cache)
        dataset = self.objective.training_data(split)
        self.sampler = self._sampler(self.trainer.global_rank, self.trainer.world_size)
        self.seek(self._training.position)
        return _EpochBatches(self._loader(dataset, self.sampler))

    def val_dataloader(self) -> _DueBatches:
        assert self.trainer is not None
        split = self.bundle.val
        own = list(islice(range(len(split)), self.trainer.global_rank, None, self.trainer.world_size))
        split = cached(split.select(own) if self.trainer.world_size > 1 else split, self.recipe.machine.cache)
        self.validation_split = split
        dataset = self.objective.evaluation_data(split)
        sampler = EpochSampler(split.labels, self.recipe.optimization.batch_size, shuffle=False)
        return _DueBatches(self, self._loader(dataset, sampler))

    def _loader(self, dataset: Any, sampler: EpochSampler) -> DataLoader[Any]:
        return make_loader(dataset, sampler, self._workers(), pin_memory=self._pin(), collate_fn=self.objective.collate)

    def _workers(self) -> int:
        return pick_workers(self.recipe.machine.workers, self.recipe.machine.devices)

    def _pin(self) -> bool:
        assert self.trainer is not None
        return self.trainer.strategy.root_device.type == "cuda"

    def evaluation_due(self) -> bool:
        """Whether the epoch that just ended is evaluated: every `eval_every`-th, and the last."""
        module = self._training
        epoch = module.position.epoch + 1
        return epoch % self.recipe.machine.eval_every == 0 or module.position.step >= module.span.steps
