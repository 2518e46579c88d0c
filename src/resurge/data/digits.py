"""The embedded images: scikit-learn's handwritten digits, in a split that never changes."""

from __future__ import annotations

import os
from functools import cache

import numpy as np

from resurge.data.bundle import DataBundle, Split, stratified
from resurge.data.cifar import array_split
from resurge.errors import UserError

DIGITS = tuple(str(digit) for digit in range(10))


@cache
def digit_splits() -> dict[str, Split]:
    """train, val and test of scikit-learn's copy of the test set of the UCI "Optical Recognition of Handwritten
    Digits" (E. Alpaydin, C. Kaynak, 1998): 8x8 pixels with values 0 to 16, here times 255/16."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = np.rint(data.images * (255 / 16)).astype(np.uint8)
    everything = array_split("digit", pixels, data.target)
    rest, held = stratified(everything.labels, 0.3, 20)
    val_at, test_at = stratified([everything.labels[i] for i in held], 2 / 3, 21)
    val, test = everything.select([held[i] for i in val_at]), everything.select([held[i] for i in test_at])
    return {"train": everything.select(rest), "val": val, "test": test}


def open_digits(val: str | os.PathLike[str] | None, seed: int) -> DataBundle[Split]:
    """The digits as a classification data set; the split is the same whatever the seed.

    Raises:
        UserError: `val` is neither None nor "test".
    """
    train, held, test = digit_splits().values()
    how = (
        f"fixed stratified split of the 1,797 images into {len(train)} for training, {len(held)} for validation "
        f"and {len(test)} for testing; the same for every seed"
    )
    if on_test(val):
        return DataBundle("digits", DIGITS, train, test, None, 1, 16, f"{how}; validating on the test split", seed)
    return DataBundle("digits", DIGITS, train, held, test, 1, 16, how, seed)


def on_test(val: str | os.PathLike[str] | None) -> bool:
    """Whether the test split is to be validated on.

    Raises:
        UserError: `val` is neither None nor "test".
    """
    if val is not None and str(val) != "test":
        raise UserError(f"'digits' has its own split; --val {val} cannot be used with it. Leave it out.")
    return val is not None
