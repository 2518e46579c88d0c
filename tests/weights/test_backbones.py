"""What self-supervised training and training frameworks leave starts a classifier, whatever stands around it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor
from weights.test_checkpoint import same, saved, small

from resurge.errors import UserError
from resurge.recipe import Recipe
from resurge.tasks.classify.model import ClassificationModel
from resurge.train.train import build_model
from resurge.weights.checkpoint import export_weights, load_weights

State = dict[str, Tensor]
FLAG = {"train_acc.flag": torch.zeros(1), "criterion.weight": torch.ones(5)}
MLP = {"fc.0.weight": torch.ones(16, 16), "fc.2.weight": torch.ones(4, 16)}


@pytest.fixture(scope="module")
def trained() -> ClassificationModel:
    torch.manual_seed(1)
    return small()


def under(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {prefix + key: value for key, value in state.items()}


def others(state: State) -> State:
    return {key: torch.zeros_like(value) for key, value in state.items()}


def headless(state: State) -> State:
    return {key: value for key, value in state.items() if not key.startswith(("fc.", "head."))}


FILES = {
    "MoCo": lambda s: {
        "state_dict": under("module.encoder_k.", others(s) | MLP)
        | under("module.encoder_q.", s | MLP)
        | {"module.queue": torch.ones(3, 7), "module.queue_ptr": torch.zeros(1)},
        "optimizer": {"state": {}},
    },
    "MoCo v3": lambda s: {
        "state_dict": under("module.momentum_encoder.", others(s)) | under("module.base_encoder.", s | MLP)
    },
    "DINO": lambda s: {
        "student": under("module.backbone.", others(s)),
        "teacher": under("backbone.", s) | {"head.mlp.0.weight": torch.ones(3, 3)},
        "epoch": 3,
    },
    "DINO in one": lambda s: under("student.backbone.", others(s)) | under("teacher.backbone.", s),
    "BYOL": lambda s: under("target_encoder.net.", others(s)) | under("online_encoder.net.", s),
    "SimSiam": lambda s: {"state_dict": under("module.encoder.", s | MLP) | under("module.predictor.", MLP)},
    "SwAV": lambda s: under("module.", s | {"projection_head.0.weight": torch.ones(3, 3)}),
    "solo-learn": lambda s: {"state_dict": under("momentum_backbone.", others(s)) | under("backbone.", s)},
    "encoder": lambda s: under("encoder.", s),
    "ema": lambda s: {"ema": s, "model": others(s), "best": torch.zeros(1)},
    "averages in one": lambda s: under("model.", others(s)) | under("model_ema.module.", s),
    "the backbone alone": lambda s: s,
    "containers": lambda s: {"model": {"state_dict": under("module.", s)}, "loss": torch.zeros(1)},
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("layout", ["timm", "resurge"])
def test_a_backbone_starts_a_classifier(name: str, layout: str, trained: ClassificationModel, tmp_path: Path) -> None:
    state = {
        key: value for key, value in export_weights(trained, layout).items() if not key.startswith(("fc.", "head."))
    }
    path = saved(FILES[name](state), tmp_path / "net.pth")
    model = small()
    before = model.head.fc.weight.clone()
    report = load_weights(model, path, headless=True)
    assert same(model.backbone, trained.backbone)
    assert torch.equal(model.head.fc.weight, before)
    assert report.missing == ("head.fc.weight", "head.fc.bias")
    assert "the last layer starts untrained" in str(report)
    with pytest.raises(UserError, match=r"head\.fc\.weight"):  # it is no classifier yet
        load_weights(small(), path)


def test_what_was_stripped_and_left_out_is_said(trained: ClassificationModel) -> None:
    report = str(load_weights(small(), FILES["MoCo"](headless(export_weights(trained, "timm"))), headless=True))
    assert "taken from 'state_dict'" in report
    assert "'module.' was stripped from the names" in report
    assert "those that begin with 'encoder_q.' were taken, and that was stripped" in report
    assert "not used: fc.0.weight, fc.2.weight, encoder_k.conv1.weight" in report


def test_a_training_starts_from_it(trained: ClassificationModel, tmp_path: Path) -> None:
    path = saved(FILES["MoCo"](headless(export_weights(trained, "timm"))), tmp_path / "moco.pth")
    spec = "resnet18 depths=(1,1,1,1) planes=(8,8,16,16)"
    said: list[str] = []
    model = build_model(Recipe(model=spec, weights=str(path)), 3, 7, say=said.append)
    assert same(model.backbone, trained.backbone)
    assert "encoder_q" in "".join(said)


def test_a_flag_more_in_a_file_of_a_whole_classifier(trained: ClassificationModel) -> None:
    model = small()
    state = under("model.", export_weights(trained, "timm"))
    report = load_weights(model, {"state_dict": state | FLAG, "pytorch-lightning_version": "2.5"})
    assert same(model, trained)
    assert report.unexpected == tuple(FLAG)
    assert "'model.' was stripped from the names" in str(report)


@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_nearly_nothing_that_fits_is_refused(prefix: str, trained: ClassificationModel) -> None:
    few = dict([*export_weights(trained, "timm").items()][:3])
    with pytest.raises(UserError, match="missing: backbone"):
        load_weights(small(), under(prefix, few) | MLP, headless=True)
