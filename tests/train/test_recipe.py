"""Recipes: YAML both ways, overrides, and errors that name the field."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from resurge.arch.zoo import get_spec
from resurge.config import fields
from resurge.errors import UserError
from resurge.recipe import Recipe, list_recipes, load_recipe, recipe_text, without_effect
from resurge.train.train import build_model


def test_every_field_survives_yaml() -> None:
    recipe = Recipe().override(
        ["model=resnet50 stem=deep(32)", "lr=1e-3", "milestones=[3, 5]", "schedule=step", "class_weights=[1, 2.5]",
         "mean=[0.5]", "std=[0.25]", "crop_scale=null", "steps=7", "weights=hub:owner/name", "val=test"]
    )  # fmt: skip
    again = Recipe.from_yaml(recipe.to_yaml())
    assert again == recipe
    assert again.optimization.lr == 1e-3
    assert again.optimization.milestones == (3.0, 5.0)
    assert again.augmentation.crop_scale is None


@given(
    lr=st.floats(1e-8, 10), epochs=st.integers(1, 1000), hflip=st.floats(0, 1), seed=st.integers(0, 2**31 - 1),
    scale=st.none() | st.tuples(st.floats(0.01, 0.5), st.floats(0.5, 1)), compile=st.booleans(),
    model=st.sampled_from(["resnest50", "resnet50 stem=deep(32) shortcut=avg", "50"]),
)  # fmt: skip
@settings(max_examples=30)
def test_yaml_round_trip(**values: object) -> None:
    names = {"scale": "crop_scale"}
    recipe = Recipe().replace({names.get(name, name): value for name, value in values.items()})
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


def test_override_by_name_by_group_and_by_section() -> None:
    base = Recipe()
    assert base.override(["lr=0.5"]) == base.override(["optimization.lr=0.5"])
    assert base.override(["lr=0.5"]) == Recipe.from_yaml("optimization: {lr: 0.5}") == Recipe.from_yaml("lr: 0.5")
    assert base.override(["epochs=3"]).optimization.momentum == base.optimization.momentum
    assert base.override([]) == base


@pytest.mark.parametrize(
    "assignment, message",
    [
        ("lrr=1", r"no field 'lrr'.*Did you mean 'lr'"),
        ("optimization.lrr=1", "Did you mean"),
        ("images.lr=1", "no field 'images.lr'"),
        ("epoch=1", "Did you mean 'epochs'"),
        ("lr=-1", "lr must be above 0, not -1"),
        ("lr=fast", "lr takes a number, not 'fast'"),
        ("lr=.nan", "lr takes a number"),
        ("epochs=1.5", "epochs takes a whole number, not 1.5"),
        ("epochs=true", "epochs takes a whole number"),
        ("optimizer=adam", "Did you mean 'adamw'"),
        ("nesterov=1", "nesterov takes a true/false"),
        ("label_smoothing=1", "below 1"),
        ("optimization=3", "group of fields"),
        ("lr", "field=value"),
        ("crop_scale=[0.5]", "from and to"),
        ("crop_scale=[0.8, 0.2]", "from and to"),
        ("mean=[0.5]", "given together"),
        ("schedule=step", "milestones"),
        ("class_weights=balanced", "none, auto or a list"),
        ("model=null", "model takes a text"),
        ("precision=fp8", "fp32, bf16, fp16"),
    ],
)
def test_wrong_values_are_named(assignment: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Recipe().override([assignment])


def test_the_size_of_the_images_as_they_are() -> None:
    assert Recipe(task="segment").override(["size=0", "eval_size=0"]).images.size == 0
    for field in ("size", "eval_size"):
        with pytest.raises(UserError, match="is for detectors and segmenters"):
            Recipe().override([f"{field}=0"])


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "just text"])
def test_a_file_that_is_no_recipe(text: str) -> None:
    with pytest.raises(UserError, match="my file"):
        Recipe.from_yaml(text, where="my file")


def test_unknown_recipe_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'digits'"):
        load_recipe("digit")
    with pytest.raises(UserError, match="cannot read the recipe"):
        load_recipe(str(tmp_path / "none.yaml"))
    (tmp_path / "mine.yaml").write_text("lr: 0.25\n")
    assert load_recipe(str(tmp_path / "mine.yaml")).optimization.lr == 0.25


def test_expected_recipes_are_there() -> None:
    wanted = {"digits", "cifar", "cifar_fast", "finetune", "photos_small", "imagenet/resnet_100ep"}
    wanted |= {f"imagenet/resnest{depth}" for depth in (50, 101, 200, 269)}
    assert wanted <= set(list_recipes())


@pytest.mark.parametrize("name", list_recipes())
def test_named_recipes(name: str) -> None:
    recipe = load_recipe(name)
    comment = recipe_text(name)
    for label in ("Paper:", "Command:", "Hardware:", "Expected:", "Run here:"):
        assert label in comment
    assert f"--recipe {name}" in comment
    with torch.device("meta"):
        model = build_model(recipe.replace({"weights": None}), 3, 10)
    assert (
        type(model).__name__
        == {
            "classify": "ClassificationModel",
            "segment": "SegmentationModel",
            "detect": "DetectionModel",
            "instances": "DetectionModel",
        }[recipe.task]
    )
    assert model.spec == get_spec(recipe.model)


def test_imagenet_recipes_are_the_papers() -> None:
    for depth, size in ((50, 224), (101, 256), (200, 320), (269, 416)):
        recipe = load_recipe(f"imagenet/resnest{depth}")
        setting, rest = recipe.optimization, recipe.regularization
        assert recipe.images.size == size
        assert (setting.epochs, setting.warmup, setting.schedule) == (270, 5, "cosine")
        assert (setting.lr, setting.lr_per, setting.weight_decay) == (0.1, 256, 1e-4)
        assert (rest.label_smoothing, rest.mixup, rest.drop_block, rest.zero_init_last) == (0.1, 0.2, 0.1, True)
        assert rest.dropout == (0.2 if depth >= 200 else 0.0)
        assert recipe.augmentation.auto_augment == "autoaugment"
    assert load_recipe("imagenet/resnest50").images_per_step() == 8192
    assert load_recipe("imagenet/resnest50").peak_lr() == pytest.approx(3.2)


def test_fields_are_documented_and_have_one_name_each() -> None:
    listed = list(fields(Recipe))
    leaves = [path.rpartition(".")[2] for path, *_ in listed]
    assert len(leaves) == len(set(leaves))
    assert all(help for *_, help in listed)
    assert {path.partition(".")[0] for path, *_ in listed} == {field.name for field in dataclasses.fields(Recipe)}
    assert yaml.safe_load(Recipe().to_yaml()).keys() == {field.name for field in dataclasses.fields(Recipe)}


def test_recipes_are_listed_without_torch() -> None:
    code = "import resurge.recipe as r, sys; r.list_recipes(); r.load_recipe('digits'); "
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    "start, changes, expected",
    [
        ("segment", ["size=256"], {"crop_size": (240, 240), "scale_jitter": (0.5, 2.0)}),
        ("segment", ["images.size=128", "crop_size=[480,480]"], {"crop_size": (480, 480)}),
        ("segment", ["size=0"], {"crop_size": None}),
        ("digits_segment", ["size=48"], {"crop_size": (48, 48)}),
        ("cityscapes/fcn_resnest101", ["size=512"], {"crop_size": (256, 512), "max_size": 1024}),
        ("detect", ["size=320"], {"short_sides": (240, 256, 272, 288, 304, 320), "max_size": None}),
        ("digits_detect", ["size=128"], {"max_size": 128}),
        ("digits_detect", ["size=32", "max_size=64"], {"max_size": 64}),
        ("segment", ["lr=0.1"], {"crop_size": (480, 480)}),
    ],
)
def test_what_was_chosen_for_a_size_follows_it(start: str, changes: list[str], expected: dict[str, object]) -> None:
    recipe = load_recipe(start).override(changes)
    found = {**vars(recipe.augmentation), **vars(recipe.images)}
    assert {name: found[name] for name in expected} == expected
    again = Recipe.from_yaml(recipe.to_yaml())
    assert again == recipe


@pytest.mark.parametrize(
    "changes, field",
    [
        (["test_flip=true"], "testing.test_flip"),
        (["fpn_channels=64"], "detector.fpn_channels"),
        (["task=detect", "output_stride=16"], "segmenter.output_stride"),
        (["task=detect", "crop_pct=0.5"], "images.crop_pct"),
        (["task=detect", "cascade_ious=[0.5]"], "detector.cascade_ious"),
        (["task=detect", "head=retinanet", "box_size=5"], "detector.box_size"),
        (["task=segment", "head=fcn", "atrous_rates=[3]"], "segmenter.atrous_rates"),
        (["gamma=0.5"], "optimization.gamma"),
        (["optimizer=adamw", "nesterov=true"], "optimization.nesterov"),
        (["auto_magnitude=3"], "augmentation.auto_magnitude"),
        (["crop_scale=null", "crop_ratio=[1,1]"], "augmentation.crop_ratio"),
    ],
)
def test_fields_that_do_nothing_are_known(changes: list[str], field: str) -> None:
    assert list(without_effect(Recipe().override(changes))) == [field]


def test_fields_that_do_something_are_not_taken_for_idle() -> None:
    assert without_effect(Recipe()) == {}
    changes = ["task=segment", "head=deeplabv3", "atrous_rates=[3]", "test_flip=true", "schedule=step", "gamma=0.5"]
    assert without_effect(Recipe().override([*changes, "milestones=[3]"])) == {}
    assert without_effect(Recipe().override(["task=detect", "head=cascade_rcnn", "cascade_ious=[0.5]"])) == {}
