"""Every pass leaves the function as it was, on networks that are alive, and a wrong one is found out."""

import copy
from functools import cache

import pytest
import torch
from alive import assert_alive, enliven, structured_images
from torch import nn

import resurge
from resurge.arch.blocks import Residual
from resurge.arch.gates import SqueezeExciteGate
from resurge.arch.layers import BranchAttention
from resurge.arch.shortcuts import PooledProjection
from resurge.arch.surgery import convert_norm, set_drop_block, set_drop_path
from resurge.arch.transforms import PooledTransform, Res2Conv, SelectiveKernelConv, SplitAttentionConv
from resurge.errors import UserError
from resurge.optimize.passes import attention, blocks, layers
from resurge.optimize.passes.attention import Channels, Chunked, Mixed, PairWeights
from resurge.optimize.passes.blocks import ConvReLU, FusedResidual, GatedExpand, PieceByPiece
from resurge.optimize.passes.layers import group_counts, groups_of, regroup
from resurge.optimize.rewrite import ALWAYS, PASSES, Certificate, certify, rewrite
from resurge.tasks.detect.settings import Detector

EXACT = 1e-11  # of the largest output, in double precision
JOINT = (
    "absorb_mix",
    "absorb_narrow_mix",
    "one_product",
)  # on branches that come from one layer: without separate_splits
FUSED = (*ALWAYS, "fuse_convolutions")
TINY = "depths=(2,1) planes=(16,32)"
NETWORKS = {
    "plain": "resnet50",
    "deep stem, average pools": "resnet50 stem=deep(8) shortcut=avg",
    "grouped": "resnext50_32x4d groups=8",
    "squeeze": "seresnext50_32x4d groups=4",
    "squeeze basic": "resnet18 gate=se",
    "selective": "skresnext50_32x4d groups=4",
    "selective, three branches": "resnet50 transform=sk(branches=3)",
    "selective, split input": "resnet50 transform=sk(split_input=true)",
    "res2": "res2net50_26w_4s base_width=64",
    "split, radix 1": "resnest50 transform=avgdown(split(radix=1))",
    "split, radix 2": "resnest50",
    "split, radix 2, pool first": "resnest50 transform=avgdown(split(radix=2),before=true)",
    "split, radix 2, cardinality 2": "resnest50 groups=2",
    "split, radix 4, cardinality 2": "resnest50 groups=2 transform=avgdown(split(radix=4))",
    "split in a basic block": "resnet18 transform=split(radix=2)",
    "split and squeeze": "resnest50 gate=se",
    "dropping": "resnest50",
    "deformable": "resnest50 transform=deform(avgdown(split(radix=2)),first_stage=2)",
}


def alive(name: str, size: int | tuple[int, int] = (61, 47)) -> tuple[nn.Module, torch.Tensor]:
    model, images = made_alive(name, size)
    return copy.deepcopy(model), images


@cache
def made_alive(name: str, size: int | tuple[int, int]) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = resurge.create_model(f"{NETWORKS[name]} {TINY}", num_classes=7).double()
    if name == "dropping":
        set_drop_path(model, 0.3)
        set_drop_block(model, 0.2)
    images = structured_images(3, size=size).double()
    enliven(model, images)
    with torch.no_grad():
        assert_alive(model(images))
    return model, images


def has(model: nn.Module, *kinds: type[nn.Module]) -> bool:
    return any(isinstance(module, kinds) for module in model.modules())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("passes", ["always", "all", "joint", "narrow", *PASSES])
