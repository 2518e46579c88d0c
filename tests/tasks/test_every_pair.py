"""Every backbone of the family under every head: it builds, takes a step, and predicts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from resurge.arch.spec import Spec
from resurge.arch.zoo import get_spec
from resurge.tasks.detect.settings import Detector
from resurge.tasks.segment.settings import Segmenter
from resurge.tasks.table import TASKS, build_task_model

FAMILIES = ("resnet50", "resnext50_32x4d", "seresnet50", "skresnext50_32x4d", "res2net50_26w_4s", "resnest50")
BACKBONES = [f"{family} depths=(2,1,1,1)" for family in FAMILIES]  # a block of each kind
PAIRS = [(task, head) for task in ("segment", "detect", "instances") for head in TASKS[task].heads]
SIDE, CLASSES = 64, 3
# The heads are narrow, so that the time goes into the backbones.
DETECTOR = Detector(
    fpn_channels=32, box_channels=64, mask_channels=16, box_size=3, mask_size=4, rpn_proposals_train=30,
    rpn_proposals_test=20, rpn_batch=32, roi_batch=16, pool_scale=28, max_detections=5, score_threshold=0.0,
)  # fmt: skip
SEGMENTER = Segmenter(output_stride=16, head_channels=16)


@pytest.fixture(autouse=True)
def _quick_start(monkeypatch):
    """He's initialisation costs more than the step: here one cheap draw for every convolution stands for it."""

    def draw(tensor, *_args, **_named):
        with torch.no_grad():
            spread = (2 / tensor[0].numel()) ** 0.5
            return tensor.uniform_(-1.7 * spread, 1.7 * spread)

    monkeypatch.setattr(nn.init, "kaiming_normal_", draw)
    monkeypatch.setattr(nn.init, "kaiming_uniform_", draw)


def built(backbone: str | Spec, task: str, head: str) -> nn.Module:
    return build_task_model(
        task, get_spec(backbone), CLASSES, head=head, settings=SEGMENTER if task == "segment" else DETECTOR
    )


def losses_of(model: nn.Module, task: str, images: torch.Tensor) -> dict[str, torch.Tensor]:
    if task == "segment":
        targets = torch.randint(0, CLASSES, (len(images), SIDE, SIDE))
        targets[:, :9] = 255
        return model.losses(images, targets)
    masks = torch.zeros(2, SIDE, SIDE, dtype=torch.uint8)
    masks[0, 8:50, 6:40] = masks[1, 30:60, 20:62] = 1
    boxes = torch.tensor([[6.0, 8, 40, 50], [20, 30, 62, 60]])
    one = {"boxes": boxes, "labels": torch.tensor([0, 2]), "masks": masks}
    return model.losses(images, [one] * len(images))


@pytest.mark.parametrize("backbone", BACKBONES, ids=FAMILIES)
@pytest.mark.parametrize("task, head", PAIRS, ids=[head for _, head in PAIRS])
def test_builds_steps_and_predicts(backbone, task, head):
    model = built(backbone, task, head)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # so that one step is enough for statistics that evaluation can go by
    images = torch.randn(1, 3, SIDE, SIDE)
    terms = losses_of(model, task, images)
    assert all(value.ndim == 0 and torch.isfinite(value) for value in terms.values())
    sum(terms.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    still = [name for name, parameter in model.named_parameters() if not parameter.grad.any()]
    # A cascade's later stages may have no hit, and then have nothing to say of boxes and masks. A bias before a norm
    # cancels in it, and a norm of one value, its own mean, passes on its shift alone.
    assert len(still) < 0.15 * len(list(model.parameters())), still
    torch.optim.SGD(model.parameters(), lr=1e-4).step()
    model.eval()
    with torch.no_grad():
        found = model(images)
    if task == "segment":
        assert found.shape == (1, CLASSES, SIDE, SIDE)
        assert found.isfinite().all()
        return
    assert len(found) == 1
    assert all(value.isfinite().all() for value in found[0].values())
    assert len(found[0]["boxes"]) == len(found[0]["scores"]) == len(found[0]["labels"]) <= 5
    assert ("masks" in found[0]) == (task == "instances")
    if head != "retinanet":
        assert len(found[0]["boxes"]) > 0


ODD = [
    "resnet20_cifar",  # three stages, a stem without stride: one map of stride 4
    "resnet50 depths=1,1,1 planes=16,32,64",  # three stages
    "resnet50 depths=1,1,1,1,1 planes=8,8,16,16,32",  # five
    "resnest14 planes=8,16,32,64",
]


@pytest.mark.parametrize("spec", ODD)
@pytest.mark.parametrize("task, head", PAIRS, ids=[head for _, head in PAIRS])
def test_backbones_of_other_shapes(spec, task, head):
    model = built(spec, task, head)
    terms = losses_of(model, task, torch.randn(2, 3, SIDE, SIDE))
    sum(terms.values()).backward()
    assert all(torch.isfinite(value) for value in terms.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        found = model.eval()(torch.randn(1, 3, SIDE, SIDE))
    assert len(found) == 1
