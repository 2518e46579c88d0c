"""Segmenters against torchvision's networks, and the pyramid pooling it lacks against naive loops."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pytest
import torch
from alive import assert_alive, enliven, peak_difference, structured_images
from PIL import Image
from segmenters_alive import REJECTED, auxiliary, small
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation import deeplabv3_resnet50, fcn_resnet50

from resurge.arch.backbone import Backbone
from resurge.arch.spec import plan
from resurge.arch.zoo import get_spec
from resurge.errors import UserError
from resurge.tasks.segment.layers import enlarge
from resurge.tasks.segment.model import SegmentationModel
from resurge.tasks.segment.settings import Segmenter
from resurge.weights.layouts import naming, torchvision_tasks

CLASSES = 21
SIZE = (81, 97)

# ------------------------------------------------------------------------------------------- against torchvision


@lru_cache(maxsize=2)
def theirs(head: str) -> nn.Module:
    """torchvision's network with random weights that are alive, in float64."""
    build = {"fcn": fcn_resnet50, "deeplabv3": deeplabv3_resnet50}[head]
    torch.manual_seed(0)
    model = build(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=True)
    return enliven(model, structured_images(2, size=(73, 81), seed=1), passes=1).double()


@lru_cache(maxsize=2)
def ours(head: str, output_stride: int = 8, rates: tuple[int, ...] = ()) -> SegmentationModel:
    spec = get_spec("resnet50")
    settings = Segmenter(output_stride=output_stride, atrous_rates=rates)
    model = SegmentationModel(Backbone(spec, output_stride=output_stride), CLASSES, head, settings)
    model.load_state_dict(torchvision_tasks.to_resurge(theirs(head).state_dict(), spec))
    return model.double().eval()


@pytest.fixture(params=["structured", "photos"])
def images(request: pytest.FixtureRequest) -> Tensor:
    if request.param == "structured":
        return structured_images(2, size=SIZE).double()
    folder = request.getfixturevalue("real_data")
    paths = sorted(folder.rglob("imagenette*/val/*/*.JPEG"))[:2]
    if not paths:
        pytest.skip("no unpacked imagenette in the real data")
    photos = [np.asarray(Image.open(path).convert("RGB").resize(SIZE[::-1])) for path in paths]
    return (torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).double() / 255 - 0.45) / 0.225


@pytest.mark.parametrize("head", ["fcn", "deeplabv3"])
@torch.no_grad()
def test_logits_are_torchvisions(head: str, images: Tensor) -> None:
    expected, model = theirs(head)(images), ours(head)
    assert_alive(expected["out"])
    assert peak_difference(model(images), expected["out"]) < 1e-10
    assert_alive(expected["aux"])
    assert peak_difference(auxiliary(model, images), expected["aux"]) < 1e-10


@torch.no_grad()
def test_wrong_variants_are_rejected() -> None:
    images = structured_images(2, size=SIZE).double()
    expected, model = theirs("deeplabv3")(images)["out"], ours("deeplabv3")
    x = model.backbone(images)[-1]
    logits = model.head([x])
    assert peak_difference(enlarge(logits, SIZE), expected) < 1e-10
    wrong = [
        enlarge(ours("deeplabv3", rates=(6, 12, 18)).head([x]), SIZE),
        ours("deeplabv3", output_stride=16, rates=(12, 24, 36))(images),
        F.interpolate(logits, size=SIZE, mode="bilinear", align_corners=True),
        F.interpolate(logits, size=SIZE, mode="nearest"),
    ]
    assert all(peak_difference(variant, expected) > REJECTED for variant in wrong)


def test_the_plan_dilates_as_torchvision_does() -> None:
    mine = [c for c in Backbone(get_spec("resnet50"), output_stride=8).modules() if isinstance(c, nn.Conv2d)]
    backbone = theirs("fcn").backbone
    other = [c for c in backbone.modules() if isinstance(c, nn.Conv2d)]  # type: ignore[union-attr]

    def spatial(convs: list[nn.Conv2d]) -> list[tuple[object, ...]]:
        return [(c.in_channels, c.stride, c.dilation, c.padding) for c in convs if c.kernel_size != (1, 1)]

    assert spatial(mine) == spatial(other)
    assert [site.dilation for site in plan(get_spec("resnet50"), 8)[3]] == [2, 4, 4]


