"""Everything between a decoded picture and the network's input, under the name other parts import it by.

`preprocessing` is the one definition for evaluation, `augment` what training does at random.
"""

from resurge.data.augment import AUTO, Augment, TrainTransform, train_transform
from resurge.data.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preprocessing,
    channel_statistics,
    default_preprocessing,
)

__all__ = [
    "AUTO", "IMAGENET_MEAN", "IMAGENET_STD", "Augment", "Preprocessing", "TrainTransform", "channel_statistics",
    "default_preprocessing", "train_transform",
]  # fmt: skip
