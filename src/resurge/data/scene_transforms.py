"""What training does at random to an image and everything drawn on it: one pipeline for all tasks on scenes.

A draw of randomness is made first, as a `Geometry`; it is then applied to the picture, the boxes, each mask or the
label map alike, by torchvision's transforms v2, which know what each of them is. Objects that a crop leaves nothing of
therefore never cost the decoding of their masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from resurge.data.images import UnreadableImage
from resurge.data.loading import Key, first_readable
from resurge.data.scene_preprocessing import (
    ScenePreprocessing,
    default_scene_preprocessing,
    resize_factor,
    resized,
)
from resurge.data.scenes import IGNORE, SCENE_TASKS, MaskSplit, Objects, ObjectSplit, Sample
from resurge.data.seeding import mix, seeded
from resurge.errors import UserError, suggest

__all__ = [
    "Geometry", "SceneAugment", "SceneDataset", "ScenePreprocessing", "SceneTransform",
    "default_scene_preprocessing", "draw_geometry", "scene_transform",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SceneAugment:
    """What training does to scenes at random, in this order. All randomness comes from torch's global generator.

    short_sides: the shorter side in pixels is drawn from these instead of being the evaluation's (multi-scale
        training); the evaluation's max_size holds.
    jitter: the size is then multiplied by a uniform draw from this range, 1 being the size without jitter. Together
        with a crop, and an evaluation that fits images into it, this is large-scale jitter (Ghiasi et al., 2020,
        arXiv:2012.07177); without a crop max_size still bounds the image.
    rotate90: turn by 0, 90, 180 or 270 degrees, as suits pictures without an up.
    hflip, vflip: probability of mirroring left-right, top-bottom.
    crop: (height, width) of what is cut out at random; smaller images are padded below and on the right, with zeros
        after normalising, and with IGNORE in label maps.
    photometric: probability of each of the changes of brightness, contrast, saturation, hue and channel order that
        Liu et al. (2015, arXiv:1512.02325) make.
    colour, hue: brightness, contrast and saturation times 1 ± colour; hue ± hue turns.
    """

    short_sides: tuple[int, ...] = ()
    jitter: tuple[float, float] | None = None
    rotate90: bool = False
    hflip: float = 0.5
    vflip: float = 0.0
    crop: tuple[int, int] | None = None
    photometric: float = 0.0
    colour: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "short_sides", tuple(self.short_sides))
        for name in ("jitter", "crop"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, tuple(value))
                if len(value) != 2:
                    raise UserError(f"{name} is a pair of numbers, not {value}.")
        if any(side < 1 for side in self.short_sides):
            raise UserError(f"short_sides are pixels, at least 1, not {self.short_sides}.")
        if self.jitter is not None and not 0 < self.jitter[0] <= self.jitter[1]:
            raise UserError(f"jitter is a range of factors such as (0.5, 2), not {self.jitter}.")
        if self.crop is not None and min(self.crop) < 1:
            raise UserError(f"crop is (height, width) in pixels, at least 1, not {self.crop}.")
        for name in ("hflip", "vflip", "photometric"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is a probability between 0 and 1, not {getattr(self, name)}.")
        if self.colour < 0 or not 0 <= self.hue <= 0.5:
            raise UserError(f"colour is 0 or more and hue between 0 and 0.5, not {self.colour} and {self.hue}.")

    @staticmethod
    def off() -> SceneAugment:
        """No randomness at all: training then sees what evaluation sees."""
        return SceneAugment(hflip=0.0)


@dataclass(frozen=True)
class Geometry:
    """Where pixels go, in this order: resized to `size` (h, w); turned by `turns` quarters against the clock;
    mirrored left-right and top-bottom; the rectangle `crop` (top, left, height, width) cut out, where what lies below
    or on the right of the image is padding."""

    size: tuple[int, int]
    turns: int = 0
    hflip: bool = False
    vflip: bool = False
    crop: tuple[int, int, int, int] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w) of the result."""
        if self.crop is not None:
            return self.crop[2:]
        return self.size if self.turns % 2 == 0 else self.size[::-1]

    def image(self, image: Image.Image, pre: ScenePreprocessing) -> Image.Image:
        """The picture, without its padding."""
        return self._move(pre.resize(image, self.size))

    def boxes(self, boxes: Tensor, width: int, height: int) -> Tensor:
        """Boxes (n, 4) xyxy of an image of that width and height, clipped to what is left of it."""
        known = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width))
        known = self._move(F.resize(known, list(self.size)))
        return F.clamp_bounding_boxes(known).as_subclass(Tensor)

    def mask(self, mask: np.ndarray, fill: int) -> Tensor:
        """uint8 (H, W) to uint8 (h, w), each pixel that of the nearest centre; `fill` in the padding."""
        # By index: several times faster than torchvision's resize of masks, which besides rounds coordinates down and
        # so shifts them by up to half a pixel against the picture.
        rows, columns = (
            ((np.arange(new) + 0.5) * (old / new)).astype(np.int64)
            for new, old in zip(self.size, mask.shape, strict=True)
        )
        values = mask if mask.shape == self.size else mask[rows][:, columns]
        values = torch.from_numpy(np.array(values, dtype=np.uint8))[None]
        return self._move(tv_tensors.Mask(values), fill).as_subclass(Tensor)[0]

    def _move(self, thing: Any, fill: int | None = None) -> Any:
        """Everything but the resize. Without a fill there is no padding."""
        thing = _quarter_turns(thing, self.turns)
        if self.hflip:
            thing = F.horizontal_flip(thing)
        if self.vflip:
            thing = F.vertical_flip(thing)
        if self.crop is None:
            return thing
        top, left, height, width = self.crop
        h, w = F.get_size(thing)
        inside = min(height, h - top), min(width, w - left)
        thing = F.crop(thing, top, left, *inside)
        return thing if fill is None else F.pad(thing, [0, 0, width - inside[1], height - inside[0]], fill=fill)


