"""The fields of a recipe, and the named recipes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from frozen.commands import options_of, output
from frozen.goldens import Goldens

READ = (
    "digits", "cifar", "finetune", "photos_small", "imagenet/resnest50", "small/camvid", "small/nuclei",
    "coco/cascade_rcnn_resnest50", "coco/mask_rcnn_resnet50", "ade20k/deeplabv3_resnest101",
)  # fmt: skip
TASKS = ("classify", "segment", "detect", "instances")


@cache
def printed(*words: str) -> dict[str, Any]:
    found = yaml.load(output("train", *words, "--print-recipe"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    assert isinstance(found, dict)
    return found


def flat(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with dotted names."""
    found: dict[str, Any] = {}
    for name, value in recipe.items():
        found |= {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
    return found


def test_fields(goldens: Goldens) -> None:
    """Dotted name -> [type as --help says it, default as --help says it, default as it is written]."""
    options, fields = options_of(output("train", "--help")), flat(printed())
    table = {}
    for name, default in fields.items():
        metavar, _, told = options["--" + name.rpartition(".")[2].replace("_", "-")].partition(" (")
        table[name] = [metavar, told.removesuffix(")"), default]
    goldens.same("recipes/fields", table)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("data", ["digits", "photos"])
def test_what_a_task_starts_from(task: str, data: str, goldens: Goldens) -> None:
    defaults, found = flat(printed()), flat(printed("--task", task, "--data", data))
    changed = {name: value for name, value in found.items() if value != defaults[name]}
    goldens.same(f"recipes/start_{task}_{data}", changed)


def test_named_recipes(goldens: Goldens) -> None:
    """What each of READ says beside the defaults; the help text of `train` lists all."""
    listed = output("train", "--help").split("named recipes: ")[1].replace("\n", " ").split(", ")
    assert set(READ) <= {name.strip() for name in listed}
    defaults, table = flat(printed()), {}
    for name in READ:
        table[name] = {key: value for key, value in flat(printed("--recipe", name)).items() if value != defaults[key]}
    goldens.same("recipes/named", table)


def test_a_printed_recipe_is_read_back(tmp_path: Path) -> None:
    text = output("train", "--recipe", "digits_instances", "--lr", "0.123", "--print-recipe")
    (tmp_path / "mine.yaml").write_text(text)
    assert output("train", "--recipe", str(tmp_path / "mine.yaml"), "--print-recipe") == text
