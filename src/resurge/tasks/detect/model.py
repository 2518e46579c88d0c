"""A detector: a backbone, a feature pyramid, and a head that finds objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from resurge.arch.backbone import Backbone
from resurge.arch.spec import Spec
from resurge.errors import UserError, require_one_of
from resurge.tasks.detect.head import Detections
from resurge.tasks.detect.heads import BOX_HEADS, MASK_HEADS
from resurge.tasks.detect.pyramid import Features, diagonal_boxes, image_sizes, pad
from resurge.tasks.detect.settings import Detector
from resurge.tasks.result import Size


class DetectionModel(nn.Module):
    """Images -> boxes, scores, labels and, with some heads, masks; `losses` trains it.

    Args:
        backbone: any backbone; its maps from stride 4 on are used.
        num_classes: not counting the background.
        head: a name of one of the tables in `resurge.tasks.detect.heads`.

    Raises:
        UserError: no such head, or `num_classes` is out of range.
    """

    def __init__(
        self, backbone: Backbone, num_classes: int, head: str = "faster_rcnn", settings: Detector = Detector()
    ) -> None:
        super().__init__()
        if type(num_classes) is not int or num_classes < 1:
            raise UserError(f"num_classes must be a positive whole number; got {num_classes!r}.")
        require_one_of("head", head, (*BOX_HEADS, *MASK_HEADS))
        self.head_name = head
        self.has_masks = head in MASK_HEADS
        self.num_classes = num_classes
        self.settings = settings
        self.backbone = backbone
        self.fpn, self.head = (MASK_HEADS if self.has_masks else BOX_HEADS)[head](backbone, num_classes, settings)

    @property
    def spec(self) -> Spec:
        return self.backbone.spec

    def forward(self, images: Tensor, sizes: Sequence[Size] | None = None) -> list[dict[str, Tensor]]:
        """What is found in each image, in the pixels of the batch, the highest score first.

        Args:
            images: (N, in_channels, H, W), padded at the right and below.
            sizes: (height, width) of each image without its padding; None where there is none.

        Returns:
            For each image boxes (n, 4) as left, top, right, bottom; scores (n,); labels (n,) from 0; with masks, masks
            (n, 1, s, s), the probabilities inside each box.

        Raises:
            UserError: the sizes do not fit the images.
        """
        return self.detect(images, image_sizes(images, sizes)).as_list()

    def detect(self, images: Tensor, sizes: Tensor) -> Detections:
        """The same in a fixed number of slots per image, sizes as int64 (N, 2). It can be traced by torch.export."""
        return self.head.detect(self.features(images, sizes))

    def candidates(self, images: Tensor, sizes: Tensor) -> Detections:
        """As `detect`, but before the score threshold and suppression, and without masks."""
        return self.head.candidates(self.features(images, sizes))

    def features(self, images: Tensor, sizes: Tensor) -> Features:
        """The levels of the pyramid, and where the images are in them."""
        images = pad(images, int(self.backbone.strides[-1]))
        levels = self.fpn(self.backbone(images))
        return Features(levels, (images.shape[-2], images.shape[-1]), sizes.flip(1).repeat(1, 2).to(torch.float32))

    def losses(
        self, images: Tensor, targets: Sequence[Mapping[str, Tensor]], sizes: Sequence[Size] | None = None
    ) -> dict[str, Tensor]:
        """The terms of the training loss, scalars, by name. What is drawn at random comes from torch's generator.

        Args:
            images, sizes: as in `forward`.
            targets: for each image boxes (n, 4), labels (n,) from 0 and, for masks, masks (n, h, w) of 0 and 1. Boxes
                without a side are left out, and there may be none at all.

        Raises:
            UserError: a target is incomplete or a label is no class, or the sizes do not fit the images.
        """
        known = image_sizes(images, sizes)
        if len(targets) != len(known):
            raise UserError(f"expected targets for {len(known)} images, got {len(targets)}.")
        cleaned = [self._clean(*each, images.device) for each in zip(targets, known.tolist(), strict=True)]
        return self.head.losses(self.features(images, known), cleaned)

    def _clean(self, target: Mapping[str, Tensor], size: Size, device: torch.device) -> dict[str, Tensor]:
        """The objects of an image that can be learnt from, with labels that leave 0 to the background.

        A box without a side, with a coordinate that is no number, or wholly outside its image is left out: no anchor
        overlaps it, so that the rule "the best anchor of each object is a hit" would take every anchor.
        """
        needed = ("boxes", "labels", "masks") if self.has_masks else ("boxes", "labels")
        absent = [name for name in needed if name not in target]
        if absent:
            raise UserError(f"a target needs {', '.join(needed)}; one without {', '.join(absent)} came.")
        found = {name: torch.as_tensor(target[name], device=device) for name in needed}
        boxes, labels = found["boxes"].float().reshape(-1, 4), found["labels"].long().reshape(-1)
        found |= {"boxes": boxes, "labels": labels + 1}
        if len({len(values) for values in found.values()}) > 1:
            counts = ", ".join(f"{len(target[name])} {name}" for name in needed)
            raise UserError(f"a target needs as many of each of {', '.join(needed)}; got {counts}.")
        wrong = (labels < 0) | (labels >= self.num_classes)
        if wrong.any():
            first = min(labels[wrong].tolist())
            raise UserError(f"the classes are 0 to {self.num_classes - 1}; a target holds the label {first}.")
        (height, width), (left, top, right, bottom) = size, boxes.unbind(1)
        keep = (right > left) & (bottom > top) & (right > 0) & (bottom > 0) & (left < width) & (top < height)
        keep &= boxes.isfinite().all(1)
        return {name: values[keep] for name, values in found.items()}

    def smooth_outputs(self, images: Tensor) -> Iterator[Tensor]:
        """All that the layers put out for images (N, C, H, W) before anything is chosen by a threshold: the levels of
        the pyramid, the outputs for every anchor and, for boxes that are always the same, those of the other heads."""
        features = self.features(images, image_sizes(images, None))
        yield from features.levels
        yield from self.head.smooth_outputs(features, *diagonal_boxes(features.limits))


class ExportedDetector(nn.Module):
    """A detector as it is exported: images float32 (N, C, H, W) and sizes int64 (N, 2) -> the fields of `Detections`.

    The layers compute in `kind`, boxes always in float32. `raw` puts out the candidates before threshold and
    suppression.
    """

    def __init__(self, model: DetectionModel, kind: torch.dtype = torch.float32, raw: bool = False) -> None:
        super().__init__()
        self.model = model.to(kind)
        self.kind = kind
        self.raw = raw

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        find = self.model.candidates if self.raw else self.model.detect
        return tuple(values for values in find(images.to(self.kind), sizes) if values is not None)
