"""Kernels of our own for a GPU, written in Triton, each with the same function in plain torch for any other device.

An operator that only moves memory is as fast as the bytes it reads and writes. Written out in torch, the weighted sum
of two branches needs a sigmoid first and then reads both maps; the kernel does it in one launch and one pass.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

ROWS, CHANNELS = 32, 64
"""Pixels and channels of one program: with 16-bit numbers 4 KiB of each map, enough loads in flight to hide latency."""


@torch.library.custom_op("resurge::mix_pair", mutates_args=())
def mix_pair(first: Tensor, second: Tensor, logits: Tensor) -> Tensor:
    """sigmoid(logits) * first + (1 - sigmoid(logits)) * second, the softmax over two branches of split attention.

    Args:
        first, second: maps (N, C, H, W), of one type; channels-last ones, also slices of a wider map, are not copied.
        logits: (N, C, 1, 1), the difference of the two branches'.

    Returns:
        (N, C, H, W), channels-last.
    """
    if first.is_cuda:
        return launch_mix_pair(first, second, logits)
    out = torch.lerp(second, first, logits.sigmoid())
    return out.contiguous(memory_format=torch.channels_last)


@mix_pair.register_fake
def _(first: Tensor, second: Tensor, logits: Tensor) -> Tensor:
    return torch.empty_like(first, memory_format=torch.channels_last)


def launch_mix_pair(first: Tensor, second: Tensor, logits: Tensor) -> Tensor:
    """`mix_pair` by the kernel; under TRITON_INTERPRET=1 on a processor too."""
    n, c, h, w = first.shape
    maps = [_rows_of(each) for each in (first, second)]
    out = torch.empty((n, c, h, w), dtype=first.dtype, device=first.device, memory_format=torch.channels_last)
    if not out.numel():
        return out
    grid = (-(-h * w // ROWS), -(-c // CHANNELS), n)
    # a kernel is launched on the current device, whatever its tensors are on
    with torch.cuda.device_of(first):  # type: ignore[no-untyped-call]
        _mix_pair_kernel()[grid](
            *maps, logits.reshape(n, c).contiguous(), out, h * w, c,
            *(each.stride(0) for each in maps), *(each.stride(3) for each in maps), ROWS=ROWS, CHANNELS=CHANNELS,
        )  # fmt: skip
    return out


def _rows_of(x: Tensor) -> Tensor:
    """x if its pixels stand behind each other at one distance, each with its channels together; else a copy that is."""
    stride = x.stride()
    in_place = stride[1] == 1 and stride[2] == stride[3] * x.shape[3]
    return x if in_place else x.contiguous(memory_format=torch.channels_last)


@functools.cache
def _mix_pair_kernel() -> Any:
    import triton
    from triton import language as tl

    @triton.jit  # type: ignore[untyped-decorator]
    def kernel(  # type: ignore[no-untyped-def]
        first, second, logits, out, pixels, channels, first_image, second_image, first_pixel, second_pixel,
        ROWS: tl.constexpr, CHANNELS: tl.constexpr,
    ):  # fmt: skip
        # 64 bits: a batch of large maps has more than 2^31 values
        image = tl.program_id(2).to(tl.int64)
        row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
        channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
        inside = (row < pixels) & (channel < channels)
        logit = tl.load(logits + image * channels + channel, mask=channel < channels, other=0.0).to(tl.float32)
        weight = 1.0 / (1.0 + tl.exp(-logit))
        u = tl.load(first + image * first_image + row * first_pixel + channel, mask=inside, other=0.0).to(tl.float32)
        v = tl.load(second + image * second_image + row * second_pixel + channel, mask=inside, other=0.0).to(tl.float32)
        mixed = v + weight * (u - v)
        tl.store(out + (image * pixels + row) * channels + channel, mixed.to(out.dtype.element_ty), mask=inside)

    return kernel
