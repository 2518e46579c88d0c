"""Randomness, and choices, as pure functions of integers, so that resuming needs no random state. No torch here."""

from __future__ import annotations

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


def spread(length: int, count: int) -> list[int]:
    """`count` of the indices below `length`, evenly spread, first and last among them; all where there are no more."""
    few = min(length, count)
    return [round(i * (length - 1) / max(few - 1, 1)) for i in range(few)]
