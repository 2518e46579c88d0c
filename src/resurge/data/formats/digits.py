"""The embedded images: scikit-learn's handwritten digits, in a split that never changes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from resurge.data.formats.cifar import array_split
from resurge.data.records import MemorySource
from resurge.data.splits import Split, stratified

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


def read_digits() -> MemorySource:
    """The digits with their labels."""
    train, held, test = (len(split) for split in digit_splits().values())
    how = (
        f"fixed stratified split of the 1,797 images into {train} for training, {held} for validation and {test} for "
        "testing; the same for every seed"
    )
    return MemorySource(
        format="digits", root=Path("digits"), classes=DIGITS, how=how, title="digits", splits=digit_splits(), side=16
    )
