"""Several sizes, mirrored, in windows: against naive loops over the views."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from alive import assert_alive, enliven, peak_difference, structured_images
from torch import Tensor, nn
from torch.nn import functional as F

from resurge.arch.backbone import Backbone
from resurge.arch.zoo import get_spec
from resurge.errors import UserError
from resurge.tasks.segment.model import SegmentationModel
from resurge.tasks.segment.settings import Segmenter
from resurge.tasks.segment.sliding import predict_probabilities, window_starts

REJECTED = 1e-3


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    backbone = Backbone(get_spec("resnet18 depths=(1,1,1) planes=(8,16,16) stem=deep(8)"), output_stride=8)
    made = SegmentationModel(backbone, 3, "fcn", Segmenter(aux_weight=0))
    enliven(made, structured_images(4, size=40))
    with torch.no_grad():
        made.head.predict.weight.mul_(30)  # type: ignore[operator, union-attr]
    return made.double().eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return structured_images(2, size=(37, 50), seed=2).double()


@torch.no_grad()
def softmax(model: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = model(x).softmax(dim=1)
    return y


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def test_one_view_is_a_plain_forward_pass(model: nn.Module, images: Tensor) -> None:
    expected = softmax(model, images)
    assert_alive(expected)
    assert torch.equal(predict_probabilities(model, images), expected)
    for window in ((37, 50), (100, 100), (37, 1000)):
        assert torch.equal(predict_probabilities(model, images, window=window), expected)


def test_the_mirrored_image_is_averaged_in(model: nn.Module, images: Tensor) -> None:
    plain, mirrored = softmax(model, images), softmax(model, images.flip(-1))
    found = predict_probabilities(model, images, flip=True)
    assert peak_difference(found, (plain + mirrored.flip(-1)) / 2) < 1e-12
    for wrong in ((plain + mirrored) / 2, (plain + softmax(model, images.flip(-2)).flip(-2)) / 2, plain):
        assert peak_difference(wrong, found) > REJECTED


@pytest.mark.parametrize("flip", [False, True])
def test_sizes_are_averaged(model: nn.Module, images: Tensor, flip: bool) -> None:
    scales = (0.5, 1.0, 1.75)
    sizes = [(18, 25), (37, 50), (65, 88)]
    views = [resized(softmax(model, resized(images, size)), (37, 50)) for size in sizes]
    if flip:
        views += [resized(softmax(model, resized(images, size).flip(-1)).flip(-1), (37, 50)) for size in sizes]
    found = predict_probabilities(model, images, scales=scales, flip=flip)
    assert peak_difference(found, torch.stack(views).mean(0)) < 1e-12
    assert peak_difference(found.sum(1), torch.ones(2, 37, 50)) < 1e-12
    assert peak_difference(torch.stack(views[1:]).mean(0), found) > REJECTED


@pytest.mark.parametrize("overlap", [0.0, 1 / 3, 0.6])
@pytest.mark.parametrize("window", [(16, 24), (37, 20), (20, 400), (36, 49)])
def test_windows_are_averaged_where_they_overlap(
    model: nn.Module, images: Tensor, window: tuple[int, int], overlap: float
) -> None:
    rows, columns = (window_starts(s, w, overlap) for s, w in zip((37, 50), window, strict=True))
    total, seen = torch.zeros(2, 3, 37, 50, dtype=torch.float64), torch.zeros(37, 50)
    last = torch.zeros_like(total)
    for top in rows:
        for left in columns:
            view = softmax(model, images[:, :, top : top + window[0], left : left + window[1]])
            for i in range(view.shape[2]):
                for j in range(view.shape[3]):
                    total[:, :, top + i, left + j] += view[:, :, i, j]
                    last[:, :, top + i, left + j] = view[:, :, i, j]
                    seen[top + i, left + j] += 1
    assert seen.min() >= 1
    found = predict_probabilities(model, images, window=window, overlap=overlap)
    assert peak_difference(found, total / seen) < 1e-12
    if seen.max() > 1:
        assert peak_difference(last, found) > REJECTED


@pytest.mark.parametrize("size", [1, 7, 50, 513])
@pytest.mark.parametrize("window", [1, 2, 7, 49, 50, 600])
@pytest.mark.parametrize("overlap", [0.0, 1 / 3, 0.5, 0.99])
def test_windows_cover_a_side_and_overlap_enough(size: int, window: int, overlap: float) -> None:
    starts = window_starts(size, window, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(0, size - window)
    for before, after in pairwise(starts):
        assert 0 < after - before <= max(1, window * (1 - overlap))
    assert len(starts) == 1 or len(starts) <= 2 + (size - window) / max(1, int(window * (1 - overlap)))


def test_the_model_never_sees_more_than_a_window(model: nn.Module) -> None:
    seen: list[tuple[int, ...]] = []

    def watched(x: Tensor) -> Tensor:
        seen.append(tuple(x.shape))
        y: Tensor = model(x)
        return y

    image = torch.randn(1, 3, 90, 130, dtype=torch.float64)
    found = predict_probabilities(watched, image, window=(32, 40), scales=(1.0, 1.5), flip=True)
    assert found.shape == (1, 3, 90, 130)
    assert {shape[2:] for shape in seen} == {(32, 40)}


def test_all_of_it_together_and_a_single_pixel(model: nn.Module) -> None:
    for size in ((1, 1), (1, 9), (30, 30)):
        image = torch.randn(1, 3, *size, dtype=torch.float64)
        found = predict_probabilities(model, image, window=(8, 8), scales=(0.3, 2.0), flip=True)
        assert found.shape == (1, 3, *size)
        assert peak_difference(found.sum(1), torch.ones(1, *size)) < 1e-12


def test_half_precision_is_averaged_in_float32(model: nn.Module) -> None:
    def half(x: Tensor) -> Tensor:
        y: Tensor = model(x.double()).bfloat16()
        return y

    found = predict_probabilities(half, torch.randn(1, 3, 20, 20), window=(12, 12))
    assert found.dtype == torch.float32
    assert not found.requires_grad


@pytest.mark.parametrize(
    "options, message",
    [
        ({"scales": ()}, "at least one scale"),
        ({"scales": (1.0, 0.0)}, "positive number"),
        ({"scales": (float("nan"),)}, "positive number"),
        ({"window": (0, 5)}, r"window as \(height, width\)"),
        ({"window": (5,)}, r"window as \(height, width\)"),
        ({"overlap": 1.0}, "overlap must be"),
    ],
)
def test_impossible_arguments_are_refused(model: nn.Module, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        predict_probabilities(model, torch.randn(1, 3, 8, 8).double(), **options)


def test_a_model_in_training_and_images_without_pixels_are_refused(model: nn.Module) -> None:
    with pytest.raises(UserError, match="evaluation mode"):
        predict_probabilities(nn.Conv2d(3, 2, 1), torch.randn(1, 3, 8, 8))
    for shape in ((3, 8, 8), (1, 3, 0, 8), (0, 3, 8, 8)):
        with pytest.raises(UserError, match="at least one pixel"):
            predict_probabilities(model, torch.zeros(shape, dtype=torch.float64))
