"""Specs: what they accept, how they print, and that both forms come back."""

import json

import pytest

from resurge.arch import blocks, gates, stems, transforms
from resurge.arch.backbone import Backbone
from resurge.arch.spec import Spec, plan
from resurge.arch.text import WORDS
from resurge.arch.zoo import ALIASES, MODELS, canonical_name, get_spec, list_models
from resurge.errors import UserError


@pytest.mark.parametrize("name", MODELS)
def test_every_named_model_survives_text_and_json(name: str) -> None:
    spec = MODELS[name]
    assert str(spec) == name
    assert get_spec(name) == spec
    assert json.loads(json.dumps(spec.to_json()))["depths"] == list(spec.depths)
    assert canonical_name(spec) == name


def test_no_two_names_are_the_same_network() -> None:
    assert len(set(MODELS.values())) == len(MODELS)


def test_the_text_of_the_design_is_resnest50() -> None:
    text = "resnet50 stem=deep(32) shortcut=avg(drop) transform=avgdown(split(radix=2))"
    assert get_spec(text) == MODELS["resnest50"]


def test_text_starts_from_the_nearest_named_model() -> None:
    spec = MODELS["resnest50"].but(gate=gates.SqueezeExcite(reduction=8))
    assert str(spec) == "resnest50 gate=se(reduction=8)"
    assert get_spec(str(spec)) == spec


def test_a_spec_can_be_written_without_a_name() -> None:
    spec = get_spec("depths=(1,2) planes=(32, 64) block=basic stem=conv3x3(8) transform=conv3x3(depthwise=true)")
    assert spec == Spec(
        depths=(1, 2),
        planes=(32, 64),
        block=blocks.Basic(),
        stem=stems.Conv3x3(8),
        transform=transforms.Conv3x3(depthwise=True),
    )


def test_aliases_and_patterns() -> None:
    assert get_spec("resnest101e") is MODELS["resnest101"]
    assert all(target in MODELS for target in ALIASES.values())
    assert list_models("resnest50_fast_?s1x64d") == [
        "resnest50_fast_1s1x64d",
        "resnest50_fast_2s1x64d",
        "resnest50_fast_4s1x64d",
    ]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("resnext50", "resnext50_32x4d"),
        ("resnet50 gat=se", "'gate'"),
        ("resnet50 gate=sse", "'se'"),
        ("resnet50 gate=se(reducton=3)", "'reduction'"),
        ("resnet50 gate=se(reduction=zero)", "whole number"),
        ("resnet50 gate=se(0)", "positive"),
        ("resnet50 gate=se(1,2,3)", "at most 2"),
        ("resnet50 transform=split", "needs radix"),
        ("resnet50 transform=avgdown(se)", "no choice 'se'"),
        ("resnet50 transform=split(radix=2", "parenthesis"),
        ("resnet50 depths=(3,x)", "whole numbers"),
        ("resnet50 depths=(3,4)", "one number per stage"),
        ("resnet50 depths=()", "positive whole numbers"),
        ("resnet50 groups=0", "positive"),
        ("resnet50 groups", "field=value"),
        ("resnet50 groups=2 groups=4", "twice"),
        ("resnet50 block=bottleneck(stride_in=middle)", "'transform' or 'reduce'"),
        ("resnet50 shortcut=avg(dilated=maybe)", "'keep' or 'drop'"),
        ("resnet50 depths=(3 4,4,6,3)", "whole numbers"),
        ("resnet50 depths=(999999999999,4,6,3)", "4096 blocks"),
        ("resnet50 planes=(99999999999,1,1,1)", "32768"),
        ("resnet50 groups=99999999999", "32768"),
        ("resnet50 stem=deep(99999999999)", "at most 32768"),
        ("resnet50 block=bottleneck(expansion=9999)", "32768"),
        ("resnet50 block=bottleneck(reduce_first=1000)", "leaves nothing"),
        ("resnet50 transform=sk(branches=9999)", "64 branches"),
        ("resnet50 shortcut=proj(kernel=2)", "odd"),
        ("resnet50 transform=split(radix=2,radix=4)", "given twice"),
        ("resnet50 transform=" + "avgdown(" * 20 + "split(2)" + ")" * 20, "nest more than 8"),
        ("resnet50 " + "avgdown(" * 5000, "1000 characters"),
        ("resnet50 gate=se)(", "do not match"),
        ("resnet50 gate=se(*,3)", "expected a choice"),
        ("resnet50 gate=se(**x)", "no argument '**'"),
        ("resnet50 gate=se(reduction=2.5)", "whole number"),
        ("resnet50 gate=se(__import__('os'))", "whole number"),
        ("resnet50 gate=[se]", "expected a choice"),
        ("resnet50 gate=", "expected a choice"),
        ("resnet50 groups=1_0j", "whole number"),
        ("resnet50 groups=(2,3)", "whole number"),
        ("resnet50 transform=conv3x3(depthwise=yes)", "true or false"),
        ("resnet\u0665\u0660", "no model named"),
        ("groups=2", "depths"),
        ("", "model name"),
    ],
)
def test_what_cannot_be_read_is_explained(text: str, expected: str) -> None:
    with pytest.raises(UserError) as error:
        Backbone(get_spec(text))
    assert expected in str(error.value)