def test_the_function_stays(name, passes):
    model, images = alive(name)
    before = copy.deepcopy(model.state_dict())
    before_it = ("fold_norms", "flat_attention", *(("joint_pool",) if passes in JOINT else ()))
    everything = tuple(name for name in PASSES if name not in JOINT)
    joint = {"joint": (*ALWAYS, "absorb_mix"), "narrow": (*ALWAYS, "absorb_narrow_mix", "one_product")}
    chosen = {"always": ALWAYS, "all": everything, **joint}.get(passes, (*before_it, passes))
    rewritten = rewrite(model, chosen)
    certificate = certify(model, rewritten, images, batch_size=2)
    assert certificate.relative < EXACT
    assert certificate.images == 3
    assert certificate.agreement == 1
    assert not rewritten.training
    assert not any(parameter.requires_grad for parameter in rewritten.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_what_is_rewritten():
    everything = [name for name in PASSES if name not in JOINT]

    def left(name: str, *kinds: type[nn.Module]) -> bool:
        return has(rewrite(alive(name)[0], everything), *kinds)

    norms = (nn.BatchNorm2d, nn.Identity, nn.Dropout)
    assert not left("plain", *norms[:1])
    assert not left("dropping", nn.BatchNorm2d)
    assert not left("split, radix 2", SplitAttentionConv, BranchAttention, PooledTransform, Channels, Chunked)
    assert left("split, radix 2", Mixed, PairWeights)
    absorbed = [rewrite(alive("split, radix 2")[0], (*ALWAYS, name)) for name in JOINT]
    assert all(has(each, attention.Scaled) and not has(each, Mixed) for each in absorbed)
    assert [has(each, attention.ScaledSum) for each in absorbed] == [False, False, True]
    assert not left("selective", SelectiveKernelConv, BranchAttention)
    assert not left("squeeze", SqueezeExciteGate)
    assert left("squeeze", GatedExpand)
    assert left("squeeze basic", SqueezeExciteGate)  # its expansion is a 3x3, with which a pool does not commute
    assert not left("res2", Res2Conv)
    assert left("res2", PieceByPiece)
    assert not left("deep stem, average pools", PooledProjection)


def test_which_convolutions_are_fused():
    def fused(name: str, passes: tuple[str, ...] = FUSED) -> nn.Module:
        return rewrite(alive(name)[0], passes)

    plain = fused("deep stem, average pools")
    assert not has(plain, nn.ReLU, Residual)
    assert all(
        layer.bias is None
        for block in plain.modules() if isinstance(block, FusedResidual)
        for layer in block.shortcut.modules() if isinstance(layer, nn.Conv2d)
    )  # fmt: skip
    assert has(fused("squeeze"), Residual), "a gate stands between the expansion and the sum"
    assert not has(fused("plain", ("fuse_convolutions",)), ConvReLU), "without folding there is no bias"
    dense = fused("grouped", (*ALWAYS, "fuse_dense_convolutions"))
    assert {layer.conv.groups for layer in dense.modules() if isinstance(layer, ConvReLU)} == {1}
    assert {layer.conv.groups for layer in fused("grouped").modules() if isinstance(layer, ConvReLU)} == {1, 8}


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["deep stem, average pools", "grouped", "split, radix 2"])
def test_fused_convolutions_on_a_gpu(name):
    model, images = alive(name)
    model, images = (each.cuda().bfloat16().to(memory_format=torch.channels_last) for each in (model, images))
    assert certify(model, rewrite(model, FUSED), images).relative < 0.05
    conv = nn.Conv2d(64, 64, 3, padding=1).cuda().bfloat16().to(memory_format=torch.channels_last).requires_grad_(False)
    x, z = (torch.randn(2, 64, 8, 8).cuda().bfloat16().contiguous(memory_format=torch.channels_last) for _ in range(2))
    found = blocks.cudnn_conv_relu(conv, x, z)
    assert found is not None, "cuDNN has this kernel"
    torch.testing.assert_close(found, (conv(x) + z).relu(), rtol=0.02, atol=0.02)
    assert blocks.cudnn_conv_relu(conv, x.float(), z) is None


def test_the_default_leaves_what_is_to_be_measured():
    assert ALWAYS == ("fold_norms", "flat_attention", "early_squeeze", "pool_before_mix", "joint_pool", "tidy")
    assert has(rewrite(alive("res2")[0]), Res2Conv)
    assert has(rewrite(alive("split, radix 2")[0]), Chunked)


@pytest.mark.parametrize("kind", ["frozen", "sync", "group"])
def test_other_norms(kind):
    model, images = alive("split, radix 2")
    model = convert_norm(model, kind).eval()
    rewritten = rewrite(model, list(PASSES))
    assert certify(model, rewritten, images).relative < EXACT
    assert has(rewritten, nn.GroupNorm) == (kind == "group")


def test_a_norm_without_running_statistics_stays():
    row = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    images = structured_images(2, size=8)
    assert certify(row, rewrite(row), images).difference == 0


@pytest.mark.parametrize("head", ["fcn", "pspnet", "deeplabv3"])
def test_segmenters(head):
    model = resurge.create_model(f"resnest50 {TINY}", 5, task="segment", head=head).double()
    images = structured_images(2, size=64).double()
    enliven(model, images)
    rewritten = rewrite(model, list(PASSES))
    certificate = certify(model, rewritten, images)
    assert certificate.relative < EXACT
    assert certificate.agreement == 1
    assert not has(rewritten, nn.BatchNorm2d)


