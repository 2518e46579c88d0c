"""A training small enough for tests: real digits at 8x8, one block a stage."""

from __future__ import annotations

import pytest
import torch

from resurge.recipe import Recipe

TINY = [
    "data=digits",
    "model=resnet20_cifar depths=(1,1,1) planes=(8,16,16) stem=conv3x3(8) transform=split(radix=2) shortcut=avg",
    "size=8",
    "crop_scale=null",
    "hflip=0",
    "affine_translate=0.1",
    "batch_size=64",
    "epochs=2",
    "warmup=0.5",
    "lr=0.1",
    "lr_per=0",
    "threads=1",
    "workers=0",
    "device=cpu",
]


@pytest.fixture
def tiny() -> Recipe:
    """Nineteen batches an epoch, two epochs."""
    before = torch.get_num_threads()
    yield Recipe().override(TINY)
    torch.set_num_threads(before)
