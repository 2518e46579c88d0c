"""Segmentation: its losses against naive loops, any backbone and norm, and what data can do to it."""

from __future__ import annotations

import math

import pytest
import torch
from alive import enliven, structured_images
from segmenters_alive import REJECTED, SMALL, auxiliary, small
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from resurge.api import create_model
from resurge.arch.backbone import Backbone
from resurge.arch.layers import BatchNorm2d
from resurge.arch.surgery import SyncBatchNorm, convert_norm
from resurge.arch.zoo import get_spec
from resurge.data.splits import IGNORE
from resurge.errors import UserError
from resurge.tasks.segment.heads.deeplabv3 import atrous_rates
from resurge.tasks.segment.model import SegmentationModel, pixel_cross_entropy
from resurge.tasks.table import TASKS

ALL_HEADS = TASKS["segment"].heads


# ----------------------------------------------------------------------------------------------------------- losses


def naive_loss(
    logits: Tensor, targets: Tensor, weights: list[float], *, all_pixels: bool = False, plain_mean: bool = False
) -> float:
    total, counted = 0.0, 0.0
    for n in range(targets.shape[0]):
        for i in range(targets.shape[1]):
            for j in range(targets.shape[2]):
                t = int(targets[n, i, j])
                if t == IGNORE:
                    counted += 1.0 if all_pixels else 0.0
                    continue
                z = logits[n, :, i, j].tolist()
                peak = max(z)
                total += weights[t] * (peak + math.log(sum(math.exp(v - peak) for v in z)) - z[t])
                counted += 1.0 if plain_mean else weights[t]
    return total / counted


def labels(n: int, size: tuple[int, int], classes: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, classes, (n, *size), generator=generator)
    targets[torch.rand(targets.shape, generator=generator) < 0.3] = IGNORE
    return targets


@pytest.mark.parametrize("weights", [None, [0.2, 1.0, 3.0, 0.0]])
def test_the_loss_is_the_mean_over_pixels_that_count(weights: list[float] | None) -> None:
    torch.manual_seed(0)
    logits, targets = 2 * torch.randn(2, 4, 6, 5, dtype=torch.float64), labels(2, (6, 5))
    tensor = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    found = float(pixel_cross_entropy(logits, targets, tensor))
    each = weights or [1.0] * 4
    assert found == pytest.approx(naive_loss(logits, targets, each), rel=1e-12)
    assert abs(naive_loss(logits, targets, each, all_pixels=True) / found - 1) > REJECTED
    if weights is not None:
        assert abs(naive_loss(logits, targets, each, plain_mean=True) / found - 1) > REJECTED


@pytest.mark.parametrize("head", ALL_HEADS)
def test_losses_of_a_model_are_those_of_its_logits(head: str) -> None:
    images, targets = structured_images(2, size=(24, 20)), labels(2, (24, 20))
    model = enliven(small(head, aux_weight=0.4), images).double()
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0], dtype=torch.float64)
    with torch.no_grad():
        found = model.losses(images.double(), targets, weights)
        main, aux = model(images.double()), auxiliary(model, images.double())
    assert list(found) == ["loss_main", "loss_aux"]
    assert float(found["loss_main"]) == pytest.approx(naive_loss(main, targets, weights.tolist()), rel=1e-9)
    assert float(found["loss_aux"]) == pytest.approx(0.4 * naive_loss(aux, targets, weights.tolist()), rel=1e-9)


def test_without_auxiliary_loss_there_is_no_auxiliary_head() -> None:
    model = small(aux_weight=0.0)
    assert model.auxiliary is None
    assert list(model.losses(torch.randn(2, 3, 16, 16), labels(2, (16, 16)))) == ["loss_main"]


@pytest.mark.parametrize("head", ALL_HEADS)
def test_nothing_but_ignored_pixels_is_a_loss_of_zero(head: str) -> None:
    model = small(head)
    terms = model.losses(torch.randn(2, 3, 16, 16), torch.full((2, 16, 16), IGNORE))
    assert [float(term.detach()) for term in terms.values()] == [0.0, 0.0]
    sum(terms.values()).backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_labels_that_are_no_class_are_named() -> None:
    model, images = small(), torch.randn(1, 3, 8, 8)
    for value in (4, 254, -1):
        targets = torch.zeros(1, 8, 8, dtype=torch.long)
        targets[0, 3, 3] = value
        with pytest.raises(UserError, match=rf"hold {value}, but the classes are 0 to 3, and 255 is ignored"):
            model.losses(images, targets)
    with pytest.raises(UserError, match=r"hold 4, 5, 6, 7, 8, \.\.\., but"):
        model.losses(images, torch.arange(64).reshape(1, 8, 8))
    for targets in (torch.zeros(1, 8, 7, dtype=torch.long), torch.zeros(1, 8, 8)):
        with pytest.raises(UserError, match="one as large as each image"):
            model.losses(images, targets)


def test_label_maps_may_be_bytes() -> None:
    model, images, targets = small().eval(), torch.randn(2, 3, 16, 16), labels(2, (16, 16))
    with torch.no_grad():
        assert model.losses(images, targets.byte()) == model.losses(images, targets)


# ----------------------------------------------------------------------------------------------- any backbone, any norm