@pytest.mark.parametrize("head", ["fcn", "deeplabv3"])
def test_names_go_both_ways(head: str) -> None:
    spec, state = get_spec("resnet50"), theirs(head).state_dict()
    assert torchvision_tasks.is_of_task(state)
    back = torchvision_tasks.from_resurge(torchvision_tasks.to_resurge(state, spec), spec)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], value) for key, value in state.items())
    without = {key: value for key, value in state.items() if not key.startswith("aux_")}
    model = SegmentationModel(Backbone(spec, output_stride=8), CLASSES, head, Segmenter(aux_weight=0))
    assert model.load_state_dict(torchvision_tasks.to_resurge(without, spec)).missing_keys == []
    odd = torchvision_tasks.to_resurge({"classifier.9.weight": 1, "backbone.conv9.weight": 2, "extra": 3}, spec)
    assert odd == {"classifier.9.weight": 1, "backbone.conv9.weight": 2, "extra": 3}


def test_what_torchvision_has_no_name_for_is_refused() -> None:
    spec = get_spec("resnet50 depths=(1,1,1,1) planes=(8,8,8,8)")
    model = small("pspnet", spec=str(spec))
    with pytest.raises(UserError, match=r"no name for 'head\.levels"):
        torchvision_tasks.from_resurge(model.state_dict(), spec)
    with pytest.raises(UserError, match="no names for"):
        torchvision_tasks.to_resurge({}, get_spec("resnest50"))
    classifier = naming.from_resurge(Backbone(spec).state_dict(), spec, "torchvision")
    assert not torchvision_tasks.is_of_task([*classifier, "classifier.weight"])


# ------------------------------------------------------------------------------------------------- pyramid pooling


def averaged(x: Tensor, bins: int, equal: bool = False) -> Tensor:
    """The mean of each of bins x bins cells; cell i covers pixels floor(i n / bins) to ceil((i + 1) n / bins)."""
    n, c, h, w = x.shape
    y = x.new_zeros(n, c, bins, bins)
    for i in range(bins):
        for j in range(bins):
            if equal:
                rows, columns = (slice(k * (s // bins), (k + 1) * (s // bins)) for k, s in ((i, h), (j, w)))
            else:
                rows, columns = (
                    slice(k * s // bins, math.ceil((k + 1) * s / bins)) for k, s in ((i, h), (j, w))
                )  # fmt: skip
            y[:, :, i, j] = x[:, :, rows, columns].mean((2, 3))
    return y


def between(x: Tensor, size: tuple[int, int], corners: bool = False) -> Tensor:
    """Bilinear enlargement, pixel by pixel: output pixel i lies at (i + 1/2) n / N - 1/2, held inside the map."""
    y = x.new_zeros(*x.shape[:2], *size)
    for i in range(size[0]):
        for j in range(size[1]):
            weights = []
            for k, big, small_ in ((i, size[0], x.shape[2]), (j, size[1], x.shape[3])):
                at = k * (small_ - 1) / max(1, big - 1) if corners else (k + 0.5) * small_ / big - 0.5
                at = min(max(at, 0.0), small_ - 1.0)
                low = int(at)
                weights.append(((low, 1 - (at - low)), (min(low + 1, small_ - 1), at - low)))
            for row, a in weights[0]:
                for column, b in weights[1]:
                    y[:, :, i, j] += a * b * x[:, :, row, column]
    return y


def naive_pspnet(model: SegmentationModel, x: Tensor, *, equal: bool = False, corners: bool = False) -> Tensor:
    """arXiv:1612.01105, figure 3, from the last feature map; the keywords make wrong variants."""
    levels: list[nn.Module] = list(model.head.levels)  # type: ignore[arg-type, union-attr]
    maps = [x]
    for bins, level in zip((1, 2, 3, 6), levels, strict=True):
        maps.append(between(level(averaged(x, bins, equal)), (x.shape[2], x.shape[3]), corners))
    return model.head.predict(model.head.conv(torch.cat(maps, dim=1)))  # type: ignore[operator, union-attr]


@torch.no_grad()
def test_pspnet_is_the_papers_pyramid() -> None:
    images = structured_images(2, size=(104, 88))  # a last map of 13 x 11, which no number of bins but 1 divides
    model = enliven(small("pspnet"), images).double()
    x = model.backbone(images.double())[-1]
    assert x.shape[-2:] == (13, 11)
    found = model.head([x])
    assert_alive(found)
    assert peak_difference(found, naive_pspnet(model, x)) < 1e-12
    assert peak_difference(model(images.double()), between(found, (104, 88))) < 1e-12
    for wrong in ({"equal": True}, {"corners": True}):
        assert peak_difference(naive_pspnet(model, x, **wrong), found) > REJECTED
