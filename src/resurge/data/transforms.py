"""What training does to an image, and everything annotated in it, at random; from torch's global generator only.

`TrainTransform` is for images with one class each, `SceneTransform` for images with boxes, masks or label maps. The
latter first draws a `Geometry`, which is then applied to the image, the boxes, each mask or the label map alike, by
torchvision's transforms v2. Objects that a crop leaves nothing of therefore never cost the decoding of their masks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from resurge.data.annotations import Annotation
from resurge.data.augmentation import Augmentation
from resurge.data.bands import Picture, bands_in_words
from resurge.data.preprocessing import INTERPOLATION, Preprocessing, ScenePreprocessing, Values, resize_factor, resized
from resurge.data.regions import nearest
from resurge.data.splits import IGNORE, Objects, ObjectSplit
from resurge.errors import UserError

Pixels: TypeAlias = Image.Image | tv_tensors.Image
"""A converted image as torchvision changes it; of `Bands` the values, float32 (C, H, W)."""

Step = Callable[[Pixels], Pixels]
Movable = TypeVar("Movable", Pixels, tv_tensors.BoundingBoxes, tv_tensors.Mask)


class TrainTransform:
    """A picklable function from an image to float32 (channels, size, size), with these changes in this order.

    crop_scale, crop_ratio: `ResizedCrop`; without crop_scale the evaluation's resize. pad_crop: `PaddingCrop`. hflip,
    vflip. affine_*: a random affine map. auto_augment: RandAugment (Cubuk et al., 2019), AutoAugment (Cubuk et al.,
    2018) or TrivialAugment (Müller, Hutter, 2021). color_jitter: brightness, contrast and saturation times
    1 ± color_jitter. random_erasing (Zhong et al., 2017): of 2 to 33 % of the area, with the mean colour.

    With all of it off it gives exactly what `pre` gives. Images of other than 8 bits in grey or colour get brightness
    and contrast alone, of each band, from color_jitter.

    Raises:
        UserError: such images are expected, and auto_augment, which is for colours, is on.
    """

    def __init__(self, pre: Preprocessing, augment: Augmentation) -> None:
        self.pre, self.augment = pre, augment
        self.size: Callable[[Picture], Picture] = pre.place
        if augment.crop_scale is not None:
            self.size = ResizedCrop(pre.size, augment.crop_scale, augment.crop_ratio, pre.interpolation)
        self.steps = (*_geometry(pre, augment), *_policy(pre, augment), *_colours(pre, augment))
        self.erase = v2.RandomErasing(augment.random_erasing, value=0) if augment.random_erasing else None

    @property
    def draft_size(self) -> int | None:
        """Shorter side that a decoded image should keep for crops to stay sharp; None: every pixel matters."""
        return None if self.augment.crop_scale is None else 2 * self.pre.size

    def __call__(self, image: Picture) -> Tensor:
        pixels = _pixels(self.size(self.pre.convert(image)))
        for step in self.steps:
            pixels = step(pixels)
        tensor = _normalised(self.pre, pixels)
        return tensor if self.erase is None else self.erase(tensor)


def _pixels(image: Picture) -> Pixels:
    if isinstance(image, Image.Image):
        return image
    return tv_tensors.Image(torch.from_numpy(np.array(image, dtype=np.float32)))


def _normalised(pre: Values, pixels: Pixels) -> Tensor:
    return torch.from_numpy(pre.normalise(pixels if isinstance(pixels, Image.Image) else pixels.numpy()))


@dataclass(frozen=True)
class ResizedCrop:
    """Cut out a random rectangle and resize it to the square (Szegedy et al., "Going deeper with convolutions", 2015).

    The area is uniform in `scale` times the image's, the logarithm of the aspect uniform in that of `ratio`. When ten
    draws do not fit into the image, the largest centred rectangle with an aspect in `ratio` is taken.
    """

    size: int
    scale: tuple[float, ...]
    ratio: tuple[float, ...]
    interpolation: str

    def __call__(self, image: Picture) -> Picture:
        # A giant image is averaged down by a whole factor first, so that it costs no more than a photo does.
        factor = min(image.size) // (8 * self.size)
        if factor > 1:
            image = image.reduce(factor)
        left, top, width, height = self.rectangle(image.width, image.height)
        box = (left, top, left + width, top + height)
        return image.resize((self.size, self.size), INTERPOLATION[self.interpolation], box)

    def rectangle(self, width: int, height: int) -> tuple[int, int, int, int]:
        """(left, top, width, height) in pixels of an image of that width and height."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for area, aspect, x, y in torch.rand(10, 4).tolist():
            target = width * height * (self.scale[0] + area * (self.scale[1] - self.scale[0]))
            ratio = math.exp(low + aspect * (high - low))
            w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(x * (width - w + 1)), int(y * (height - h + 1)), w, h
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        w, h = max(min(width, round(height * ratio)), 1), max(min(height, round(width / ratio)), 1)
        return (width - w) // 2, (height - h) // 2, w, h


