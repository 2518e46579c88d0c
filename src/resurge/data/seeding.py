"""Randomness as a pure function of integers, so that resuming needs no random state."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_MASK = (1 << 64) - 1


def mix(*values: int) -> int:
    """A well scrambled integer in [0, 2**63) from `values`; the order and the number of them matter.

    Each value goes through the finaliser of splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
    generators", 2014), so neighbouring seeds, epochs and indices give unrelated streams. Negative values are taken
    modulo 2**64.
    """
    state = 0x9E3779B97F4A7C15 * (len(values) + 1) & _MASK
    for value in values:
        state = (state ^ (value & _MASK)) + 0x9E3779B97F4A7C15 & _MASK
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state >> 1


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run the block with torch's CPU generator seeded by `seed`, then put the generator back as it was.

    Touches the CPU generator only: `torch.manual_seed` would also reseed the accelerators, whose state a data loader
    in the main process must not disturb.
    """
    import torch

    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)


def generator(*values: int) -> torch.Generator:
    """A fresh CPU generator seeded with `mix(*values)`."""
    import torch

    return torch.Generator().manual_seed(mix(*values))