def test_white_space_inside_parentheses_and_beside_signs_means_nothing() -> None:
    assert get_spec(" resnet50  gate = se ( 8 ,\tdivisor= 4 ) depths=( 3, 4, 6, 3 )") == MODELS["resnet50"].but(
        gate=gates.SqueezeExcite(8, 4)
    )


@pytest.mark.parametrize("choice", [gates.SqueezeExcite(reduction=0), gates.SqueezeExcite(divisor=-8)])
def test_counts_below_one_are_refused_in_python_too(choice: gates.SqueezeExcite) -> None:
    with pytest.raises(UserError, match="positive whole number"):
        MODELS["resnet50"].but(gate=choice)


def test_but_refuses_what_does_not_exist() -> None:
    with pytest.raises(UserError, match="Did you mean 'gate'"):
        MODELS["resnet50"].but(gates=gates.SqueezeExcite())
    with pytest.raises(UserError, match="choice of that axis"):
        MODELS["resnet50"].but(gate=gates.SqueezeExcite)


def test_every_word_builds_from_its_own_text() -> None:
    needed = {"deep": "deep(16)", "conv3x3": "conv3x3(16)", "res2": "res2(4)", "split": "split(2)"}
    for axis, words in WORDS.items():
        for word in words:
            text = f"{word}(split(2))" if word in ("avgdown", "deform") else needed.get(word, word)
            if axis == "transform" and word == "conv3x3":
                text = word
            spec = get_spec(f"resnet18 {axis}={text}")
            assert get_spec(str(spec)) == spec


def test_plan_trades_strides_for_dilation() -> None:
    def entries(output_stride: int) -> list[tuple[int, int, int]]:
        return [(s[0].stride, s[0].dilation, s[-1].dilation) for s in plan(MODELS["resnet50"], output_stride)]

    assert entries(32) == [(1, 1, 1), (2, 1, 1), (2, 1, 1), (2, 1, 1)]
    assert entries(16) == [(1, 1, 1), (2, 1, 1), (2, 1, 1), (1, 1, 2)]
    assert entries(8) == [(1, 1, 1), (2, 1, 1), (1, 1, 2), (1, 2, 4)]
    assert [stage[0].reduces for stage in plan(MODELS["resnet50"], 8)] == [False, True, True, True]


@pytest.mark.parametrize("output_stride", [0, 2, 12, -8, 16.0, "16"])
def test_plan_refuses_impossible_output_strides(output_stride: object) -> None:
    with pytest.raises(UserError, match="output_stride"):
        plan(MODELS["resnet50"], output_stride)  # type: ignore[arg-type]
