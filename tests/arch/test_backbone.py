"""What every member must do: odd sizes, dilation, batch one, export, compile, one memory layout."""

import subprocess
import sys

import pytest
import torch
from alive import assert_alive, enliven, peak_difference, structured_images
from torch import Tensor, nn

from resurge.arch.backbone import Backbone
from resurge.arch.blocks import Residual
from resurge.arch.layers import BranchAttention
from resurge.arch.spec import plan
from resurge.arch.zoo import MODELS, get_spec
from resurge.errors import UserError
from resurge.tasks.classify.model import ClassificationModel

KINDS = {
    "basic": "resnet18 depths=(1,1,1,1)",
    "bottleneck": "resnet50 depths=(1,1,1,1)",
    "a": "resnet50a depths=(1,1,1,1)",
    "d": "resnet50d depths=(1,1,1,1)",
    "resnext": "resnext50_32x4d depths=(1,1,1,1)",
    "se": "seresnet50 depths=(1,1,1,1)",
    "sk": "skresnext50_32x4d depths=(1,1,1,1)",
    "sk_split": "skresnet18 depths=(1,1,1,1)",
    "res2": "res2net50_26w_4s depths=(2,2,1,1)",
    "split": "resnest14",
    "split_fast": "resnest50_fast_4s2x40d depths=(1,1,1,1)",
    "cifar": "resnet20_cifar depths=(1,1,1)",
}


