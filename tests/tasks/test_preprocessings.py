"""What a training takes from the recipe and what from the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from resurge.data.preprocessing import ScenePreprocessing
from resurge.data.sources import open_data
from resurge.data.splits import ArrayImages, DataBundle, Split
from resurge.recipe import Images, Recipe
from resurge.tasks.classify.loss import preprocessings
from resurge.tasks.objective import scene_preprocessings


def test_defaults_for_the_digits() -> None:
    bundle = open_data("digits")
    training, pre = preprocessings(Recipe(), bundle)
    assert training == pre
    assert (pre.size, pre.channels, pre.squash, pre.crop_pct) == (16, 1, True, 1.0)
    values = torch.stack([pre(bundle.train.read(i)) for i in range(300)])
    assert abs(values.mean()) < 0.1
    assert 0.7 < values.std() < 1.1


def test_fields_of_the_recipe_replace_the_defaults() -> None:
    images = Images(size=32, eval_size=48, crop_pct=0.5, interpolation="bicubic", mean=(0.1,) * 3, std=(0.2,) * 3)
    training, evaluation = preprocessings(Recipe(images=images), open_data("digits"))
    assert (training.size, evaluation.size) == (32, 48)
    for pre in (training, evaluation):
        assert (pre.crop_pct, pre.squash, pre.interpolation) == (0.5, False, "bicubic")
        assert (pre.channels, pre.mean, pre.std) == (3, (0.1,) * 3, (0.2,) * 3)


def scene_bundle(channels: int) -> DataBundle[Split]:
    pixels = np.full((4, 20, 30) if channels == 1 else (4, 20, 30, 3), 51, np.uint8)
    split = Split(tuple("abcd"), ArrayImages(pixels), (0,) * 4)
    return DataBundle("b", ("x",), split, split, None, channels, 480, "", 0)


@pytest.mark.parametrize(
    "fields, training, evaluation",
    [
        ({}, (480, 800), (480, 800)),
        ({"size": 800}, (800, 1333), (800, 1333)),
        ({"size": 0, "max_size": 500}, (None, 500), (None, 500)),
        ({"size": 800, "max_size": 600}, (600, 600), (600, 600)),
        ({"size": 300, "eval_size": 600}, (300, 500), (600, 1000)),
        ({"eval_size": 0}, (480, 800), (None, 800)),
    ],
)
def test_sizes_of_scenes(
    fields: dict[str, int], training: tuple[int | None, int], evaluation: tuple[int | None, int]
) -> None:
    recipe = Recipe(task="detect", images=Images(**fields))
    found = scene_preprocessings(recipe, scene_bundle(3))
    assert found == (ScenePreprocessing(*training), ScenePreprocessing(*evaluation))


def test_values_of_grey_scenes_are_measured_unless_the_recipe_has_them() -> None:
    grey, _ = scene_preprocessings(Recipe(task="detect"), scene_bundle(1))
    assert (grey.channels, grey.mean, grey.std) == (1, (0.2,), (0.01,))
    given = Recipe(task="detect", images=Images(mean=(0.5,), std=(0.5,)))
    assert scene_preprocessings(given, scene_bundle(3))[0].channels == 1