@pytest.mark.parametrize("task, head", [("detect", "faster_rcnn"), ("detect", "retinanet"), ("instances", "mask_rcnn")])
def test_detectors(task, head):
    detector = resurge.create_model(
        f"resnest50 {TINY}", 5, task=task, head=head,
        detector=Detector(fpn_channels=16, head_norm=True, box_channels=16, mask_channels=8),
    )  # fmt: skip
    images = structured_images(2, size=64)
    norms = [module for module in detector.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.running_mean, -0.1, 0.1)
        nn.init.uniform_(norm.weight, 0.7, 1.3)
    detector.eval()
    for passes in (ALWAYS, FUSED):
        rewritten = rewrite(detector, passes)
        assert not has(rewritten, nn.BatchNorm2d)
        assert certify(detector, rewritten, images).relative < 1e-5
        with torch.no_grad():
            for old, new in zip(detector(images), rewritten(images), strict=True):
                assert old.keys() == new.keys()
                for key in old:
                    torch.testing.assert_close(new[key], old[key], rtol=1e-3, atol=1e-3)


# ------------------------------------------------------------------------------------------------- wrong variants


def rejected(name: str, passes: tuple[str, ...]) -> Certificate:
    model, images = alive(name)
    certificate = certify(model, rewrite(model, passes), images)
    assert certificate.relative > 1e3 * EXACT, "the certificate does not see that this is another function"
    return certificate


def test_a_shift_that_is_not_scaled_is_found_out(monkeypatch):
    right = layers.scale_and_shift
    monkeypatch.setattr(
        layers, "scale_and_shift", lambda norm: (right(norm)[0], norm.bias.double() - norm.running_mean.double())
    )
    rejected("plain", ("fold_norms",))


def test_the_other_branch_is_found_out(monkeypatch):
    right = attention._weights

    def swapped(layer):
        layer = copy.deepcopy(layer)
        halves = layer.fc2.weight.data.unflatten(0, (layer.groups, 2, -1)).flip(1)
        layer.fc2.weight.data = halves.flatten(0, 2)
        return right(layer)

    monkeypatch.setattr(attention, "_weights", swapped)
    rejected("split, radix 2", ("flat_attention",))


def test_a_bias_left_out_of_the_squeeze_is_found_out(monkeypatch):
    right = blocks.conv_like
    monkeypatch.setattr(
        blocks, "conv_like", lambda like, weight, groups, bias: right(like, weight, groups=groups, bias=like.bias)
    )
    rejected("squeeze", ("fold_norms", "early_squeeze"))


def test_attention_that_sees_pooled_maps_is_found_out(monkeypatch):
    def forward(self, x):
        maps = [self.pool(u) for u in self.source(x)]
        weights = self.weights(sum(u.mean((2, 3), keepdim=True) for u in maps))
        return torch.lerp(maps[1], maps[0], weights)

    monkeypatch.setattr(Mixed, "forward", forward)
    rejected("split, radix 2", ("flat_attention", "pool_before_mix"))


def test_splits_in_another_order_are_found_out(monkeypatch):
    right = attention.by_outputs
    monkeypatch.setattr(attention, "by_outputs", lambda layer, parts: right(layer, parts)[::-1])
    model, images = alive("split, radix 4, cardinality 2")
    # reversing both the reductions and the convolutions would be right again but for their weights in the attention
    certificate = certify(model, rewrite(model, ("fold_norms", "flat_attention", "separate_splits")), images)
    assert certificate.relative > 1e3 * EXACT


def test_weights_for_one_branch_only_are_found_out(monkeypatch):
    right = attention.torch.cat

    def halved(tensors, dim=0):
        joined = right(tensors, dim=dim)
        return joined * 0.5 if dim == 1 else joined

    monkeypatch.setattr(attention.torch, "cat", halved)
    rejected("split, radix 2", ("fold_norms", "flat_attention", "joint_pool"))


def test_a_kernel_with_the_branches_swapped_is_found_out(monkeypatch):
    right = attention.mix_pair
    monkeypatch.setattr(attention, "mix_pair", lambda first, second, logits: right(second, first, logits))
    rejected("split, radix 2", ("flat_attention", "fused_mix"))
    rejected("selective", ("flat_attention", "fused_mix"))


