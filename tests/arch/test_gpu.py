"""The family on a GPU: mixed precision and exact rewriting; skipped where there is none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import resurge
from resurge.arch.layers import fuse

FAMILY = (
    "resnet18",
    "resnet50d",
    "resnext50_32x4d",
    "seresnext50_32x4d",
    "skresnext50_32x4d",
    "res2net50_26w_4s",
    "resnest50",
    "resnest50_fast_4s2x40d",
)


@pytest.mark.parametrize("radix", [2, 3])
def test_weights_in_single_precision_leave_half_precision_maps_as_they_are(radix: int) -> None:
    """Autocast on a GPU computes the softmax over the branches in float32."""
    maps = [torch.randn(2, 4, 3, 3) for _ in range(radix)]
    weights = torch.randn(2, radix, 4, 1, 1).softmax(1)
    found = fuse([u.bfloat16() for u in maps], weights)
    assert found.dtype == torch.bfloat16
    expected = sum(weights[:, r] * maps[r] for r in range(radix))
    torch.testing.assert_close(found.float(), expected, rtol=2**-6, atol=2**-6)


def _loss(net: nn.Module, images: Tensor, labels: Tensor, kind: torch.dtype | None) -> float:
    net.zero_grad(set_to_none=True)
    with torch.autocast("cuda", kind, enabled=kind is not None):
        loss = F.cross_entropy(net(images).float(), labels)
    loss.backward()
    assert all(bool(value.grad.isfinite().all()) for value in net.parameters() if value.grad is not None)
    return float(loss)


@pytest.mark.gpu
@pytest.mark.parametrize("name", FAMILY)
def test_mixed_precision_trains_as_single_precision(name: str) -> None:
    net = resurge.create_model(name, num_classes=10).cuda().to(memory_format=torch.channels_last)
    images = torch.randn(8, 3, 96, 96, device="cuda").to(memory_format=torch.channels_last)
    labels = torch.arange(8, device="cuda")
    whole = _loss(net, images, labels, None)
    for kind in (torch.bfloat16, torch.float16):
        assert _loss(net, images, labels, kind) == pytest.approx(whole, rel=0.05)


@pytest.mark.gpu
@pytest.mark.parametrize("name", FAMILY)
def test_rewriting_is_exact_on_a_gpu(name: str) -> None:
    net = resurge.create_model(name, num_classes=10).cuda()
    images = torch.randn(8, 3, 96, 96, device="cuda")
    with torch.no_grad():
        net(images)  # calibrates the running statistics
    net.eval().double()
    done = resurge.optimize(net, images.double(), rounds=1)
    assert done.certificate.relative < 1e-9
