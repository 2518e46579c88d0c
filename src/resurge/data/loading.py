"""Samples and batches of training: which images in which order, and with which randomness.

All of it is a pure function of (seed, epoch, index).
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset, Sampler

from resurge.data.annotations import Annotation
from resurge.data.augmentation import Augmentation
from resurge.data.bands import Bands, OtherBands, Picture, naming
from resurge.data.images import UnreadableImage
from resurge.data.preprocessing import ScenePreprocessing
from resurge.data.seeding import mix
from resurge.data.splits import AnySplit, Images, MaskSplit, ObjectSplit, Split
from resurge.data.transforms import SceneTransform
from resurge.errors import UserError

log = logging.getLogger(__name__)

Key = tuple[int, int]
"""(epoch, index): which image, and in which epoch, so that a worker needs to know nothing else."""

T = TypeVar("T")
SomeSplit = Split | ObjectSplit | MaskSplit


class _Samples(Dataset[T], ABC):
    """The training images of a split as samples. `dataset[epoch, index]` and `dataset[index]` (epoch 0) give a sample.

    The random changes run with torch's CPU generator seeded by (seed, epoch, index), and the generator is put back
    after it. An image, mask or label map that cannot be read is replaced by the next readable image of its class, or of
    any class when its class has none; every such image is logged once and counted in `replaced`. An image of other
    bands or another depth than the others is an error.
    """

    def __init__(self, split: SomeSplit, seed: int) -> None:
        self.split, self.seed = split, seed
        self.replaced: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: Key | int) -> T:
        epoch, index = key if isinstance(key, tuple) else (0, key)

        for candidate in self._candidates(index):
            if self.split.ids[candidate] in self.replaced:
                continue
            try:
                # The CPU's generator alone: a loader in the main process must not disturb the state of accelerators.
                with torch.random.fork_rng(devices=[]), naming(self.split.ids[candidate]):
                    torch.default_generator.manual_seed(mix(self.seed, epoch, index))
                    return self._sample(candidate)
            except UnreadableImage as error:
                self.replaced[self.split.ids[candidate]] = str(error)
                log.warning("skipped, another image stands in: %s", error)
        first = next(iter(self.replaced.values()))
        raise UserError(f"none of the {len(self)} images can be read; the first: {first}")

    def _candidates(self, index: int) -> Iterator[int]:
        """The image, the others of its class in order from there on, round the end, then all others."""
        yield index
        labels = self.split.labels
        for same in (True, False):
            for other in ((index + step) % len(labels) for step in range(1, len(labels))):
                if (labels[other] == labels[index]) == same:
                    yield other

    @abstractmethod
    def _sample(self, index: int) -> T: ...


class IndexedDataset(_Samples[tuple[Tensor, int]]):
    """Images with labels, transformed: (tensor, label)."""

    def __init__(self, split: Split, transform: Callable[[Picture], Tensor], seed: int = 0) -> None:
        super().__init__(split, seed)
        self.transform, self.labels = transform, split.labels
        self.draft_size: int | None = getattr(transform, "draft_size", None)

    def _sample(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.split.read(index, self.draft_size)), self.labels[index]


Sample = tuple[Tensor, dict[str, Tensor], int]
"""(image float32 (C, h, w), target, index of the image in the split); for the target see `SceneTransform`."""


class SceneDataset(_Samples[Sample]):
    """Images with objects or label maps, transformed."""

    def __init__(
        self, split: ObjectSplit | MaskSplit, pre: ScenePreprocessing, augment: Augmentation | None = None,
        seed: int = 0, annotation: Annotation = "boxes",
    ) -> None:  # fmt: skip
        super().__init__(split, seed)
        self.target, self.transform = split.target, SceneTransform(pre, augment, annotation)

    def _sample(self, index: int) -> Sample:
        # Never at a fraction of the size as IndexedDataset may: boxes are in pixels of the whole image.
        image, target = self.split.read(index), self.target(index)
        try:
            return *self.transform(image, target), index  # decodes masks
        except (UnreadableImage, OtherBands):
            raise
        except UserError as error:
            raise UnreadableImage("corrupt", self.split.ids[index], str(error)) from error


class SceneBatch(NamedTuple):
    """A batch of images of different sizes.

    images: float32 (N, C, H, W), each in the upper left corner, the rest 0. sizes: (height, width) of each image inside
    it. targets: one dict per image; for objects `boxes` float32 (n, 4), `labels` int64 (n,), and `masks` uint8
    (n, h, w) where they are wanted, all of the image's own part; for label maps `mask` int64 (h, w). indices: int64
    (N,), which images of the split these are.
    """

    images: Tensor
    sizes: tuple[tuple[int, int], ...]
    targets: list[dict[str, Tensor]]
    indices: Tensor


def collate_scenes(samples: Sequence[Sample], divisor: int = 32) -> SceneBatch:
    """Samples (image (C, h, w), target, index) to a batch whose sides are multiples of `divisor`."""
    sizes = tuple((image.shape[-2], image.shape[-1]) for image, _, _ in samples)
    height, width = (-(-max(sides) // divisor) * divisor for sides in zip(*sizes, strict=True))
    images = torch.stack(
        [pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2])) for image, _, _ in samples]
    )
    indices = torch.tensor([index for _, _, index in samples])
    return SceneBatch(images, sizes, [target for _, target, _ in samples], indices)


class EpochSampler(Sampler[list[Key]]):
    """Batches of keys (epoch, index). The order is a pure function of (seed, epoch), and any position can be resumed.

    Every rank gets equally many batches, of equal sizes: the order is padded from its start (or cut with `drop_last`)
    to a multiple of `world_size`. With `balanced`, images are drawn with replacement so that every class that occurs
    is equally likely; an epoch keeps its length. Without `shuffle` the order is that of the data. `len()` is always
    the number of batches in a whole epoch on this rank; iteration starts at the batch set by `set_position`. A data
    set smaller than a batch gives one batch, also with `drop_last`.

    labels: class index of each image. batch_size: images per batch and rank.
    """

    def __init__(
        self, labels: Sequence[int], batch_size: int, seed: int = 0, *, shuffle: bool = True, balanced: bool = False,
        drop_last: bool = False, rank: int = 0, world_size: int = 1,
    ) -> None:  # fmt: skip
        self.labels = np.asarray(labels, dtype=np.int64)
        self.batch_size, self.seed, self.shuffle, self.balanced = batch_size, seed, shuffle, balanced
        self.drop_last, self.rank, self.world_size = drop_last, rank, world_size
        self.epoch, self.start_batch = 0, 0

    def set_position(self, epoch: int, start_batch: int = 0) -> None:
        """Let the next iteration yield the batches of `epoch` from `start_batch` on. Raises UserError when there is no
        such position (a checkpoint of other data or another batch size)."""
        if epoch < 0 or not 0 <= start_batch <= len(self):
            raise UserError(
                f"cannot resume at batch {start_batch} of epoch {epoch}: an epoch has {len(self)} batches. "
                "Resume with the data, batch size and devices of the checkpoint."
            )
        self.epoch, self.start_batch = epoch, start_batch

    def _per_rank(self) -> int:
        count, world = len(self.labels), self.world_size
        return max(count // world, 1) if self.drop_last else -(-count // world)

    def __len__(self) -> int:
        each = self._per_rank()
        return max(each // self.batch_size, 1) if self.drop_last else -(-each // self.batch_size)

    def order(self, epoch: int) -> list[int]:
        """The indices this rank sees in `epoch`, in order, before they are cut into batches."""
        count = len(self.labels)
        generator = torch.Generator().manual_seed(mix(self.seed, epoch))
        if self.balanced:
            _, position, counts = np.unique(self.labels, return_inverse=True, return_counts=True)
            # A search in the cumulated weights rather than multinomial: that refuses more than 2**24 images.
            total = torch.from_numpy(1 / counts[position]).cumsum(0)
            draws = torch.rand(count, generator=generator, dtype=torch.float64) * total[-1]
            indices = torch.searchsorted(total, draws, right=True).clamp_(max=count - 1)
        elif self.shuffle:
            indices = torch.randperm(count, generator=generator)
        else:
            indices = torch.arange(count)
        wanted = self._per_rank() * self.world_size
        if wanted > count:
            indices = indices.repeat(-(-wanted // count))
        return indices[:wanted][self.rank :: self.world_size].tolist()

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, order, size = self.epoch, self.order(self.epoch), self.batch_size
        for batch in range(self.start_batch, len(self)):
            yield [(epoch, index) for index in order[batch * size : (batch + 1) * size]]


def class_weights(labels: Sequence[int], num_classes: int) -> Tensor:
    """Loss weights, float32 (num_classes,): inverse to the class's number of images, mean 1 over classes that occur.

    A class without images gets weight 0.
    """
    counts = torch.bincount(torch.as_tensor(labels, dtype=torch.int64), minlength=num_classes).double()
    inverse = torch.where(counts > 0, 1 / counts.clamp(min=1), 0.0)
    return (inverse * (counts > 0).sum() / inverse.sum()).float()


def verify(split: AnySplit, threads: int = 2) -> tuple[AnySplit, tuple[UnreadableImage, ...]]:
    """Decode every image, and label map, once; the split without the unreadable ones, and what is wrong with those.
    Raises UserError when no image, or no image of a class that occurs, can be read."""

    def check(index: int) -> UnreadableImage | None:
        try:
            split.read(index)
            if isinstance(split, MaskSplit):
                split.target(index)
        except UnreadableImage as error:
            return UnreadableImage(error.kind, error.name, error.reason)  # without its frames, which hold the file
        return None

    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(check, range(len(split)), chunksize=64))
    problems = {index: problem for index, problem in enumerate(found) if problem is not None}
    if not problems:
        return split, ()
    good = split.select([index for index in range(len(split)) if index not in problems])
    lost = set(split.labels) - set(good.labels)
    if lost:
        first = next(problem for index, problem in problems.items() if split.labels[index] in lost)
        raise UserError(f"no image of {len(lost)} class(es) can be read; the first: {first}")
    return good, tuple(problems.values())


@dataclass(frozen=True)
class CachedImages:
    """Decoded images kept in memory, as uint8 arrays or `Bands`; those that did not fit are read from `source`."""

    source: Images
    pixels: tuple[np.ndarray | Bands | None, ...]

    def read(self, index: int, draft_size: int | None = None) -> Picture:
        kept = self.pixels[index]
        if kept is None:
            return self.source.read(index, draft_size)
        return kept if isinstance(kept, Bands) else Image.fromarray(kept)

    def path(self, index: int) -> Path | None:
        return self.source.path(index)

    def select(self, indices: Sequence[int]) -> CachedImages:
        return CachedImages(self.source.select(indices), tuple(self.pixels[i] for i in indices))


def cache(split: AnySplit, budget_bytes: int, threads: int = 2) -> AnySplit:
    """The split with its images decoded into memory, in order, until `budget_bytes` are used.

    Call before loader processes start: they then share the memory. Unreadable images stay uncached.
    """

    def load(index: int) -> np.ndarray | Bands | None:
        try:
            image = split.read(index)
            return image if isinstance(image, Bands) else np.asarray(image)
        except UnreadableImage:
            return None

    kept: list[np.ndarray | Bands | None] = []
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(split), 256):
            for pixels in pool.map(load, range(start, min(start + 256, len(split)))):
                fits = pixels is not None and pixels.nbytes <= budget_bytes
                kept.append(pixels if fits else None)
                budget_bytes -= pixels.nbytes if fits and pixels is not None else 0
            if budget_bytes <= 0:
                break
    kept.extend([None] * (len(split) - len(kept)))
    return replace(split, images=CachedImages(split.images, tuple(kept)))
