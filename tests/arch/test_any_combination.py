"""Any choice combines with any other: specs drawn at random build, run, train, and survive text and JSON."""

import dataclasses
import json
from pathlib import Path

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resurge.arch import blocks, deformable, gates, shortcuts, stems, transforms
from resurge.arch.backbone import Backbone
from resurge.arch.spec import Spec, plan
from resurge.arch.surgery import set_drop_block, set_drop_path
from resurge.arch.text import WORDS
from resurge.arch.zoo import get_spec

PLAIN_TRANSFORMS = st.one_of(
    st.builds(transforms.Conv3x3, depthwise=st.booleans()),
    st.builds(transforms.Res2, scale=st.sampled_from([1, 2, 4])),
    st.builds(
        transforms.SelectiveKernel,
        branches=st.sampled_from([1, 2, 4]),
        reduction=st.sampled_from([4, 16]),
        divisor=st.sampled_from([8, 32]),
        split_input=st.booleans(),
    ),
    st.builds(transforms.SplitAttention, radix=st.sampled_from([1, 2, 4]), reduction=st.sampled_from([2, 4])),
)

POOLED_TRANSFORMS = st.one_of(PLAIN_TRANSFORMS, st.builds(transforms.AvgDown, PLAIN_TRANSFORMS, st.booleans()))

# Widths are multiples of 32, so that every number of groups, branches, splits and scales above divides them.
SPECS = st.builds(
    lambda stages, **choices: Spec(depths=stages, planes=(32, 32, 64, 64)[: len(stages)], base_width=64, **choices),
    stages=st.lists(st.integers(1, 2), min_size=1, max_size=4).map(tuple),
    groups=st.sampled_from([1, 2]),
    stem=st.one_of(
        st.just(stems.Conv7x7(32)), st.just(stems.Deep(16)), st.builds(stems.Conv3x3, st.sampled_from([32, 64]))
    ),
    block=st.one_of(
        st.just(blocks.Basic()),
        st.builds(
            blocks.Bottleneck,
            stride_in=st.sampled_from(["transform", "reduce"]),
            expansion=st.sampled_from([1, 2, 4]),
            reduce_first=st.sampled_from([1, 2]),
        ),
    ),
    transform=st.one_of(POOLED_TRANSFORMS, st.builds(deformable.Deform, POOLED_TRANSFORMS, st.integers(1, 4))),
    gate=st.one_of(st.just(gates.NoGate()), st.builds(gates.SqueezeExcite, reduction=st.sampled_from([2, 16]))),
    shortcut=st.one_of(
        st.builds(shortcuts.Projection, kernel=st.sampled_from([1, 3])),
        st.builds(shortcuts.AvgProjection, dilated=st.sampled_from(["keep", "drop"])),
        st.just(shortcuts.ZeroPad()),
    ),
).filter(lambda spec: not isinstance(spec.shortcut, shortcuts.ZeroPad) or only_grows(spec))


def only_grows(spec: Spec) -> bool:
    """Whether no block puts out fewer channels than it takes, which zero padding cannot do."""
    return all(site.cout >= site.cin for stage in plan(spec) for site in stage)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None)
@given(
    spec=SPECS,
    in_channels=st.sampled_from([1, 3, 5]),
    output_stride=st.sampled_from([8, 16, 32]),
    size=st.tuples(st.integers(17, 41), st.integers(17, 41)),
    batch=st.sampled_from([1, 2]),
)
def test_any_choice_combines_with_any_other(
    spec: Spec, in_channels: int, output_stride: int, size: tuple[int, int], batch: int
) -> None:
    assert get_spec(str(spec)) == spec
    assert set(json.loads(json.dumps(spec.to_json()))) == {field.name for field in dataclasses.fields(spec)}

    torch.manual_seed(0)
    backbone = Backbone(spec, in_channels, output_stride)
    set_drop_path(backbone, 0.1)
    set_drop_block(backbone, 0.1)
    maps = backbone(torch.randn(batch, in_channels, *size))

    assert len(maps) == len(backbone.channels) == len(backbone.strides) == len(spec.depths)
    for found, channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
        assert found.shape == (batch, channels, -(-size[0] // stride), -(-size[1] // stride))
    assert max(backbone.strides) <= output_stride

    sum(found.square().mean() for found in maps).backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name

    plain = Backbone(spec, in_channels, 32)
    assert {k: v.shape for k, v in plain.state_dict().items()} == {
        k: v.shape for k, v in backbone.state_dict().items()
    }, "the weights must not depend on the output stride"


def test_every_choice_that_has_a_word_is_drawn() -> None:
    strategies = Path(__file__).read_text(encoding="utf-8").partition("@settings")[0]
    for words in WORDS.values():
        for kind in words.values():
            assert f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}" in strategies
