"""What a network moves through memory layer by layer, and what a device moves: the floor under its time on a GPU.

It is a floor as long as maps are larger than the caches: at batch 1 on a GPU with a large one a run can be faster.
"""

from __future__ import annotations

import copy
import time

import torch
from torch import Tensor, nn

COPIED = 2**28
"""Bytes of each side of a copy that bandwidth is measured with: more than any cache."""


def traffic(model: nn.Module, images: tuple[int, int, int, int], value_bytes: int) -> int:
    """Bytes that one pass moves if each convolution and linear layer reads its input and weights once and writes its
    output once, and all else is done on the way. Deformable convolutions are not counted.

    The network runs on torch's meta device, which computes shapes only.

    Args:
        images: shape (N, C, H, W). value_bytes: of a number, 2 in bf16.
    """
    values = 0

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal values
        values += inputs[0].numel() + output.numel() + sum(each.numel() for each in layer.parameters())

    shapes = copy.deepcopy(model).to("meta").eval()
    for layer in shapes.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(note)
    with torch.no_grad():
        shapes(torch.empty(images, device="meta"))
    return values * value_bytes


def bandwidth(device: torch.device, rounds: int = 9) -> float:
    """Bytes a second, read and written, of a large copy on the device; the fastest of a few."""
    source = torch.zeros(COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    fastest = float("inf")
    for _ in range(rounds + 1):
        _settled(device)
        begin = time.perf_counter()
        target.copy_(source)
        _settled(device)
        fastest = min(fastest, time.perf_counter() - begin)
    return 2 * COPIED / fastest


def _settled(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
