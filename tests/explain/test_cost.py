"""Costs against published figures, against the real network and against autograd on the CPU."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from resurge.arch.backbone import Backbone
from resurge.arch.surgery import set_drop_block, set_drop_path
from resurge.arch.zoo import get_spec
from resurge.errors import UserError
from resurge.explain.cost import cost
from resurge.tasks.classify.model import ClassificationModel

SMALL = "resnet18 planes=(8,16,24,32) stem=deep(4) block=bottleneck transform=avgdown(split(radix=2)) gate=se"


@pytest.mark.parametrize(
    "name, parameters, gmacs",
    [
        ("resnet50", 25_557_032, 4.09),  # arXiv:1512.03385 and torchvision's model card
        ("resnest50", 27_483_240, 5.37),  # counted by timm; arXiv:2004.08955, table 3, rounds to 5.39
        ("resnext50_32x4d", 25_028_904, 4.23),  # torchvision's model card
        ("resnet18", 11_689_512, 1.81),
    ],
)
def test_published_figures(name: str, parameters: int, gmacs: float) -> None:
    report = cost(name)
    assert report.total.parameters == parameters
    assert report.total.macs / 1e9 == pytest.approx(gmacs, abs=0.006)


def test_the_largest_network_at_its_size_takes_no_memory() -> None:
    report = cost("resnest269", (416, 416))
    assert report.total.parameters == 110_929_480
    assert report.total.macs / 1e9 == pytest.approx(77.35, abs=0.01)
    assert [row.shape for row in report.rows[1:5]] == [(256, 104, 104), (512, 52, 52), (1024, 26, 26), (2048, 13, 13)]


def test_rows_of_a_real_model_and_of_its_spec_agree() -> None:
    model = ClassificationModel(Backbone(get_spec(SMALL), in_channels=1), 7)
    report = cost(model, (48, 40))
    assert report == cost(SMALL, (48, 40), in_channels=1, num_classes=7)
    assert report.total.parameters == sum(p.numel() for p in model.parameters())
    assert [row.name for row in report.rows] == ["stem", "stage 1", "stage 2", "stage 3", "stage 4", "head"]
    assert report.rows[-1].shape == (7,)
    maps = model.backbone(torch.zeros(1, 1, 48, 40))
    assert [row.shape for row in report.rows[1:-1]] == [tuple(m.shape[1:]) for m in maps]


def test_a_backbone_alone_has_no_head() -> None:
    backbone = Backbone(get_spec(SMALL))
    report = cost(backbone, (32, 32))
    assert [row.name for row in report.rows] == ["stem", "stage 1", "stage 2", "stage 3", "stage 4"]
    assert report == cost(SMALL, (32, 32), num_classes=None)


def test_counting_leaves_the_model_as_it_was() -> None:
    model = ClassificationModel(Backbone(get_spec(SMALL)), 5)
    set_drop_path(model, 0.3)
    set_drop_block(model, 0.1)
    model.eval()
    model.backbone.stem.train()
    model.backbone.stages[0].requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [part.training for part in model.modules()]
    cost(model, (64, 64))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert modes == [part.training for part in model.modules()]
    assert not any(p.requires_grad for p in model.backbone.stages[0].parameters())
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in model.modules())


def test_activation_memory_is_what_autograd_keeps() -> None:
    """The same count on the CPU, where a storage has an address."""
    model = ClassificationModel(Backbone(get_spec(SMALL)), 5).train()
    parameters = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        address = tensor.untyped_storage().data_ptr()
        if tensor.dim() and tensor.shape[0] == 2 and address not in parameters:
            kept[address] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.rand(2, 3, 64, 64))
    expected = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / 2
    assert cost(model, (64, 64)).total.activation_bytes == pytest.approx(expected, rel=0.01)


def test_multiply_adds_of_plain_layers() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = Backbone(get_spec(SMALL))
            self.up = nn.ConvTranspose2d(self.backbone.channels[-1], 6, 2, stride=2)
            self.out = nn.Conv2d(6, 4, 3, padding=1, groups=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.up(self.backbone(x)[-1]))

    model = Model()
    channels = model.backbone.channels[-1]
    head = cost(model, (64, 64)).rows[-1]
    # 2x2 -> 4x4: each input pixel times each of 6 x 2 x 2 weights; then 3 x 3 x 3 for each of 4 outputs
    assert head.macs == 2 * 2 * channels * 6 * 4 + 4 * 4 * 4 * 27
    assert head.shape == (4, 4, 4)


def test_json() -> None:
    data = json.loads(json.dumps(cost(SMALL, (32, 32)).to_json()))
    assert data["input"] == [3, 32, 32]
    assert data["total"]["macs"] == sum(row["macs"] for row in data["rows"])
    assert set(data["rows"][0]) == {"name", "shape", "parameters", "macs", "activation_bytes", "receptive_field"}


def test_bad_input() -> None:
    with pytest.raises(UserError, match="backbone"):
        cost(nn.Linear(2, 2))
    with pytest.raises(UserError, match="positive"):
        cost("resnet18", (0, 4))
    with pytest.raises(UserError, match="resnet18"):
        cost("resnet81")
