"""Segmentation of images at several sizes, mirrored, and in windows: what is done when there is time for more.

The result for a pixel is the mean of its probabilities over all predictions (a size, mirrored or not, a window) that
see it. With a single prediction this is the softmax of a plain forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor, nn

from resurge.errors import UserError
from resurge.tasks.segment.layers import enlarge
from resurge.tasks.tta import TTA


def class_values(model: nn.Module, images: Tensor, tta: TTA = TTA()) -> Tensor:
    """(N, C, h, w) -> float32 (N, K, h, w): logits, or with test-time augmentation the logarithms of the probabilities
    averaged over all predictions."""
    if tta.plain:
        logits: Tensor = model(images)
        return logits.float()
    found = predict_probabilities(model, images, scales=tta.scales, flip=tta.flip, window=tta.window)
    return found.float().clamp(min=1e-12).log()


@torch.no_grad()
def predict_probabilities(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    window: tuple[int, int] | None = None,
    overlap: float = 1 / 3,
) -> Tensor:
    """(N, C, H, W) -> class probabilities (N, K, H, W), float32 (float64 for a model of that type).

    Args:
        model: (N, C, h, w) -> logits (N, K, h, w), in evaluation mode.
        scales: factors by which the images are resized, bilinearly.
        flip: add the mirrored image (left to right) at every scale.
        window: height and width of the windows that the model is given one after the other, at most as large as the
            image; None gives it the image at once. Windows bound the model's own memory; what grows with the image is
            two maps of K probabilities per pixel, one of them at the largest scale.
        overlap: the least share of a window that its neighbour covers too.

    Raises:
        UserError: an argument is out of range, or the model is in training mode.
    """
    _check(model, images, scales, window, overlap)
    size = (images.shape[-2], images.shape[-1])

    def predict(scale: float, mirrored: bool) -> Tensor:
        scaled = _resized(images, (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))))
        found = _in_windows(model, scaled.flip(-1) if mirrored else scaled, window, overlap)
        return _resized(found.flip(-1) if mirrored else found, size)

    first, *others = product(scales, (False, True) if flip else (False,))
    total = predict(*first)
    for other in others:
        total += predict(*other)
    return total.div_(1 + len(others))


def window_starts(size: int, window: int, overlap: float) -> list[int]:
    """Where windows begin along one side: evenly enough, each `overlap` of a window or more, the last at the border."""
    if window >= size:
        return [0]
    count = 1 + math.ceil((size - window) / max(1, int(window * (1 - overlap))))
    return [i * (size - window) // (count - 1) for i in range(count)]


def _in_windows(
    model: Callable[[Tensor], Tensor], images: Tensor, window: tuple[int, int] | None, overlap: float
) -> Tensor:
    size = (images.shape[-2], images.shape[-1])
    if window is None or (window[0] >= size[0] and window[1] >= size[1]):
        return _probabilities(model(images))
    down, across = (
        [slice(start, min(whole, start + side)) for start in window_starts(whole, side, overlap)]
        for whole, side in zip(size, window, strict=True)
    )
    seen = torch.zeros(size, device=images.device)
    total: Tensor | None = None
    for rows, columns in product(down, across):
        found = _probabilities(model(images[..., rows, columns]))
        total = found.new_zeros(*found.shape[:2], *size) if total is None else total
        total[..., rows, columns] += found
        seen[rows, columns] += 1
    assert total is not None
    return total.div_(seen)


def _probabilities(logits: Tensor) -> Tensor:
    return (logits if logits.dtype == torch.float64 else logits.float()).softmax(dim=1)


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    return x if (x.shape[-2], x.shape[-1]) == size else enlarge(x, size)


def _check(
    model: object, images: Tensor, scales: Sequence[float], window: tuple[int, int] | None, overlap: float
) -> None:
    if isinstance(model, nn.Module) and model.training:
        raise UserError("expected a model in evaluation mode; call model.eval() first.")
    if images.dim() != 4 or 0 in images.shape:
        raise UserError(f"expected images (N, C, H, W) with at least one pixel; got {tuple(images.shape)}.")
    if not scales or not all(math.isfinite(scale) and scale > 0 for scale in scales):
        raise UserError(f"expected at least one scale, each a positive number; got {tuple(scales)}.")
    if window is not None and (len(window) != 2 or not all(type(side) is int and side > 0 for side in window)):
        raise UserError(f"expected a window as (height, width), positive whole numbers; got {window!r}.")
    if not 0 <= overlap < 1:
        raise UserError(f"overlap must be from 0 up to, not including, 1; got {overlap!r}.")
