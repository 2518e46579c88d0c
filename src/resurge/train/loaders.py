"""The loaders of a training: which images are kept in memory, which are read by whom, in which order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from lightning_fabric import Fabric

from resurge.data.images import UnreadableImage
from resurge.data.loading import EpochSampler, cache, verify
from resurge.data.splits import AnySplit, ArrayImages, DataBundle
from resurge.data.workers import make_loader
from resurge.machine import processor_count
from resurge.recipe import Recipe
from resurge.tasks.evaluation import Batch
from resurge.tasks.objective import Objective


def readable(bundle: DataBundle[Any]) -> DataBundle[Any]:
    """The data set without the validation and test images that cannot be decoded; `notes` name them.

    Training images need no such pass: an unreadable one is replaced when its turn comes. A score must be over known
    images.
    """
    for name, split in (("val", bundle.val), ("test", bundle.test)):
        if split is None or isinstance(split.images, ArrayImages):
            continue
        good, problems = verify(split, threads=os.cpu_count() or 1)
        notes = (f"left out of {name}: {problem}" for problem in problems)
        bundle = replace(bundle, notes=(*bundle.notes, *notes), **{name: good})
    return bundle


def cached(split: AnySplit, gibibytes: float) -> AnySplit:
    """The split with its images decoded into memory, if by a sample of them all fit into `gibibytes`."""
    if not gibibytes or isinstance(split.images, ArrayImages):
        return split
    sizes = []
    for index in range(0, len(split), max(1, len(split) // 16)):
        try:
            image = split.read(index)
        except UnreadableImage:
            continue
        sizes.append(np.asarray(image).nbytes)
    budget = int(gibibytes * 2**30)
    if not sizes or sum(sizes) / len(sizes) * len(split) > 0.9 * budget:
        return split
    return cache(split, budget, threads=os.cpu_count() or 1)


def pick_workers(wanted: int | None, devices: int = 1) -> int:
    """Loader processes per device: `wanted`, or as many as processors are left once each device has one, up to 8."""
    if wanted is not None:
        return wanted
    processors = processor_count()
    return max(0, min(8, processors // devices - 1)) if processors > 2 else 0


def batches_per_epoch(bundle: DataBundle[Any], recipe: Recipe) -> int:
    """Training batches per epoch and device."""
    return len(_training_sampler(bundle, recipe, 0, recipe.machine.devices * recipe.machine.nodes))


def _training_sampler(bundle: DataBundle[Any], recipe: Recipe, rank: int, world_size: int) -> EpochSampler:
    setting = recipe.optimization
    return EpochSampler(
        bundle.train.labels,
        setting.batch_size,
        recipe.seed,
        balanced=setting.balanced_sampling,
        drop_last=True,
        rank=rank,
        world_size=world_size,
    )


class Loaders:
    """The training and validation batches of one process.

    Args:
        bundle: the data.
        recipe: batch size, sampling, augmentation, workers.
        objective: makes samples and batches of the data.
        fabric: says which process this is, and on which device.

    Attributes:
        val_split: the images that this process validates on.
        val: its loader.
    """

    def __init__(self, bundle: DataBundle[Any], recipe: Recipe, objective: Objective, fabric: Fabric) -> None:
        machine, rank, world_size = recipe.machine, fabric.global_rank, fabric.world_size
        pin_memory = fabric.device.type == "cuda"
        workers = pick_workers(machine.workers, machine.devices)
        self._sampler = _training_sampler(bundle, recipe, rank, world_size)
        self._train = make_loader(
            objective.training_data(cached(bundle.train, machine.cache)),
            self._sampler, workers, pin_memory, objective.collate,
        )  # fmt: skip
        own = bundle.val.select(range(rank, len(bundle.val), world_size)) if world_size > 1 else bundle.val
        self.val_split = cached(own, machine.cache)
        self.val = make_loader(
            objective.task.prepared(self.val_split, objective.preprocessing[1]),
            EpochSampler(self.val_split.labels, recipe.optimization.batch_size, shuffle=False),
            workers, pin_memory, objective.collate,
        )  # fmt: skip

    def epoch(self, epoch: int, batch: int) -> Iterator[Batch]:
        """The training batches of an epoch, from a batch on."""
        self._sampler.set_position(epoch, batch)
        return iter(self._train)

    def close(self) -> None:
        """End the loader processes."""
        self._train.close()
        self.val.close()
