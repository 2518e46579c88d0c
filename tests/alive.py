"""Random networks that are alive: their output depends on their input.

With the statistics a BatchNorm is born with, a deep random network maps every input to nearly the same output, and
two different networks then agree. These helpers avoid that, and `assert_alive` proves it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def structured_images(n: int, channels: int = 3, size: int | tuple[int, int] = 64, seed: int = 0) -> Tensor:
    """(n, channels, H, W) images with edges, gradients, blobs and some noise, each different from the others."""
    height, width = (size, size) if isinstance(size, int) else size
    generator = torch.Generator().manual_seed(seed)
    y = torch.linspace(-1, 1, height)[:, None]
    x = torch.linspace(-1, 1, width)[None, :]
    images = []
    for _ in range(n):
        planes = []
        for _ in range(channels):
            a, b, c, d, e = torch.randn(5, generator=generator).tolist()
            ramp = a * x + b * y
            wave = torch.sin(6 * c * x + 5 * d * y + e)
            disc = ((x - c / 2) ** 2 + (y - d / 2) ** 2 < 0.2 + 0.1 * e**2).float() * 2
            planes.append(ramp + wave + disc)
        images.append(torch.stack(planes))
    batch = torch.stack(images)
    return batch + 0.2 * torch.randn(batch.shape, generator=generator)


@torch.no_grad()
def enliven(model: nn.Module, images: Tensor, seed: int = 0, passes: int = 2) -> nn.Module:
    """Random scales and shifts for the norms and biases, then running statistics measured on `images`."""
    generator = torch.Generator().manual_seed(seed)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.weight.copy_(0.7 + 0.6 * torch.rand(norm.weight.shape, generator=generator))
        norm.bias.copy_(0.3 * torch.randn(norm.bias.shape, generator=generator))
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the passes
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            layer.bias.copy_(0.3 * torch.randn(layer.bias.shape, generator=generator))
    model.train()
    for _ in range(passes):
        model(images)
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


def peak_difference(a: Tensor, b: Tensor) -> float:
    """The largest difference, as a share of the largest value of `b`."""
    return float((a - b).abs().max() / b.abs().max())


def assert_alive(outputs: Tensor, threshold: float = 1e-2) -> None:
    """The samples of a batch give different outputs, by more than `threshold` of the peak."""
    spread = F.mse_loss(outputs, outputs.mean(0, keepdim=True).expand_as(outputs)).sqrt()
    assert float(spread / outputs.abs().max()) > threshold, "the output hardly depends on the input"
