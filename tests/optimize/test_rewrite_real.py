"""Rewriting on real images, the digits and photos that scikit-learn brings, and all that a detector puts out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from alive import assert_alive, enliven
from detectors_alive import HEADS, photos
from torch import Tensor, nn
from torch.nn import functional as F

import resurge
from resurge.data.formats.digits import digit_splits
from resurge.optimize.rewrite import ALWAYS, PASSES, certify, rewrite
from resurge.tasks.detect.pyramid import diagonal_boxes
from resurge.tasks.detect.settings import Detector
from resurge.tasks.running import smooth_outputs

EXACT = 1e-11  # of the largest value of an output, in double precision
CLASSIFIERS = {
    "split attention": "resnest50 depths=(2,1) planes=(16,32)",
    "squeeze": "seresnext50_32x4d groups=4 depths=(2,1) planes=(16,32)",
    "res2": "res2net50_26w_4s base_width=64 depths=(2,1) planes=(16,32)",
}


def digits(split: str, count: int) -> tuple[Tensor, Tensor]:
    """Images float64 (count, 1, 16, 16) with values from -1 to 1, and what they show."""
    part = digit_splits()[split]
    pixels = torch.from_numpy(part.images.pixels[:count]).reshape(count, 1, 8, 8).double()
    return F.interpolate(pixels, scale_factor=2) / 127.5 - 1, torch.tensor(part.labels[:count])


@pytest.fixture(scope="module")
def trained() -> Callable[[str], nn.Module]:
    made: dict[str, nn.Module] = {}

    def make(name: str) -> nn.Module:
        """Trained on digits until it knows many of them: in double precision, in evaluation mode."""
        if name not in made:
            torch.manual_seed(0)
            model = resurge.create_model(f"{CLASSIFIERS[name]} stem=conv3x3(16)", num_classes=10, in_channels=1)
            images, labels = digits("train", 256)
            optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
            for step in range(48):
                rows = torch.arange(step * 32, step * 32 + 32) % len(images)
                optimizer.zero_grad()
                F.cross_entropy(model(images[rows].float()), labels[rows]).backward()
                optimizer.step()
            made[name] = model.double().eval()
        return made[name]

    return make


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_function_stays_on_digits(name: str, trained: Callable[[str], nn.Module]) -> None:
    model = trained(name)
    images, labels = digits("val", 64)
    with torch.no_grad():
        logits = model(images)
    assert_alive(logits)
    assert (logits.argmax(1) == labels).double().mean() > 0.3, "it has learnt nothing"
    joint = ("absorb_mix", "absorb_narrow_mix", "one_product")
    for passes in (ALWAYS, tuple(each for each in PASSES if each not in joint), (*ALWAYS, "absorb_mix")):
        certificate = certify(model, rewrite(model, passes), images, batch_size=32)
        assert certificate.relative < EXACT
        assert certificate.agreement == 1
        assert certificate.images == 64
    wrong = rewrite(model)
    with torch.no_grad():
        next(layer for layer in wrong.modules() if isinstance(layer, nn.Conv2d)).weight[0].mul_(1 + 1e-6)
    assert certify(model, wrong, images).relative > 100 * EXACT


# ----------------------------------------------------------------------------------------------------------- detectors


@pytest.fixture(scope="module")
def detectors() -> Callable[[str], tuple[nn.Module, nn.Module, Tensor]]:
    made: dict[str, tuple[nn.Module, nn.Module, Tensor]] = {}

    def make(head: str) -> tuple[nn.Module, nn.Module, Tensor]:
        """A detector in double precision that is alive on two photos, its rewritten form, and the photos."""
        if head not in made:
            torch.manual_seed(0)
            settings = Detector(
                fpn_channels=8, head_norm=True, box_channels=16, mask_channels=8, rpn_proposals_test=20,
                box_head="4conv1fc" if "cascade" in head else "2fc",
            )  # fmt: skip
            model = resurge.create_model(
                "resnest50 depths=(1,1) planes=(8,16)", 3, task=HEADS[head], head=head, detector=settings
            )
            images = torch.cat([F.interpolate(photo[None], (60, 90), mode="area") for photo in photos()]) * 4 - 2
            for layer in model.head.modules():  # born so small that nothing of the image reaches the outputs
                if isinstance(layer, (nn.Conv2d, nn.Linear)):
                    nn.init.kaiming_normal_(layer.weight)
            enliven(model, images, passes=1)
            model, images = model.double(), images.double()
            made[head] = model, rewrite(model), images
        return made[head]

    return make


@pytest.mark.parametrize("head", HEADS)
def test_all_that_a_detector_puts_out_stays(
    head: str, detectors: Callable[[str], tuple[nn.Module, nn.Module, Tensor]]
) -> None:
    model, rewritten, images = detectors(head)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in rewritten.modules())
    with torch.no_grad():
        for output in smooth_outputs(model, images):
            assert output.dtype == torch.float64
            assert_alive(output.reshape(2, -1))
    certificate = certify(model, rewritten, images, batch_size=1)
    assert certificate.relative < EXACT
    assert certificate.difference > 0
    assert certificate.agreement is None


def layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, layer) for name, layer in model.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear)))


@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_a_wrong_weight_in_any_layer_of_a_detector_is_found_out(
    head: str, detectors: Callable[[str], tuple[nn.Module, nn.Module, Tensor]]
) -> None:
    model, rewritten, images = detectors(head)
    wrong = copy.deepcopy(rewritten)
    tried = [name for name, _ in layers(wrong) if name.startswith(("fpn", "head"))]
    assert {name.split(".")[1] for name in tried if name.startswith("head")} == (
        {"net"} if head == "retinanet" else {"rpn", "box", *(["mask"] if "mask" in head else [])}
    )
    for name, layer in layers(wrong):
        if name in tried:
            right = layer.weight.clone()
            layer.weight.mul_(1 + 1e-5)
            assert certify(model, wrong, images[:1]).relative > 1e3 * EXACT, name
            layer.weight.copy_(right)
    assert certify(model, wrong, images[:1]).relative < EXACT


def test_a_small_output_is_measured_by_itself() -> None:
    class Two(nn.Module):
        def __init__(self, small: float) -> None:
            super().__init__()
            self.small = small

        def forward(self, x: Tensor) -> list[Tensor]:
            return [1000 * x, self.small * x]

    images = torch.ones(3, 3, 4, 4)
    certificate = certify(Two(0.5), Two(0.75), images, batch_size=2)
    assert (certificate.difference, certificate.relative) == (0.25, 0.5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_is_no_agreement(value: float) -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + value

    images = torch.ones(1, 3, 4, 4)
    for before, after in ((nn.Identity(), Broken()), (Broken(), Broken())):
        certificate = certify(before, after, images)
        assert certificate.difference == certificate.relative == float("inf")


def test_boxes_along_the_diagonal() -> None:
    boxes, image = diagonal_boxes(torch.tensor([[160.0, 80, 160, 80], [10, 10, 10, 10]]))
    assert boxes.shape == (30, 4)
    assert image.tolist() == [0] * 15 + [1] * 15
    assert boxes[0].tolist() == [0, 0, 160, 80]
    assert boxes[14].tolist() == [140, 70, 160, 80]


def test_half_precision_is_pooled() -> None:
    torch.manual_seed(0)
    settings = Detector(fpn_channels=8, box_channels=16, mask_channels=8)
    model = resurge.create_model(
        "resnet18 depths=(1,1) planes=(8,16)", 3, task="instances", head="mask_rcnn", detector=settings
    )
    model = model.eval().bfloat16()
    assert certify(model, rewrite(model, ()), torch.rand(1, 3, 64, 64).bfloat16()).difference == 0
