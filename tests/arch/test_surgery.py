"""Surgery on built networks: drop path, DropBlock, norms, zero-initialised gammas."""

import pytest
import torch
from alive import enliven, peak_difference, structured_images
from torch import nn
from torchvision.ops import FrozenBatchNorm2d, StochasticDepth

from resurge.arch.backbone import Backbone
from resurge.arch.blocks import Residual
from resurge.arch.layers import ConvNormAct
from resurge.arch.surgery import NORMS, convert_norm, set_drop_block, set_drop_path, zero_init_last
from resurge.arch.zoo import MODELS, get_spec
from resurge.errors import UserError
from resurge.tasks.classify.model import ClassificationModel

SMALL = ["resnet20_cifar", "resnet50d depths=(1,1,1,1)", "skresnet18", "resnest14", "res2net50_26w_4s depths=(1,1,1,1)"]


def build(text: str) -> ClassificationModel:
    torch.manual_seed(0)
    return ClassificationModel(Backbone(get_spec(text)), 5)


def test_drop_path_grows_linearly_and_can_be_taken_back() -> None:
    model = build("resnet20_cifar")
    set_drop_path(model, 0.8)
    units = [m for m in model.modules() if isinstance(m, Residual)]
    rates = [u.drop_path.p if isinstance(u.drop_path, StochasticDepth) else 0.0 for u in units]
    assert rates == pytest.approx([0.1 * i for i in range(9)])
    set_drop_path(model, 0.0)
    assert all(isinstance(u.drop_path, nn.Identity) for u in units)


@pytest.mark.parametrize("text", SMALL)
def test_drop_path_and_drop_block_act_in_training_only(text: str) -> None:
    model = build(text)
    images = structured_images(4, size=96)
    enliven(model, images)
    with torch.inference_mode():
        before = model(images)
        set_drop_path(model, 0.5)
        set_drop_block(model, 0.3)
        assert torch.equal(model(images), before)
        torch.manual_seed(0)
        first = model.train()(images)
        assert not torch.equal(first, model(images)), "two training passes must differ"
    assert set(model.state_dict()) == set(build(text).state_dict()), "surgery must not rename parameters"


def test_drop_block_reaches_the_last_stages_only() -> None:
    model = build("resnest14")
    set_drop_block(model, 0.1, stages=2)
    filled = {
        name.split(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, ConvNormAct) and not isinstance(module.drop, nn.Identity)
    }
    assert filled == {"2", "3"}


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("text", SMALL)
def test_every_norm_trains_with_a_batch_of_one_and_evaluates(text: str, kind: str) -> None:
    model = convert_norm(build(text), kind)
    model.train()(torch.randn(1, 3, 64, 64)).square().mean().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    norms = {"batch": nn.BatchNorm2d, "sync": nn.SyncBatchNorm, "frozen": FrozenBatchNorm2d, "group": nn.GroupNorm}
    others = tuple(norms[other] for other in norms if other != kind)
    assert any(isinstance(m, norms[kind]) for m in model.modules())
    assert not any(isinstance(m, others) for m in model.modules())
    with torch.inference_mode():
        assert torch.isfinite(model.eval()(torch.randn(1, 3, 33, 65))).all()


@pytest.mark.parametrize("text", SMALL)
def test_batch_sync_and_frozen_compute_the_same_in_evaluation_and_come_back(text: str) -> None:
    images = structured_images(4, size=64)
    model = enliven(build(text), images)
    with torch.inference_mode():
        expected = model(images)
        for kind in ("frozen", "sync", "batch"):
            assert peak_difference(convert_norm(model, kind).eval()(images), expected) < 1e-5, kind
    reference = build(text)
    assert [type(m) for m in model.modules()] == [type(m) for m in reference.modules()]
    assert set(model.state_dict()) == set(reference.state_dict())


