"""What the tasks do differently when they are trained; everything else of a training is the same for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resurge.data.bundle import DataBundle
from resurge.tasks.classify.objective import Classification
from resurge.tasks.objective import Objective
from resurge.tasks.scene_objectives import Detection, Instances, Segmentation

if TYPE_CHECKING:
    from resurge.recipe import Recipe

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
