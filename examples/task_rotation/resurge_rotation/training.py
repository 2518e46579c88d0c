"""Turned images, for training and for evaluation."""

from __future__ import annotations

from torch import Tensor, rot90
from torch.utils.data import Dataset

from resurge.data.seeding import mix
from resurge.data.splits import Split
from resurge.tasks.classify.loss import Classification
from resurge.tasks.evaluation import PreparedImages


class TurnedImages(PreparedImages):
    """((C, H, W) turned by as many quarters as its label says, label, index)."""

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, object, int]:
        image, label, index = super().__getitem__(key)
        return rot90(image, label, (1, 2)), label, index


class TurnedSamples(Dataset[tuple[Tensor, int]]):
    """(augmented image turned by a random number of quarters, that number), a pure function of seed, epoch, index."""

    def __init__(self, samples: Dataset[tuple[Tensor, int]], length: int, seed: int) -> None:
        self.samples, self.length, self.seed = samples, length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        turns = mix(self.seed, 4, *key) % 4
        return rot90(self.samples[key][0], turns, (1, 2)), turns


class RotationTraining(Classification):
    """Cross-entropy of the four turns."""

    def training_data(self, split: Split) -> Dataset[tuple[Tensor, int]]:
        return TurnedSamples(super().training_data(split), len(split), self.recipe.seed)