def draw_geometry(pre: ScenePreprocessing, augment: SceneAugment | None, width: int, height: int) -> Geometry:
    """The geometry for an image of that width and height; random by torch's global generator.

    Without augmentation it is the evaluation's.
    """
    if augment is None:
        return Geometry(pre.shape(width, height))
    short_side = pre.short_side
    if augment.short_sides:
        short_side = augment.short_sides[_below(len(augment.short_sides))]
    factor = resize_factor(width, height, short_side, pre.max_size)
    if augment.jitter is not None:
        low, high = augment.jitter
        factor *= low + (high - low) * torch.rand(()).item()
        if augment.crop is None and pre.max_size is not None:
            factor = min(factor, pre.max_size / max(width, height))
    size = resized(width, height, factor)
    turns = _below(4) if augment.rotate90 else 0
    hflip, vflip = (p > 0 and torch.rand(()).item() < p for p in (augment.hflip, augment.vflip))
    crop = None
    if augment.crop is not None:
        h, w = size if turns % 2 == 0 else size[::-1]
        top, left = (_below(max(side - cut, 0) + 1) for side, cut in zip((h, w), augment.crop, strict=True))
        crop = (top, left, *augment.crop)
    return Geometry(size, turns, hflip, vflip, crop)


def _below(stop: int) -> int:
    return int(torch.randint(stop, ()).item())


def _quarter_turns(thing: Any, turns: int) -> Any:
    """Turn a picture, a mask (..., H, W) or boxes against the clock, exactly; torchvision turns by resampling only."""
    if turns == 0:
        return thing
    if isinstance(thing, Image.Image):
        ways = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
        return thing.transpose(ways[turns - 1])
    if not isinstance(thing, tv_tensors.BoundingBoxes):
        return tv_tensors.wrap(torch.rot90(thing.as_subclass(Tensor), turns, (-2, -1)), like=thing)
    boxes, (height, width) = thing.as_subclass(Tensor), thing.canvas_size
    for _ in range(turns):
        x1, y1, x2, y2 = boxes.unbind(1)
        boxes = torch.stack((y1, width - x2, y2, width - x1), 1)
        height, width = width, height
    return tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width))


class SceneTransform:
    """See `scene_transform`."""

    def __init__(self, pre: ScenePreprocessing, augment: SceneAugment | None, task: str) -> None:
        if task not in SCENE_TASKS:
            raise UserError(
                f"expected a task, one of {', '.join(SCENE_TASKS)}; got {task!r}.{suggest(task, SCENE_TASKS)}"
            )
        self.pre, self.augment, self.task = pre, augment, task
        self.colours = () if augment is None else _colours(pre, augment)

    def __call__(self, image: Image.Image, target: Objects | np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
        geometry = draw_geometry(self.pre, self.augment, image.width, image.height)
        width, height = image.size
        changed: dict[str, Tensor]
        if isinstance(target, Objects):
            changed = self._objects(target, geometry, width, height)
        else:
            changed = self._label_map(target, geometry, width, height)
        image = geometry.image(self.pre.convert(image), self.pre)
        for step in self.colours:
            image = step(image)
        tensor = self.pre.normalise(self.pre.to_tensor(image))
        # The padding comes last: colours must not change it, since it is what `collate_scenes` pads with.
        h, w = geometry.shape
        return pad(tensor, (0, w - tensor.shape[2], 0, h - tensor.shape[1])), changed

    def _label_map(self, target: np.ndarray, geometry: Geometry, width: int, height: int) -> dict[str, Tensor]:
        if self.task != "segment":
            raise UserError(f"the task {self.task} needs objects, and the data has label maps. Use --task segment.")
        _same_size("label map", target.shape, width, height)
        return {"mask": geometry.mask(target, IGNORE).long()}

    def _objects(self, target: Objects, geometry: Geometry, width: int, height: int) -> dict[str, Tensor]:
        if self.task == "segment":
            raise UserError("the task segment needs label maps, and the data has objects. Use --task detect.")
        boxes = geometry.boxes(torch.from_numpy(np.array(target.boxes, dtype=np.float32)), width, height)
        labels = torch.from_numpy(np.array(target.labels, dtype=np.int64))
        alive = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1) & ~torch.from_numpy(np.array(target.crowd, dtype=bool))
        kept = torch.nonzero(alive).flatten()
        if self.task == "detect":
            return {"boxes": boxes[kept], "labels": labels[kept]}
        if target.regions is None:
            raise UserError("the task instances needs a mask of each object, and the data has boxes only.")
        h, w = geometry.shape
        masks = torch.zeros(len(kept), h, w, dtype=torch.uint8)
        visible: list[int] = []
        for index in kept.tolist():
            region = target.regions[index].decode(height, width)  # one at a time: many at full size fill the memory
            _same_size("mask", region.shape, width, height)
            mask = geometry.mask(region, 0)
            if mask.any():  # a box may be left where a crop leaves nothing of a slanting object
                masks[len(visible)] = mask
                visible.append(index)
        masks, boxes = masks[: len(visible)], boxes[visible]
        if geometry.crop is not None:
            # What is left of a cut object may be smaller than what is left of its box.
            cut = (boxes[:, :2] <= 0).any(1) | (boxes[:, 2] >= w) | (boxes[:, 3] >= h)
            if cut.any():
                boxes[cut] = masks_to_boxes(masks[cut]).to(boxes) + torch.tensor([0.0, 0.0, 1.0, 1.0])
        return {"boxes": boxes, "labels": labels[visible], "masks": masks}


