"""What the tasks do differently when they are trained; everything else of a training is the same for all."""

from __future__ import annotations

from resurge.data.bundle import DataBundle
from resurge.training.objectives.classify import Classification
from resurge.training.objectives.contract import Objective
from resurge.training.objectives.scenes import Detection, Instances, Segmentation
from resurge.training.recipe import Recipe

__all__ = ["OBJECTIVES", "Objective", "objective_of"]

OBJECTIVES: dict[str, type[Objective]] = {
    "classify": Classification,
    "segment": Segmentation,
    "detect": Detection,
    "instances": Instances,
}


def objective_of(recipe: Recipe, bundle: DataBundle) -> Objective:
    """The objective of a recipe on its data.

    Raises:
        UserError: a field of the recipe does not fit the data.
    """
    return OBJECTIVES[recipe.task](recipe, bundle)