def test_group_norm_keeps_attention_alive() -> None:
    model = convert_norm(build("resnest14"), "group").eval()
    attention = next(m for n, m in model.named_modules() if n.endswith("attention"))
    with torch.inference_mode():
        a, b = attention(torch.randn(2, attention.fc1.in_channels, 1, 1)).unbind(0)
    assert not torch.allclose(a, b), "a norm over single values would make the attention constant"
    assert isinstance(attention.norm, nn.GroupNorm)
    assert attention.norm.num_groups == 1


def test_converting_back_from_group_norm_restores_the_policy_for_pooled_maps() -> None:
    model = convert_norm(convert_norm(build("resnest14"), "group"), "batch")
    assert any(isinstance(m, nn.BatchNorm2d) and m.pooled for m in model.modules())
    model.train()(torch.randn(1, 3, 64, 64))


def test_zero_init_last_makes_every_block_its_shortcut() -> None:
    model = build("resnet20_cifar")
    zero_init_last(model)
    stage = model.backbone.stages[0].eval()
    x = torch.rand(1, 16, 8, 8)
    with torch.inference_mode():
        assert torch.equal(stage(x), x)


def test_values_out_of_range_are_explained() -> None:
    model = build("resnet20_cifar")
    with pytest.raises(UserError, match="drop_path"):
        set_drop_path(model, 1.0)
    with pytest.raises(UserError, match="drop_block"):
        set_drop_block(model, -0.1)
    with pytest.raises(UserError, match="odd block_size"):
        set_drop_block(model, 0.1, block_size=4)
    with pytest.raises(UserError, match="Did you mean 'frozen'"):
        convert_norm(model, "froze")
    with pytest.raises(UserError, match="Backbone"):
        set_drop_path(nn.Linear(1, 1), 0.1)


@pytest.mark.parametrize("name", MODELS)
def test_surgery_works_for_every_member(name: str) -> None:
    with torch.device("meta"):
        backbone = Backbone(MODELS[name])
    names = set(backbone.state_dict())
    set_drop_path(backbone, 0.2)
    set_drop_block(backbone, 0.1)
    *_, last = (module for module in backbone.modules() if isinstance(module, Residual))
    assert isinstance(last.drop_path, StochasticDepth)
    assert isinstance(last.expand, ConvNormAct)
    assert not isinstance(last.expand.drop, nn.Identity)
    assert set(backbone.state_dict()) == names
    convert_norm(backbone, "group")
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in backbone.modules())
    assert {n.device.type for n in backbone.parameters()} == {"meta"}
    convert_norm(backbone, "batch")
    assert set(backbone.state_dict()) == names


def test_drop_block_leaves_the_stages_that_an_earlier_call_filled() -> None:
    model = build("resnest14")
    set_drop_block(model, 0.1, stages=4)
    set_drop_block(model, 0.0)
    assert all(isinstance(m.drop, nn.Identity) for m in model.modules() if isinstance(m, ConvNormAct))


@pytest.mark.parametrize("kind", NORMS)
def test_converted_norms_keep_device_dtype_momentum_and_what_is_frozen(kind: str) -> None:
    model = build("resnet20_cifar").to(torch.bfloat16)
    stem = model.backbone.stem.convs[0]
    stem.norm.weight.requires_grad_(False)
    stem.norm.momentum = 0.01
    weight = stem.norm.weight.detach().clone()
    convert_norm(model, kind)
    assert torch.equal(stem.norm.weight, weight)
    assert stem.norm.weight.dtype == torch.bfloat16
    assert not stem.norm.weight.requires_grad
    assert getattr(stem.norm, "momentum", 0.01) == 0.01
    later = model.backbone.stages[0][0].expand.norm
    assert later.weight.requires_grad == (kind != "frozen")


def test_surgery_reaches_into_a_compiled_model() -> None:
    model = build("resnet20_cifar depths=(1,1,1)")
    enliven(model, structured_images(4, size=32))
    x = structured_images(2, size=32, seed=1)
    compiled = torch.compile(model, backend="eager")
    with torch.inference_mode():
        before = compiled(x)
        zero_init_last(compiled)
        convert_norm(compiled, "frozen")
        assert not torch.allclose(compiled(x), before)
        assert torch.equal(compiled(x), model(x))