@pytest.mark.parametrize("head", ALL_HEADS)
@pytest.mark.parametrize(
    "spec",
    [
        "resnet20_cifar depths=(1,1,1)",  # a stem of stride 1, three stages
        "resnest14 planes=(8,16,16,32) stem=deep(8)",
        "resnet18 depths=(1,) planes=(16,)",
        "skresnet18 planes=(16,16,32,32)",
    ],
)
def test_any_backbone_trains_with_one_image_and_predicts(head: str, spec: str) -> None:
    model = small(head, spec=spec)
    assert model.head_name == head
    assert str(model.spec) == str(get_spec(spec))
    sum(model.losses(torch.randn(1, 3, 21, 17), labels(1, (21, 17))).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    logits = model.eval()(torch.randn(2, 3, 21, 17))
    assert logits.shape == (2, 4, 21, 17)


@pytest.mark.parametrize("head", ALL_HEADS)
@pytest.mark.parametrize(
    "kind, norm",
    [("batch", BatchNorm2d), ("sync", SyncBatchNorm), ("frozen", FrozenBatchNorm2d), ("group", nn.GroupNorm)],
)
@pytest.mark.parametrize("size", [(32, 32), (1, 1), (3, 7)])
def test_every_norm_is_reached_and_one_image_trains(head: str, kind: str, norm: type, size: tuple[int, int]) -> None:
    model = small(head)
    count = sum(isinstance(m, BatchNorm2d) for m in model.modules())
    assert not any(isinstance(m, nn.BatchNorm2d) and not isinstance(m, BatchNorm2d) for m in model.modules())
    convert_norm(model, kind)
    assert sum(isinstance(m, norm) for m in model.modules()) == count
    terms = model.losses(torch.randn(1, 3, *size), torch.zeros(1, *size, dtype=torch.long))
    sum(terms.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
    assert model.eval()(torch.randn(1, 3, *size)).shape == (1, 4, *size)


@pytest.mark.parametrize("head", ALL_HEADS)
@torch.no_grad()
def test_norms_on_pooled_maps_are_marked(head: str) -> None:
    """Group normalisation over a single pixel needs to know: it takes all channels as one group there."""
    model = convert_norm(small(head), "group")
    sizes: dict[nn.Module, set[torch.Size]] = {}
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_hook(lambda m, args, out: sizes.setdefault(m, set()).add(args[0].shape[2:]))
    model(torch.randn(1, 3, 64, 64))
    pooled = [m for m, found in sizes.items() if found == {torch.Size((1, 1))}]
    assert len(pooled) == {"fcn": 0, "deeplabv3": 1, "pspnet": 1}[head]
    assert all(m.num_groups == 1 for m in pooled)


@pytest.mark.parametrize("head", ALL_HEADS)
def test_it_trains_under_bfloat16(head: str) -> None:
    model = small(head)
    images, targets = structured_images(2, size=32), labels(2, (32, 32))
    with torch.autocast("cpu", torch.bfloat16):
        terms = model.losses(images, targets)
    assert all(term.dtype == torch.float32 for term in terms.values())
    sum(terms.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("head", ALL_HEADS)
def test_it_learns(head: str) -> None:
    """A bright disc on a dark ground, six steps: the loss falls well below that of a guess, log 2."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 24), torch.linspace(-1, 1, 24), indexing="ij")
    disc = (x**2 + y**2 < 0.4).long()[None].repeat(2, 1, 1)
    images = (disc[:, None].float() * 2 - 1).repeat(1, 3, 1, 1) + 0.1 * torch.randn(2, 3, 24, 24)
    model = small(head, 2, spec="resnet20_cifar depths=(1,1,1)")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    first = float("inf")
    for step in range(12):
        optimizer.zero_grad()
        loss = sum(model.losses(images, disc).values())
        assert isinstance(loss, Tensor)
        loss.backward()
        optimizer.step()
        first = float(loss.detach()) if step == 0 else first
    assert first == pytest.approx(1.5 * math.log(2), rel=0.1)
    assert float(loss.detach()) < 0.5 * first


# --------------------------------------------------------------------------------------------------------- settings


def test_rates_reach_equally_far_in_the_image() -> None:
    assert atrous_rates(8) == (12, 24, 36)
    assert atrous_rates(16) == (6, 12, 18)
    assert atrous_rates(32) == (3, 6, 9)
    assert atrous_rates(4) == atrous_rates(1) == (12, 24, 36)

    def dilations(model: SegmentationModel) -> list[int]:
        return [m.dilation[0] for m in model.head.branches.modules() if isinstance(m, nn.Conv2d)]  # type: ignore[union-attr]

    assert dilations(small("deeplabv3")) == [1, 12, 24, 36]
    assert dilations(small("deeplabv3", output_stride=16)) == [1, 6, 12, 18]
    assert dilations(small("deeplabv3", atrous_rates=(2, 5))) == [1, 2, 5]


def test_the_auxiliary_head_reads_stage_three() -> None:
    model = small()
    assert model.auxiliary is not None
    assert model.auxiliary.conv.conv.in_channels == model.backbone.channels[2]  # type: ignore[union-attr]


def test_impossible_models_are_refused() -> None:
    backbone = Backbone(get_spec(SMALL))
    for classes in (0, -1, 256, 2.0, True):
        with pytest.raises(UserError, match="num_classes must be a whole number from 1 to 255"):
            SegmentationModel(backbone, classes)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="Did you mean 'pspnet'"):
        SegmentationModel(backbone, 3, "psnet")
    with pytest.raises(UserError, match="belongs to --task detect"):
        create_model("resnet18", 3, task="segment", head="faster_rcnn")