@dataclass(frozen=True)
class PaddingCrop:
    """Pad all sides with the mean colour and cut out the old size at random (He et al., 2015, section 4.2)."""

    padding: int
    fill: tuple[float, ...]

    def __call__(self, image: Pixels) -> Pixels:
        left, top = (2 * self.padding - int(v * (2 * self.padding + 1)) for v in torch.rand(2).tolist())
        height, width = F.get_size(image)
        padded = F.pad(image, [self.padding], fill=list(self.fill))
        cut: Pixels = F.crop(padded, top, left, height, width)
        return cut


def _geometry(pre: Preprocessing, augment: Augmentation) -> list[Step]:
    steps: list[Step] = []
    if augment.pad_crop:
        steps.append(PaddingCrop(augment.pad_crop, pre.mean_colour))
    if augment.hflip:
        steps.append(v2.RandomHorizontalFlip(augment.hflip))
    if augment.vflip:
        steps.append(v2.RandomVerticalFlip(augment.vflip))
    shift, zoom = augment.affine_translate, augment.affine_scale
    if augment.affine_degrees or shift or zoom or augment.affine_shear:
        steps.append(
            v2.RandomAffine(
                augment.affine_degrees,
                translate=(shift, shift) if shift else None,
                scale=(1 - zoom, 1 + zoom) if zoom else None,
                shear=augment.affine_shear or None,
                interpolation=v2.InterpolationMode.BILINEAR,
                fill=list(pre.mean_colour),
            )
        )
    return steps


def _policy(pre: Preprocessing, augment: Augmentation) -> list[Step]:
    if augment.auto_augment != "none":
        _require_colours(pre, "auto_augment", "none")
    warp, fill = v2.InterpolationMode.BILINEAR, list(pre.mean_colour)
    if augment.auto_augment == "randaugment":
        return [v2.RandAugment(augment.auto_operations, augment.auto_magnitude, interpolation=warp, fill=fill)]
    if augment.auto_augment == "autoaugment":
        return [v2.AutoAugment(v2.AutoAugmentPolicy(augment.auto_policy), interpolation=warp, fill=fill)]
    return [v2.TrivialAugmentWide(interpolation=warp, fill=fill)] if augment.auto_augment == "trivialaugment" else []


def _colours(pre: Values, augment: Augmentation) -> list[Step]:
    steps: list[Step] = []
    if augment.photometric:
        _require_colours(pre, "photometric", "0")
        steps.append(v2.RandomPhotometricDistort(p=augment.photometric))
    strength = augment.color_jitter
    if strength and not pre.plain:
        steps.append(_EachBand(v2.ColorJitter(strength, strength)))
    elif strength:
        # Saturation means nothing for grey images.
        steps.append(v2.ColorJitter(strength, strength, strength if pre.channels == 3 else 0.0))
    return steps


