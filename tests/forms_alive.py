"""Layers of networks that are alive, and how a form of one is compared with it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache

import torch
from alive import assert_alive, enliven, peak_difference, structured_images
from torch import Tensor, nn

from resurge.arch.backbone import Backbone
from resurge.arch.blocks import Residual
from resurge.arch.zoo import get_spec

TOLERANCE = 1e-5  # of the peak of the output
REJECTED = 1e-2  # what a wrong variant has to be off by
IMAGES = 6

SPLIT = [
    "resnest50 depths=(2,1) planes=(32,64)",
    "resnest50_fast_1s4x24d depths=(1,1) planes=(64,128)",
    "resnest50_fast_4s2x40d depths=(2,1) planes=(64,128)",
    "resnet50 depths=(1,1) planes=(32,64) groups=3 base_width=64 transform=split(radix=2) gate=se",
]


@lru_cache(maxsize=4)
@torch.no_grad()
def _alive(text: str, output_stride: int, kind: type[nn.Module]) -> list[tuple[nn.Module, Tensor]]:
    backbone = Backbone(get_spec(text), output_stride=output_stride)
    images = structured_images(IMAGES, size=32 if backbone.spec.stem.stride == 1 else 64)
    enliven(backbone, images)
    found: list[tuple[nn.Module, Tensor]] = []
    handles = [
        module.register_forward_pre_hook(lambda module, args: found.append((module, args[0].clone())))
        for module in backbone.modules()
        if isinstance(module, kind)
    ]
    backbone(images)
    for handle in handles:
        handle.remove()
    assert found
    return found


def alive(text: str, kind: type[nn.Module] = Residual, output_stride: int = 32) -> list[tuple[nn.Module, Tensor]]:
    """Every module of a kind in a calibrated network, copied, with what enters it when the network sees images."""
    return [(copy.deepcopy(module), x.clone()) for module, x in _alive(text, output_stride, kind)]


def assert_equal(form: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        expected = module(x.clone())
        assert_alive(expected)
        assert peak_difference(form(x.clone()), expected) < TOLERANCE


def assert_rejected(wrong: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        assert peak_difference(wrong(x.clone()), module(x.clone())) > REJECTED


def assert_same_state(a: nn.Module, b: nn.Module) -> None:
    ours, theirs = a.state_dict(), b.state_dict()
    assert list(ours) == list(theirs)
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key


def assert_own_weights(form: nn.Module, module: nn.Module) -> None:
    ours, theirs = ({tensor.data_ptr() for tensor in m.state_dict().values()} for m in (form, module))
    assert not ours & theirs, "a form shares memory with what it was made from"
    assert not any(part.training for part in form.modules() if not isinstance(part, nn.Identity))
