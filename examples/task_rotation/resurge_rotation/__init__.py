"""Rotation prediction (arXiv:1803.07728): learn from images without labels by how far they were turned.

The backbone is what it is for: `resurge train --weights RUN` goes on from it with labels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from resurge.tasks.classify.task import Classify

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from resurge.data.loading import SomeSplit
    from resurge.data.splits import DataBundle
    from resurge.recipe import Recipe
    from resurge.tasks.evaluation import PreparedImages
    from resurge.tasks.objective import Objective


class Rotation(Classify):
    """A classifier of quarter turns. In evaluation image i is turned by i quarters, so that scores repeat."""

    name = "rotation"
    noun = "rotation predictor"
    classes = ("0 degrees", "90 degrees", "180 degrees", "270 degrees")
    usual_classes = 4
    in_catalog = False
    # the labels of the data mean nothing here
    idle = (*Classify.idle, "optimization.balanced_sampling", "regularization.class_weights")

    def label(self, split: SomeSplit, index: int) -> int:
        return index % 4

    def prepared(self, split: SomeSplit, preprocessing: Callable[[Image.Image], Tensor]) -> PreparedImages:
        from resurge_rotation.training import TurnedImages

        return TurnedImages(split, preprocessing, self.about)

    def objective(self, recipe: Recipe, bundle: DataBundle) -> Objective:
        from resurge_rotation.training import RotationTraining

        return RotationTraining(self, recipe, bundle)