@dataclass(frozen=True)
class _EachBand:
    """A step for grey images, done to each band with the same draws."""

    step: Callable[[Tensor], Tensor]

    def __call__(self, image: Pixels) -> Pixels:
        assert isinstance(image, Tensor)
        return tv_tensors.Image(self.step(image.as_subclass(Tensor)[:, None])[:, 0])


def _require_colours(pre: Values, name: str, off: str) -> None:
    if not pre.plain:
        raise UserError(
            f"{name} changes colours of 8 bits, and the images have {bands_in_words(pre.channels, pre.depth)}. Set "
            f"{name}={off}; color_jitter, flips, crops, affine maps and erasing take any bands."
        )


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

    def image(self, image: Picture, pre: ScenePreprocessing) -> Pixels:
        """The image, without its padding."""
        result: Pixels = self._move(_pixels(pre.resize(image, self.size)))
        return result

    def boxes(self, boxes: Tensor, width: int, height: int) -> Tensor:
        """Boxes (n, 4) xyxy of an image of that width and height, clipped to what is left of it."""
        known = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width))
        known = self._move(F.resize(known, list(self.size)))
        result: Tensor = F.clamp_bounding_boxes(known).as_subclass(Tensor)
        return result

    def mask(self, mask: np.ndarray, fill: int) -> Tensor:
        """uint8 (H, W) to uint8 (h, w), each pixel that of the nearest centre; `fill` in the padding."""
        values = torch.from_numpy(np.array(nearest(mask, *self.size), dtype=np.uint8))[None]
        result: Tensor = self._move(tv_tensors.Mask(values), fill).as_subclass(Tensor)[0]
        return result

    def _move(self, thing: Movable, fill: int | None = None) -> Movable:
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


def draw_geometry(pre: ScenePreprocessing, augment: Augmentation | None, width: int, height: int) -> Geometry:
    """The geometry for an image of that width and height; the evaluation's without augmentation.

    The shorter side is one of short_sides, if there are any, instead of the evaluation's; the evaluation's max_size
    holds. scale_jitter multiplies the size by a uniform draw from its range; together with crop_size, and an
    evaluation that fits images into it, this is large-scale jitter (Ghiasi et al., 2020, arXiv:2012.07177). rotate90
    turns by a random number of quarters, as suits images without an up. crop_size cuts out (height, width) at random;
    smaller images are padded below and on the right, with zeros after normalising, and with IGNORE in label maps.
    """
    if augment is None:
        return Geometry(pre.shape(width, height))
    short_side = pre.short_side
    if augment.short_sides:
        short_side = augment.short_sides[_below(len(augment.short_sides))]
    factor = resize_factor(width, height, short_side, pre.max_size)
    if augment.scale_jitter is not None:
        low, high = augment.scale_jitter
        factor *= low + (high - low) * torch.rand(()).item()
        if augment.crop_size is None and pre.max_size is not None:
            factor = min(factor, pre.max_size / max(width, height))
    size = resized(width, height, factor)
    turns = _below(4) if augment.rotate90 else 0
    hflip, vflip = (p > 0 and torch.rand(()).item() < p for p in (augment.hflip, augment.vflip))
    crop = None
    if augment.crop_size is not None:
        h, w = size if turns % 2 == 0 else size[::-1]
        top, left = (_below(max(side - cut, 0) + 1) for side, cut in zip((h, w), augment.crop_size, strict=True))
        crop = (top, left, augment.crop_size[0], augment.crop_size[1])
    return Geometry(size, turns, hflip, vflip, crop)


def _below(stop: int) -> int:
    return int(torch.randint(stop, ()).item())


