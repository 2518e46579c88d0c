"""Suppression and pooling as operators that torch.export keeps whole, and what they are in ONNX.

Their outputs have shapes that follow from the inputs' shapes, while inside the number of boxes depends on the image:
those that remain, those of a level. Importing this registers them with torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import batched_nms, roi_align

NAMESPACE = "resurge"
ABSENT = -1.0
"""The score of a candidate that is none."""
_LOWEST = -0.5  # between that and every score of a box


@torch.library.custom_op(
    f"{NAMESPACE}::suppress", mutates_args=(), schema="(Tensor boxes, Tensor scores, float overlap, int most) -> Tensor"
)
def suppress(boxes: Tensor, scores: Tensor, overlap: float, most: int) -> Tensor:
    """Non-maximum suppression within each class of each image, and the best of what remains.

    Args:
        boxes: float32 (N, n, K, 4), or (N, n, 1, 4) where a box is the same for all classes.
        scores: float32 (N, n, K); `ABSENT` where there is no box.
        overlap: intersection over union above which the lower of two boxes is dropped.
        most: boxes that remain per image.

    Returns:
        int64 (N, most): indices among n * K, the highest score first; -1 behind the last box.
    """
    classes = scores.shape[2]
    found = torch.full((len(scores), most), -1, dtype=torch.int64, device=scores.device)
    for row, own_boxes, own_scores in zip(found, boxes, scores, strict=True):
        candidate, label = (own_scores > _LOWEST).nonzero(as_tuple=True)
        own = own_boxes[candidate, label if own_boxes.shape[1] > 1 else 0]
        keep = batched_nms(own, own_scores[candidate, label], label, overlap)[:most]
        row[: len(keep)] = candidate[keep] * classes + label[keep]
    return found


@suppress.register_fake
def _(boxes: Tensor, scores: Tensor, overlap: float, most: int) -> Tensor:
    return scores.new_empty((scores.shape[0], most), dtype=torch.int64)


def pool(
    maps: Sequence[Tensor], boxes: Tensor, image: Tensor, level: Tensor, scales: Sequence[float], size: int,
    samples: int,
) -> Tensor:  # fmt: skip
    """RoIAlign, each box from the map of its level: float32 (M, C, size, size), zeros of a box without a level.

    Args:
        maps: float32 (N, C, h, w), one per level; scales: their sides as shares of the image's.
        boxes: float32 (M, 4), in the pixels of the image.
        image, level: int64 (M,), whose box it is and which map it is pooled from.
        samples: along a side of each cell.
    """
    result = maps[0].new_zeros((len(boxes), maps[0].shape[1], size, size))
    regions = torch.cat([image[:, None].to(boxes.dtype), boxes], 1)
    for number, (values, scale) in enumerate(zip(maps, scales, strict=True)):
        index = (level == number).nonzero()[:, 0]
        result[index] = roi_align(values, regions[index], size, scale, samples)
    return result


@torch.library.custom_op(
    f"{NAMESPACE}::pooled",
    mutates_args=(),
    schema="(Tensor[] maps, Tensor boxes, Tensor image, Tensor level, float[] scales, int size, int samples) -> Tensor",
)
def pooled(
    maps: Sequence[Tensor], boxes: Tensor, image: Tensor, level: Tensor, scales: Sequence[float], size: int,
    samples: int,
) -> Tensor:  # fmt: skip
    """`pool` in an exported network, which may have been changed since. Raises ValueError when a box is of an image
    that is not there."""
    if ((image < 0) | (image >= len(maps[0]))).any():  # torchvision would read past the maps
        raise ValueError(f"a box is of an image that is not there: there are {len(maps[0])}.")
    return pool(maps, boxes, image, level, scales, size, samples)


@pooled.register_fake
def _(
    maps: Sequence[Tensor], boxes: Tensor, image: Tensor, level: Tensor, scales: Sequence[float], size: int,
    samples: int,
) -> Tensor:  # fmt: skip
    return maps[0].new_empty((boxes.shape[0], maps[0].shape[1], size, size))


def onnx_table() -> dict[Any, Callable[..., Any]]:
    """How each operator is written in ONNX, for `torch.onnx.export`."""
    from onnxscript import opset20

    op: Any = opset20  # its annotations know no values that are computed

    def integers(*values: int) -> Any:
        return op.Constant(value_ints=list(values))

    def real(value: float) -> Any:
        return op.Constant(value_float=value)

    def write_suppress(boxes: Any, scores: Any, overlap: float, most: int) -> Any:
        by_class = op.Transpose(scores, perm=[0, 2, 1])  # (N, K, n), as NonMaxSuppression takes them
        count = op.Gather(op.Shape(scores), integers(1))
        if boxes.shape[2] == 1:
            boxes, wanted = op.Squeeze(boxes, integers(2)), by_class
        else:  # (N K, n, 4) and (N K, 1, n): boxes that differ between the classes are as those of different images
            boxes = op.Transpose(boxes, perm=[0, 2, 1, 3])
            boxes = op.Reshape(boxes, op.Concat(integers(-1), count, integers(4), axis=0))
            wanted = op.Reshape(by_class, op.Concat(integers(-1, 1), count, axis=0))
        # rows of image, class, index
        chosen = op.NonMaxSuppression(
            boxes, wanted, count, op.Constant(value_floats=[overlap]), op.Constant(value_floats=[_LOWEST])
        )
        none = op.Expand(op.Cast(integers(0), to=9), op.Shape(wanted))
        every = op.Expand(op.Cast(integers(1), to=9), op.Gather(op.Shape(chosen), integers(0)))
        kept = op.Where(op.ScatterND(none, chosen, every), wanted, real(ABSENT))
        kept = op.Transpose(op.Reshape(kept, op.Shape(by_class)), perm=[0, 2, 1])
        flat = op.Pad(op.Reshape(kept, integers(0, -1)), integers(0, 0, 0, most), real(ABSENT))
        best, index = op.TopK(flat, integers(most), axis=1)
        return op.Where(op.Greater(best, real(_LOWEST)), index, integers(-1))

    def write_pooled(
        maps: Sequence[Any], boxes: Any, image: Any, level: Any, scales: Sequence[float], size: int, samples: int
    ) -> Any:
        parts, indices = [], []
        for number, (values, scale) in enumerate(zip(maps, scales, strict=True)):
            index = op.Reshape(op.NonZero(op.Equal(level, integers(number))), integers(-1))
            parts.append(
                op.RoiAlign(
                    values, op.Gather(boxes, index), op.Gather(image, index), mode="avg", spatial_scale=scale,
                    coordinate_transformation_mode="output_half_pixel", output_height=size, output_width=size,
                    sampling_ratio=samples,
                )
            )  # fmt: skip
            indices.append(index)
        if len(parts) == 1:
            return parts[0]
        order = op.Concat(*indices, axis=0)
        count = op.Squeeze(op.Shape(order))
        back = op.ScatterElements(
            order, order, op.Range(op.Constant(value_int=0), count, op.Constant(value_int=1)), axis=0
        )
        return op.Gather(op.Concat(*parts, axis=0), back, axis=0)

    operators = getattr(torch.ops, NAMESPACE)
    return {operators.suppress.default: write_suppress, operators.pooled.default: write_pooled}