def scene_transform(pre: ScenePreprocessing, augment: SceneAugment | None, task: str) -> SceneTransform:
    """A picklable function (image, target) -> (float32 (C, h, w), changed target); random by torch's global generator.

    The target is `Objects` for the tasks detect and instances, of which boxes float32 (n, 4), labels int64 (n,) and,
    for instances, masks uint8 (n, h, w) come back; a label map (H, W) for segment, of which mask int64 (h, w) comes
    back. Crowds, and objects of which less than a pixel is left in width or height, are left out. Without `augment`
    the image is exactly that of `pre`.

    Raises:
        UserError: the task is unknown, or the target is not one for the task or not of the image's size.
    """
    return SceneTransform(pre, augment, task)


def _colours(pre: ScenePreprocessing, augment: SceneAugment) -> tuple[Any, ...]:
    steps: list[Any] = []
    if augment.photometric:
        steps.append(v2.RandomPhotometricDistort(p=augment.photometric))
    if augment.colour or augment.hue:
        coloured = pre.channels == 3  # saturation and hue mean nothing for grey images
        saturation, hue = (augment.colour, augment.hue) if coloured else (0.0, 0.0)
        steps.append(v2.ColorJitter(augment.colour, augment.colour, saturation, hue))
    return tuple(steps)


def _same_size(what: str, shape: Sequence[int], width: int, height: int) -> None:
    if tuple(shape) != (height, width):
        got = " x ".join(str(side) for side in reversed(shape))
        raise UserError(
            f"a {what} has {got} pixels (width x height) and its image, turned upright, {width} x {height}. Make it "
            "again at the image's size, or remove it; `resurge check-data` finds all such."
        )


class SceneDataset(Dataset[Sample]):
    """The images of a split with their targets, transformed. `dataset[epoch, index]` and `dataset[index]` (epoch 0)
    give (image float32 (C, h, w), target, index of the image in the split); for the target see `scene_transform`.

    With `train` the augmentation runs with torch's CPU generator seeded by (seed, epoch, index), and the generator is
    put back after it; without, there is none. An image, mask or label map that cannot be read is replaced by the next
    image that can; every such image is logged once and counted in `replaced`. With `strict` it raises instead.
    """

    def __init__(
        self, split: ObjectSplit | MaskSplit, pre: ScenePreprocessing, augment: SceneAugment | None = None,
        seed: int = 0, train: bool = False, task: str = "detect", *, strict: bool = False,
    ) -> None:  # fmt: skip
        self.split, self.seed, self.train, self.strict = split, seed, train, strict
        self.transform = scene_transform(pre, augment if train else None, task)
        self.replaced: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: Key | int) -> Sample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        seed = mix(self.seed, epoch, index)
        if self.strict:
            return self._sample(index, seed)
        # Masks are decoded inside the transform, so all of it is tried again when one cannot be read.
        return first_readable(self.split, index, self.replaced, lambda candidate: self._sample(candidate, seed))

    def _sample(self, index: int, seed: int) -> Sample:
        # Never at a fraction of the size as IndexedDataset may: boxes are in pixels of the whole image.
        image = self.split.read(index)
        target = self.split.target(index)
        try:
            if not self.train:
                return *self.transform(image, target), index
            with seeded(seed):
                return *self.transform(image, target), index
        except UnreadableImage:
            raise
        except UserError as error:
            raise UnreadableImage("corrupt", self.split.ids[index], str(error)) from error
