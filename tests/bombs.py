"""Small texts that become large."""

from itertools import pairwise

ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{after}: &{after} [{','.join(9 * [f'*{before}'])}]\n" for before, after in pairwise("abcdefghi")
)
"""YAML in which `*i` stands for 9 ** 9 values."""
