"""The GPU kernels, run by Triton's interpreter on a processor, against the equation."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from resurge.optimize import kernels
from resurge.optimize.kernels import launch_mix_pair, mix_pair

interpreted = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or not os.environ.get("TRITON_INTERPRET"),
    reason="needs Triton and TRITON_INTERPRET=1; test_in_the_interpreter sets it",
)


def maps_of(channels, height, width, dtype=torch.float32):
    seeded = torch.Generator().manual_seed(channels)
    wide = torch.randn(2, 2 * channels, height, width, generator=seeded).to(dtype)
    logits = 2 * torch.randn(2, channels, 1, 1, generator=seeded).to(dtype)
    return wide.contiguous(memory_format=torch.channels_last), logits


def softmax_of_two(first, second, logits):
    first, second, logits = first.double(), second.double(), logits.double()
    weights = torch.softmax(torch.stack([logits, torch.zeros_like(logits)]), dim=0)
    return weights[0] * first + weights[1] * second


SHAPES = [(3, 5, 7), (64, 9, 9), (70, 1, 33), (130, 4, 8)]


@pytest.mark.parametrize("shape", SHAPES)
def test_in_torch(shape):
    wide, logits = maps_of(*shape)
    first, second = wide.chunk(2, dim=1)
    found = mix_pair(first, second, logits)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), softmax_of_two(first, second, logits), rtol=1e-5, atol=1e-5)


@interpreted
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", ["slices", "apart", "contiguous"])
def test_the_kernel(shape, layout):
    wide, logits = maps_of(*shape)
    first, second = wide.chunk(2, dim=1)
    if layout != "slices":
        kind = torch.channels_last if layout == "apart" else torch.contiguous_format
        first, second = (each.clone(memory_format=kind) for each in (first, second))
    found = launch_mix_pair(first, second, logits)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), softmax_of_two(first, second, logits), rtol=1e-5, atol=1e-5)
    wrong = launch_mix_pair(second, first, logits).double()
    assert (wrong - softmax_of_two(first, second, logits)).abs().max() > 0.1


@interpreted
def test_the_kernel_in_half_the_bits():
    wide, logits = maps_of(20, 6, 6, torch.bfloat16)
    first, second = wide.chunk(2, dim=1)
    found = launch_mix_pair(first, second, logits)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), softmax_of_two(first, second, logits), rtol=2**-7, atol=2**-7)


@interpreted
def test_the_kernel_on_nothing():
    empty = torch.zeros(0, 4, 3, 3)
    assert launch_mix_pair(empty, empty, torch.zeros(0, 4, 1, 1)).shape == (0, 4, 3, 3)


def test_in_the_interpreter():
    """Triton asks for its interpreter when it is imported, so the tests above run in a process of their own."""
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET"):
        pytest.skip("this is that process")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", __file__, "-k", "the_kernel"]
    ended = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{3 * len(SHAPES) + 2} passed" in ended.stdout, ended.stdout


@pytest.mark.gpu
def test_on_a_gpu():
    wide, logits = maps_of(70, 9, 9, torch.bfloat16)
    first, second = wide.cuda().chunk(2, dim=1)
    found = mix_pair(first, second, logits.cuda())
    torch.testing.assert_close(
        found.double().cpu(), softmax_of_two(*wide.chunk(2, dim=1), logits), rtol=2**-7, atol=2**-7
    )


def test_compiled_it_has_a_shape_and_a_layout():
    torch.library.opcheck(kernels.mix_pair, (*maps_of(6, 4, 4)[0].chunk(2, dim=1), maps_of(6, 4, 4)[1]))
