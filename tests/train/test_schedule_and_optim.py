"""The learning rate over time, who learns how fast, and who is decayed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from resurge.arch.backbone import Backbone
from resurge.arch.zoo import get_spec
from resurge.errors import UserError
from resurge.recipe import Recipe
from resurge.tasks.classify.model import ClassificationModel
from resurge.train.optim import Ema, build_optimizer, depths, freeze, length, lr_factor, parameter_groups


def small() -> ClassificationModel:
    return ClassificationModel(Backbone(get_spec("resnet20_cifar depths=(1,2,1) planes=(8,8,8) stem=conv3x3(8)")), 3)


def factors(*assignments: str, batches: int) -> list[float]:
    setting = Recipe().override(assignments).optimization
    span = length(setting, batches)
    return [lr_factor(setting, span, step) for step in range(span.steps)]


def test_cosine_with_warmup() -> None:
    got = factors("epochs=10", "warmup=2", batches=10)
    assert len(got) == 100
    assert got[:20] == pytest.approx([(step + 1) / 21 for step in range(20)])
    assert got[20] == 1.0
    assert got[60] == pytest.approx(0.5)
    assert got[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 79 / 80)))
    assert got[20:] == sorted(got[20:], reverse=True)


def test_steps_by_epochs_and_by_steps() -> None:
    got = factors("epochs=6", "schedule=step", "milestones=[2,4]", "gamma=0.5", "warmup=0", batches=5)
    assert got == [1.0] * 10 + [0.5] * 10 + [0.25] * 10
    got = factors("steps=12", "schedule=step", "milestones=[4,8]", "warmup=0", batches=5)
    assert got == pytest.approx([1.0] * 4 + [0.1] * 4 + [0.01] * 4)
    assert factors("steps=3", "schedule=constant", "warmup=0", batches=5) == [1.0] * 3


def test_length_counts_the_rest_of_an_accumulation_as_a_step() -> None:
    setting = Recipe().override(["epochs=3", "accumulate=4"]).optimization
    span = length(setting, 10)
    assert (span.steps_per_epoch, span.steps, span.epochs) == (3, 9, 3)
    span = length(Recipe().override(["steps=7", "accumulate=4"]).optimization, 10)
    assert (span.steps, span.epochs) == (7, 3)


def test_the_learning_rate_follows_the_batch() -> None:
    recipe = Recipe().override(["lr=0.1", "lr_per=256", "batch_size=64", "accumulate=2", "devices=4", "nodes=2"])
    assert recipe.images_per_step() == 1024
    assert recipe.peak_lr() == pytest.approx(0.4)
    assert recipe.override(["lr_per=0"]).peak_lr() == 0.1


def test_norms_and_biases_are_not_decayed() -> None:
    model = small()
    groups = parameter_groups(model, weight_decay=0.5)
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in decayed) == (name.endswith("weight") and ".norm." not in name), name
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert {group["weight_decay"] for group in groups} == {0.0, 0.5}


def test_layer_decay_falls_from_the_head_to_the_stem() -> None:
    model = small()
    depth = depths(model)
    assert depth["backbone.stem.convs.0.conv.weight"] == 0
    assert depth["backbone.stages.0.0.expand.conv.weight"] == 1
    assert depth["backbone.stages.1.1.expand.conv.weight"] == 3
    assert depth["head.fc.weight"] == 5
    recipe = Recipe().override(["layer_decay=0.5", "lr=1", "lr_per=0", "optimizer=adamw"])
    scale = {id(p): group["lr_scale"] for group in build_optimizer(model, recipe).param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert scale[id(parameter)] == 0.5 ** (5 - depth[name])


def test_freezing_stem_and_stages() -> None:
    model = small()
    frozen = freeze(model, 2)
    assert frozen == [model.backbone.stem, model.backbone.stages[0]]
    trained = {id(p) for group in parameter_groups(model, 0.1) for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in trained) == (not name.startswith(("backbone.stem", "backbone.stages.0"))), name
    with pytest.raises(UserError, match="4 parts"):
        freeze(model, 5)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(UserError, match="frozen"):
        build_optimizer(model, Recipe())


def test_moving_average_is_the_formula() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    ema = Ema(model, 0.9)
    wanted = model[0].weight.detach().clone()
    for step in range(30):
        with torch.no_grad():
            model[0].weight.add_(torch.randn(2, 2))
            model(torch.randn(8, 2))
        ema.update(model)
        decay = min(0.9, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * model[0].weight.detach()
    torch.testing.assert_close(ema.model[0].weight, wanted)
    assert ema.model[1].num_batches_tracked == 30
    assert not ema.model.training
    assert not torch.equal(model[0].weight, ema.model[0].weight)
    other = Ema(model, 0.9)
    other.load_state_dict(ema.state_dict())
    assert other.steps == 30
    assert torch.equal(other.model[0].weight, ema.model[0].weight)