def small(kind: str, num_classes: int = 7, in_channels: int = 3, output_stride: int = 32) -> ClassificationModel:
    torch.manual_seed(0)
    return ClassificationModel(Backbone(get_spec(KINDS[kind]), in_channels, output_stride), num_classes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("output_stride", [32, 16, 8])
def test_odd_sizes_and_any_channels(kind: str, output_stride: int) -> None:
    backbone = Backbone(get_spec(KINDS[kind]), in_channels=2, output_stride=output_stride).eval()
    with torch.inference_mode():
        maps = backbone(torch.randn(1, 2, 65, 47))
    for found, channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
        assert found.shape == (1, channels, -(-65 // stride), -(-47 // stride))


@pytest.mark.parametrize("kind", KINDS)
def test_batch_of_one_trains_where_attention_sees_one_pixel(kind: str) -> None:
    model = small(kind).train()
    before = {k: v.clone() for k, v in model.named_buffers() if "attention" in k}
    model(torch.randn(1, 3, 64, 64)).square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    for name, buffer in model.named_buffers():
        if name in before:
            assert torch.equal(buffer, before[name]), "one value a channel must not enter the running statistics"


@pytest.mark.parametrize("kind", ["basic", "bottleneck", "a", "resnext"])
def test_dilation_keeps_the_function_of_the_undilated_network(kind: str) -> None:
    """At stride 8 every 4th pixel of the last map sees what stride 32 saw, where only convolutions stride.

    Holds away from borders and for members whose stride sits in a convolution; an average pool that is kept or
    dropped is a different function, and attention pools over another map.
    """
    images = structured_images(2, size=160)
    coarse = enliven(small(kind), images)
    fine = small(kind, output_stride=8)
    fine.load_state_dict(coarse.state_dict())
    fine.eval()
    with torch.inference_mode():
        a = coarse.forward_features(images)
        b = fine.forward_features(images)
    assert_alive(a)
    assert b.shape[-1] == 4 * a.shape[-1]
    inner = slice(1, None)
    assert peak_difference(b[:, :, ::4, ::4][:, :, inner, inner], a[:, :, inner, inner]) < 1e-4


@pytest.mark.parametrize("kind", ["split", "split_fast", "sk", "sk_split", "res2", "se", "d"])
def test_channels_last_is_kept_by_every_activation(kind: str) -> None:
    model = small(kind).eval().to(memory_format=torch.channels_last)
    fallen: list[str] = []

    def check(name: str) -> object:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[-1] > 1 and output.shape[1] > 1:
                c_stride = output.stride(1)
                if c_stride != 1:
                    fallen.append(f"{name} {tuple(output.shape)} {output.stride()}")

        return hook

    for name, module in model.named_modules():
        module.register_forward_hook(check(name))
    images = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)
    for mode in (False, True):
        model.train(mode)
        model(images)
        assert not fallen, fallen[:5]


def test_the_channels_last_check_rejects_a_five_dimensional_view() -> None:
    """The wrong variant: timm's way of writing split attention."""

    class FiveDimensional(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            n, c, h, w = x.shape
            return x.reshape(n, 2, c // 2, h, w).sum(dim=1)

    y = FiveDimensional()(torch.randn(2, 8, 16, 16).to(memory_format=torch.channels_last))
    assert y.stride(1) != 1


@pytest.mark.parametrize("kind", KINDS)
def test_export_with_dynamic_batch_and_size(kind: str) -> None:
    images = structured_images(2, size=64)
    model = enliven(small(kind), images)
    batch, height, width = (
        torch.export.Dim(n, min=m, max=x) for n, m, x in (("n", 1, 64), ("h", 33, 512), ("w", 33, 512))
    )
    program = torch.export.export(model, (images,), dynamic_shapes=({0: batch, 2: height, 3: width},))
    other = structured_images(3, size=(97, 75), seed=1)
    with torch.inference_mode():
        expected = model(other)
        got = program.module()(other)
    assert_alive(expected, 1e-3)
    assert peak_difference(got, expected) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["split", "sk", "res2"])
def test_compile(kind: str) -> None:
    """In double precision: attention on normalised 1x1 maps amplifies rounding from block to block."""
    images = structured_images(2, size=64).double()
    model = enliven(small(kind).double(), images)
    compiled = torch.compile(model)
    with torch.inference_mode():
        expected = model(images)
        assert_alive(expected)
        assert peak_difference(compiled(images), expected) < 1e-10


@pytest.mark.parametrize("kind", ["basic", "sk", "res2", "split", "se"])
def test_whole_graph_capture(kind: str) -> None:
    """What torch.compile captures has no graph break; the backend itself is tested with --slow."""
    model = small(kind).eval()
    images = torch.randn(2, 3, 64, 64)
    captured = torch.compile(model, backend="eager", fullgraph=True)
    with torch.inference_mode():
        assert torch.equal(captured(images), model(images))


def test_the_sum_stands_once_and_drop_path_is_on_the_residual() -> None:
    torch.manual_seed(0)
    unit = Backbone(get_spec("resnest14")).stages[1][0]
    assert isinstance(unit, Residual)
    unit.eval()
    unit.drop_path = Zero()
    x = torch.randn(1, 256, 8, 8)
    with torch.inference_mode():
        assert torch.equal(unit(x), unit.shortcut(x).relu())


class Zero(nn.Module):
    """Drop path with rate one."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 0


def test_attention_weights_sum_to_one_over_branches() -> None:
    torch.manual_seed(0)
    weights = BranchAttention(64, 32, 4, groups=2).eval()(torch.randn(3, 64, 1, 1))
    assert weights.shape == (3, 4, 64, 1, 1)
    assert torch.allclose(weights.sum(1), torch.ones(3, 64, 1, 1))


def test_avg_pools_stay_in_dilated_resnest_stages() -> None:
    """The authors' rule (zhanghang1989/ResNeSt, resnest/torch/models/resnet.py): the pool stays with stride 1."""
    backbone = Backbone(get_spec("resnest50"), output_stride=8)
    pools = [stage[0].transform.pool for stage in backbone.stages]
    assert [type(pool) for pool in pools] == [nn.Identity, nn.AvgPool2d, nn.AvgPool2d, nn.AvgPool2d]
    assert [pool.stride for pool in pools[1:]] == [2, 1, 1]
    assert all(isinstance(site.transform.pool, nn.Identity) for site in backbone.stages[3][1:])


@pytest.mark.parametrize(
    "text, expected",
    [
        ("resnet50 groups=7 planes=(60,120,240,480)", ""),
        ("resnet18 groups=7", "divided into 7"),
        ("resnet50 transform=res2(3)", "divided into 3"),
        ("resnet50 transform=split(radix=3)", "divided into 3"),
        ("resnet50 transform=sk(branches=3,split_input=true)", "divided into 3"),
        ("resnet50 planes=(8,4,8,8) shortcut=zeropad", "only adds channels"),
        ("resnet50 base_width=1 planes=(8,8,8,8)", "no channels"),
    ],
)
def test_numbers_that_do_not_fit_are_explained(text: str, expected: str) -> None:
    if not expected:
        Backbone(get_spec(text))
        return
    with pytest.raises(UserError) as error:
        Backbone(get_spec(text))
    assert expected in str(error.value)


def test_arguments_out_of_range_are_explained() -> None:
    with pytest.raises(UserError, match="in_channels"):
        Backbone(MODELS["resnet18"], in_channels=0)
    with pytest.raises(UserError, match="num_classes"):
        ClassificationModel(Backbone(get_spec("resnet20_cifar")), 0)
    with pytest.raises(UserError, match="dropout"):
        ClassificationModel(Backbone(get_spec("resnet20_cifar")), 2, dropout=1.0)


def test_every_named_model_builds_on_its_plan() -> None:
    with torch.device("meta"):
        for spec in MODELS.values():  # of each stage its first two blocks: the others repeat the second
            short = spec.but(depths=tuple(min(2, depth) for depth in spec.depths))
            backbone = Backbone(short, output_stride=8)
            assert backbone.channels == tuple(stage[-1].cout for stage in plan(spec, 8))
            assert max(backbone.strides) <= 8


def test_the_largest_member_stays_under_two_gib() -> None:
    """Import, build and one forward of resnest269 at 416x416, batch 1, in a process of its own."""
    code = (
        "import resource, torch\n"
        "from resurge.arch.backbone import Backbone\n"
        "from resurge.arch.zoo import MODELS\n"
        "from resurge.tasks.classify.model import ClassificationModel\n"
        "model = ClassificationModel(Backbone(MODELS['resnest269']), 1000).eval()\n"
        "with torch.inference_mode():\n"
        "    assert model(torch.randn(1, 3, 416, 416)).shape == (1, 1000)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=200)
    assert int(done.stdout) < 2 * 1024 * 1024, f"{int(done.stdout) / 1024:.0f} MiB"
