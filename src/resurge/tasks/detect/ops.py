"""Two operators of a detector that torch.export must not look into, and what they are in ONNX.

What they take and give has a size that follows from the batch alone, while inside the number of boxes depends on the
image: those that survive, those of a level. In ONNX they are NonMaxSuppression and RoiAlign with what is around them.
Importing this registers them with torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import nms, roi_align

NAMESPACE = "resurge"
ABSENT = -1.0
"""The score of a place that holds no box."""
_LOWEST = -0.5  # between that and every score of a box


@torch.library.custom_op(
    f"{NAMESPACE}::surviving", mutates_args=(), schema="(Tensor boxes, Tensor scores, float overlap) -> Tensor"
)
def surviving(boxes: Tensor, scores: Tensor, overlap: float) -> Tensor:
    """Which boxes stay when, best first, each drops those that overlap it by more.

    Args:
        boxes: float32 (N, n, 4).
        scores: float32 (N, K, n): every class of every image is a matter of its own. Places with `ABSENT` are no boxes.
        overlap: intersection over union.

    Returns:
        bool (N, K, n).
    """
    kept = torch.zeros_like(scores, dtype=torch.bool)
    there = scores > _LOWEST
    for image, kind in there.any(2).nonzero().tolist():
        places = there[image, kind].nonzero()[:, 0]
        kept[image, kind, places[nms(boxes[image, places], scores[image, kind, places], overlap)]] = True
    return kept


@surviving.register_fake
def _(boxes: Tensor, scores: Tensor, overlap: float) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


@torch.library.custom_op(
    f"{NAMESPACE}::pooled",
    mutates_args=(),
    schema="(Tensor[] maps, Tensor boxes, Tensor image, Tensor level, float[] scales, int size, int samples) -> Tensor",
)
def pooled(
    maps: Sequence[Tensor],
    boxes: Tensor,
    image: Tensor,
    level: Tensor,
    scales: Sequence[float],
    size: int,
    samples: int,
) -> Tensor:
    """RoIAlign, each box from the map of its level.

    Args:
        maps: float32 (N, C, h, w), one a level.
        boxes: float32 (n, 4), in the pixels of the image.
        image, level: int64 (n,), whose box it is and which map it is pooled from.
        scales: side of a map as a share of the image's.
        size: side of what is pooled. samples: along a side of each of its cells.

    Returns:
        float32 (n, C, size, size); zeros of a box whose level is not there.

    Raises:
        ValueError: a box is of an image that is not there.
    """
    if ((image < 0) | (image >= len(maps[0]))).any():  # torchvision would read past the maps
        raise ValueError(f"a box is of an image that is not there: there are {len(maps[0])}.")
    result = maps[0].new_zeros((len(boxes), maps[0].shape[1], size, size))
    rows = torch.cat([image[:, None].to(boxes.dtype), boxes], 1)
    for number, (values, scale) in enumerate(zip(maps, scales, strict=True)):
        places = (level == number).nonzero()[:, 0]
        result[places] = roi_align(values, rows[places], size, scale, samples)
    return result


@pooled.register_fake
def _(
    maps: Sequence[Tensor],
    boxes: Tensor,
    image: Tensor,
    level: Tensor,
    scales: Sequence[float],
    size: int,
    samples: int,
) -> Tensor:
    return maps[0].new_empty((boxes.shape[0], maps[0].shape[1], size, size))


def onnx_table() -> dict[Any, Callable[..., Any]]:
    """How each operator is written in ONNX, for `torch.onnx.export`."""
    from onnxscript import opset20

    op: Any = opset20  # its annotations know no values that are computed

    def integers(*values: int) -> Any:
        return op.Constant(value_ints=list(values))

    def write_surviving(boxes: Any, scores: Any, overlap: float) -> Any:
        most = op.Gather(op.Shape(scores), integers(2))
        # rows of image, class, place
        chosen = op.NonMaxSuppression(
            boxes, scores, most, op.Constant(value_floats=[overlap]), op.Constant(value_floats=[_LOWEST])
        )
        none = op.Expand(op.Cast(integers(0), to=9), op.Shape(scores))
        every = op.Expand(op.Cast(integers(1), to=9), op.Gather(op.Shape(chosen), integers(0)))
        return op.ScatterND(none, chosen, every)

    def write_pooled(
        maps: Sequence[Any], boxes: Any, image: Any, level: Any, scales: Sequence[float], size: int, samples: int
    ) -> Any:
        parts, places = [], []
        for number, (values, scale) in enumerate(zip(maps, scales, strict=True)):
            place = op.Reshape(op.NonZero(op.Equal(level, integers(number))), integers(-1))
            parts.append(
                op.RoiAlign(
                    values,
                    op.Gather(boxes, place),
                    op.Gather(image, place),
                    coordinate_transformation_mode="output_half_pixel",
                    mode="avg",
                    output_height=size,
                    output_width=size,
                    sampling_ratio=samples,
                    spatial_scale=scale,
                )
            )
            places.append(place)
        if len(parts) == 1:
            return parts[0]
        order = op.Concat(*places, axis=0)
        count = op.Squeeze(op.Shape(order))
        back = op.ScatterElements(
            order, order, op.Range(op.Constant(value_int=0), count, op.Constant(value_int=1)), axis=0
        )
        return op.Gather(op.Concat(*parts, axis=0), back, axis=0)

    operators = getattr(torch.ops, NAMESPACE)
    return {operators.surviving.default: write_surviving, operators.pooled.default: write_pooled}