def test_a_sum_that_is_absorbed_wrongly_is_found_out(monkeypatch):
    def forward(self, x):
        u = self.layer(x)
        return self.pool(u) * (1 - self.excite(self.squeeze(u.mean((2, 3), keepdim=True))).sigmoid())

    monkeypatch.setattr(attention.Scaled, "forward", forward)
    for name in JOINT:
        rejected("split, radix 2", (*ALWAYS, name))


def test_only_narrow_branches_are_absorbed():
    model = rewrite(
        resurge.create_model("resnest50 depths=(1,1,1,1) planes=(64,128,256,512)"), (*ALWAYS, "absorb_narrow_mix")
    )
    assert [has(stage, attention.Scaled) for stage in model.backbone.stages] == [True, True, False, False]


def test_pieces_in_another_order_are_found_out(monkeypatch):
    right = blocks.by_outputs
    monkeypatch.setattr(blocks, "by_outputs", lambda layer, parts: right(layer, parts)[::-1])
    rejected("res2", ("fold_norms", "separate_pieces"))


def test_a_lost_activation_is_found_out(monkeypatch):
    monkeypatch.setattr(layers, "IDLE", (*layers.IDLE, nn.ReLU))
    rejected("plain", ("fold_norms", "tidy"))


def test_a_fused_convolution_without_the_shortcut_is_found_out(monkeypatch):
    monkeypatch.setattr(ConvReLU, "forward", lambda self, x, z=None: self.conv(x).relu())
    rejected("plain", FUSED)


def test_a_lost_bias_of_the_shortcut_is_found_out(monkeypatch):
    def lost(expand, shortcut):
        for layer in shortcut.modules():
            if isinstance(layer, nn.Conv2d):
                layer.bias = None

    monkeypatch.setattr(blocks, "_take_bias", lost)
    rejected("plain", FUSED)


# --------------------------------------------------------------------------------------------------------- groups


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_coarser_groups(count):
    model, images = alive("grouped")
    plain = rewrite(model)
    coarser = regroup(rewrite(model), lambda conv: count)
    assert certify(plain, coarser, images).relative < EXACT
    assert {layer.groups for layer in coarser.modules() if isinstance(layer, nn.Conv2d)} == {1, count}


def test_groups_put_together_wrongly_are_found_out():
    model, images = alive("grouped")
    plain, wrong = rewrite(model), regroup(rewrite(model), lambda conv: 2)
    for layer in wrong.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups == 2:
            layer.weight.data = layer.weight.data.flip(1)
    assert certify(plain, wrong, images).relative > 1e3 * EXACT


def test_groups_of_a_width():
    def groups(width, *conv, **more):
        return groups_of(width, nn.Conv2d(*conv, 3, **more)).groups

    assert groups(16, 128, 128, groups=32) == 8
    assert groups(16, 24, 24, groups=6) == 1
    assert groups(16, 96, 192, groups=6) == 6
    assert groups(32, 48, 48, groups=4) == 1
    assert groups(16, 64, 64, groups=64) == 64, "depthwise convolutions have kernels of their own"
    assert groups(16, 64, 64) == 1


def test_the_groups_worth_trying():
    assert group_counts(nn.Conv2d(128, 128, 3, groups=32)) == (32, 16, 8, 4, 2)
    assert group_counts(nn.Conv2d(8, 8, 3, groups=8)) == (8, 4, 2, 1)
    assert group_counts(nn.Conv2d(8, 8, 3)) == (1,)
    assert group_counts(nn.Conv2d(1024, 1024, 3, groups=2)) == (2,)


# --------------------------------------------------------------------------------------------------------- messages


def test_an_unknown_pass():
    with pytest.raises(UserError, match=r"unknown pass 'fold_norm'.*Did you mean 'fold_norms'"):
        rewrite(nn.Identity(), ["fold_norm"])


def test_a_certificate_of_nothing():
    with pytest.raises(UserError, match="at least one image"):
        certify(nn.Identity(), nn.Identity(), torch.zeros(0, 3, 4, 4))


def test_a_certificate_of_other_shapes():
    with pytest.raises(UserError, match="different shapes"):
        certify(nn.Identity(), nn.AvgPool2d(2), torch.zeros(1, 3, 4, 4))


def test_a_certificate_of_the_same():
    found = certify(nn.Identity(), nn.Identity(), structured_images(2, size=4))
    assert found == Certificate(images=2, difference=0.0, relative=0.0, agreement=1.0)