def _quarter_turns(thing: Movable, turns: int) -> Movable:
    """Turn an image, a mask (..., H, W) or boxes against the clock, exactly; torchvision turns by resampling only."""
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
    """A picklable function (image, target) -> (float32 (C, h, w), changed target).

    The target is `Objects` for boxes and masks, of which boxes float32 (n, 4), labels int64 (n,) and, for masks, masks
    uint8 (n, h, w) come back; a label map (H, W) for maps, of which mask int64 (h, w) comes back. Crowds, and objects
    of which less than a pixel is left in width or height, are left out. Without `augment` the image is exactly that of
    `pre`. photometric is the probability of each of the changes of brightness, contrast, saturation, hue and channel
    order that Liu et al. (2015, arXiv:1512.02325) make; color_jitter as in `TrainTransform`.

    Raises:
        UserError: a label map or mask is not of the image's size, or the data has boxes only and masks are wanted; or
            photometric, which is for colours, is on for images of other than 8 bits in grey or colour.
    """

    def __init__(self, pre: ScenePreprocessing, augment: Augmentation | None, annotation: Annotation) -> None:
        self.pre, self.augment, self.annotation = pre, augment, annotation
        self.colours = () if augment is None else _colours(pre, augment)

    def __call__(self, image: Picture, target: Objects | np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
        width, height = image.size
        geometry = draw_geometry(self.pre, self.augment, width, height)
        if isinstance(target, Objects):
            changed = self._objects(target, geometry, width, height)
        else:
            _require_size("label map", target, width, height)
            changed = {"mask": geometry.mask(target, IGNORE).long()}
        pixels = geometry.image(self.pre.convert(image), self.pre)
        for step in self.colours:
            pixels = step(pixels)
        tensor = _normalised(self.pre, pixels)
        # The padding comes last: colours must not change it, since `collate_scenes` pads with the same.
        h, w = geometry.shape
        return pad(tensor, (0, w - tensor.shape[2], 0, h - tensor.shape[1])), changed

    def _objects(self, target: Objects, geometry: Geometry, width: int, height: int) -> dict[str, Tensor]:
        boxes = geometry.boxes(torch.from_numpy(np.array(target.boxes, dtype=np.float32)), width, height)
        labels = torch.from_numpy(np.array(target.labels, dtype=np.int64))
        alive = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1) & ~torch.from_numpy(np.array(target.crowd, dtype=bool))
        kept = torch.nonzero(alive).flatten()
        if self.annotation == "boxes":
            return {"boxes": boxes[kept], "labels": labels[kept]}
        if target.regions is None:
            raise UserError("masks need a mask of each object, and the data has boxes only. Give data with masks.")
        h, w = geometry.shape
        masks = torch.zeros(len(kept), h, w, dtype=torch.uint8)
        visible: list[int] = []
        for index in kept.tolist():
            region = target.regions[index].decode(height, width)  # one at a time: many at full size fill the memory
            _require_size("mask", region, width, height)
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


def never_seen(split: ObjectSplit, pre: ScenePreprocessing) -> list[str]:
    """A note on the objects that `SceneTransform` leaves out of every image, whatever the augmentation; none when there
    are none."""
    crowds = small = 0
    for objects in split.objects:
        crowds += int(objects.crowd.sum())
        if objects.size is not None:
            height, width = pre.shape(*objects.size)
            scale = (width / objects.size[0], height / objects.size[1])
            sides = (objects.boxes[:, 2:] - objects.boxes[:, :2]) * scale
            small += int(((sides < 1).any(axis=1) & ~objects.crowd).sum())
    parts = [f"{crowds} as crowds"] if crowds else []
    parts += [f"{small} as smaller than a pixel at the size of training"] if small else []
    total = sum(len(objects) for objects in split.objects)
    return [f"training leaves out {' and '.join(parts)} of its {total} objects"] if parts else []


def _require_size(what: str, mask: np.ndarray, width: int, height: int) -> None:
    if mask.shape != (height, width):
        raise UserError(
            f"a {what} has {mask.shape[1]} x {mask.shape[0]} pixels (width x height) and its image, turned upright, "
            f"{width} x {height}. Make it again at the image's size, or remove it; `resurge check-data` finds all such."
        )
