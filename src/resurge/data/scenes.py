"""Images with objects or with a class for every pixel: what the formats are read into and training is fed from.

Pixels count from 0; a box (x1, y1, x2, y2) covers x1 <= x < x2. Boxes and masks are those of the upright image at its
own size. Labels count from 0 in the order of the class names; there is no background class among them. In a label map
IGNORE marks pixels without a class, whatever the files on disk use for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from resurge.data.bundle import Images

IGNORE = 255
SCENE_TASKS = ("detect", "instances", "segment")


class Region(Protocol):
    """The pixels of one object: polygons, run lengths, a file. A small value that travels to loader processes."""

    def decode(self, height: int, width: int) -> np.ndarray:
        """bool (height, width)."""
        ...


@dataclass(frozen=True)
class Objects:
    """The n objects of one image.

    boxes: float32 (n, 4). labels: int64 (n,). crowd: bool (n,), a region with many objects of the class, which
    counts neither as a hit nor as a miss. area: float32 (n,), of the mask where there is one, else of the box; decides
    between small, medium and large. regions: one an object, or None where the data has boxes only.
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    area: np.ndarray
    regions: tuple[Region, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @staticmethod
    def none(with_regions: bool = False) -> Objects:
        """No objects."""
        empty = np.zeros((0,), dtype=np.float32)
        return Objects(empty.reshape(0, 4), empty.astype(np.int64), empty.astype(bool), empty,
                       () if with_regions else None)  # fmt: skip

    def select(self, indices: Sequence[int] | np.ndarray) -> Objects:
        """The objects at these indices, or where this boolean array is true."""
        keep = np.asarray(indices)
        keep = np.flatnonzero(keep) if keep.dtype == bool else keep.astype(np.int64)
        regions = None if self.regions is None else tuple(self.regions[i] for i in keep)
        return Objects(self.boxes[keep], self.labels[keep], self.crowd[keep], self.area[keep], regions)

    def masks(self, height: int, width: int) -> np.ndarray:
        """bool (n, height, width), of an image of that size.

        Raises:
            ValueError: the data has boxes only.
        """
        if self.regions is None:
            raise ValueError("these objects have boxes only")
        masks = np.zeros((len(self), height, width), dtype=bool)
        for mask, region in zip(masks, self.regions, strict=True):
            mask[:] = region.decode(height, width)
        return masks


class LabelMaps(Protocol):
    """Where the label maps of a split are. Implementations are small values that travel to loader processes."""

    def read(self, index: int) -> np.ndarray:
        """uint8 (H, W): class indices, and IGNORE."""
        ...

    def path(self, index: int) -> Path | None: ...
    def select(self, indices: Sequence[int]) -> LabelMaps: ...


@dataclass(frozen=True)
class ArrayMaps:
    """Label maps in memory: uint8 (N, H, W)."""

    maps: np.ndarray

    def read(self, index: int) -> np.ndarray:
        return self.maps[index].copy()

    def path(self, index: int) -> Path | None:
        return None

    def select(self, indices: Sequence[int]) -> ArrayMaps:
        return ArrayMaps(self.maps[np.asarray(indices, dtype=np.int64)])


@dataclass(frozen=True)
class _SceneImages:
    """What scenes of both kinds have: `ids[i]` names image i for good."""

    ids: tuple[str, ...]
    images: Images

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labels(self) -> tuple[int, ...]:
        """A stand-in for a label of an image, since samplers ask for one; 0 for all."""
        return (0,) * len(self.ids)

    def id(self, index: int) -> str:
        return self.ids[index]

    def path(self, index: int) -> Path | None:
        return self.images.path(index)

    def read(self, index: int, draft_size: int | None = None) -> Image.Image:
        """Image `index`, upright, mode "L" or "RGB". Raises UnreadableImage."""
        return self.images.read(index, draft_size)


@dataclass(frozen=True)
class ObjectSplit(_SceneImages):
    """Images with objects. `image_ids[i]` is the number of image i (COCO's where it has one)."""

    objects: tuple[Objects, ...]
    image_ids: tuple[int, ...]

    def target(self, index: int) -> Objects:
        return self.objects[index]

    def select(self, indices: Sequence[int]) -> ObjectSplit:
        indices = [int(i) for i in indices]
        return ObjectSplit(
            tuple(self.ids[i] for i in indices),
            self.images.select(indices),
            tuple(self.objects[i] for i in indices),
            tuple(self.image_ids[i] for i in indices),
        )


@dataclass(frozen=True)
class MaskSplit(_SceneImages):
    """Images with a class for every pixel."""

    maps: LabelMaps

    def target(self, index: int) -> np.ndarray:
        """uint8 (H, W): class indices, and IGNORE. Raises UnreadableImage or UserError."""
        return self.maps.read(index)

    def select(self, indices: Sequence[int]) -> MaskSplit:
        indices = [int(i) for i in indices]
        return replace(self, ids=tuple(self.ids[i] for i in indices), images=self.images.select(indices),
                       maps=self.maps.select(indices))  # fmt: skip


class SceneBatch(NamedTuple):
    """A batch of images of different sizes.

    images: float32 (N, C, H, W), each in the upper left corner, the rest 0. sizes: (height, width) of each image inside
    it. targets: one dict an image; for objects `boxes` float32 (n, 4), `labels` int64 (n,), and `masks` uint8
    (n, h, w) where they are wanted, all of the image's own part; for label maps `mask` int64 (h, w). indices: int64
    (N,), which images of the split these are.
    """

    images: Tensor
    sizes: tuple[tuple[int, int], ...]
    targets: list[dict[str, Tensor]]
    indices: Tensor


Sample = tuple[Tensor, dict[str, Tensor], int]


def collate_scenes(samples: Sequence[Sample], divisor: int = 32) -> SceneBatch:
    """Samples (image (C, h, w), target, index) to a batch whose sides are multiples of `divisor`."""
    sizes = tuple((image.shape[-2], image.shape[-1]) for image, _, _ in samples)
    height, width = (-(-max(sides) // divisor) * divisor for sides in zip(*sizes, strict=True))
    images = torch.stack(
        [F.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2])) for image, _, _ in samples]
    )
    indices = torch.tensor([index for _, _, index in samples])
    return SceneBatch(images, sizes, [target for _, target, _ in samples], indices)
