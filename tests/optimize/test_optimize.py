"""Choosing between equivalent forms by measuring, with a clock of the test's own."""

import json

import pytest
import torch
from alive import enliven, structured_images
from torch import nn

import resurge
from resurge.errors import UserError
from resurge.optimize import autotune as module
from resurge.optimize import timing
from resurge.optimize.autotune import optimize, race
from resurge.optimize.passes.attention import Chunked, Parallel
from resurge.optimize.passes.blocks import ConvReLU
from resurge.optimize.rewrite import certify

SPLIT = "resnest50 depths=(1,1) planes=(16,32)"
GROUPED = "resnext50_32x4d groups=8 base_width=16 depths=(1,1) planes=(16,32)"


@pytest.fixture
def memory(tmp_path):
    return tmp_path / "cache" / "forms.json"


def alive(text):
    model = resurge.create_model(text, 5)
    images = structured_images(2, size=40)
    return enliven(model, images), images


def clock(monkeypatch, seconds):
    """Forms take as long as `seconds` says of their name; nothing is run."""
    asked = []

    def fake(runs, rounds):
        asked.append(tuple(runs))
        return {name: seconds(name) for name in runs}

    monkeypatch.setattr(module, "race", fake)
    return asked


def groups_of(model):
    return {layer.groups for layer in model.modules() if isinstance(layer, nn.Conv2d)} - {1}


def has(model, kind):
    return any(isinstance(layer, kind) for layer in model.modules())


def test_the_faster_form_is_taken(monkeypatch, memory):
    model, images = alive(SPLIT)
    clock(monkeypatch, lambda name: 1.0 if name == "separate_splits" else 2.0)
    found = optimize(model, images, memory=memory)
    assert has(found.model, Parallel)
    assert not has(found.model, Chunked)
    assert found.choices[0].form == "separate_splits"
    assert found.choices[0].seconds == {"as it is": 2.0, "separate_splits": 1.0}
    assert found.certificate.relative < 1e-5
    assert found.certificate == certify(model, found.model, images)


def test_a_form_that_gains_nothing_is_left(monkeypatch, memory):
    model, images = alive(SPLIT)
    clock(monkeypatch, lambda name: 0.98 if name == "separate_splits" else 1.0)
    assert has(optimize(model, images, memory=memory).model, Chunked)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """A processor on which no pass is taken without measuring it, as on a GPU."""
    monkeypatch.setitem(module.STARTS, "cpu", module.STARTS["cuda"])


def test_on_a_gpu_a_model_comes_back_as_it_is_where_nothing_is_faster(as_on_a_gpu, monkeypatch, memory):
    model, images = alive(SPLIT)
    asked = clock(monkeypatch, lambda name: 1.0)
    found = optimize(model, images, memory=memory)
    assert asked[0] == ("as it is", "norms kept", "norms folded", "fused convolutions", "fused dense convolutions")
    assert str(found.model) == str(model)
    assert found.certificate.relative < 1e-5


@pytest.mark.parametrize("form, folded, fused", [
    ("norms kept", False, False), ("norms folded", True, False), ("fused convolutions", True, True),
])  # fmt: skip
def test_on_a_gpu_the_fastest_passes_are_where_it_begins(as_on_a_gpu, monkeypatch, memory, form, folded, fused):
    model, images = alive(SPLIT)
    clock(monkeypatch, lambda name: 0.5 if name in (form, "rewritten") else 1.0)
    found = optimize(model, images, memory=memory)
    assert found.choices[0].form == form
    assert (has(found.model, nn.BatchNorm2d), has(found.model, ConvReLU)) == (not folded, fused)
    assert found.certificate.relative < 1e-5


def test_on_a_gpu_the_whole_is_measured_at_last(as_on_a_gpu, monkeypatch, memory):
    """Layers that are faster by themselves may be slower together."""
    model, images = alive(GROUPED)
    clock(monkeypatch, lambda name: {"1": 0.5, "rewritten": 2.0}.get(name, 1.0))
    found = optimize(model, images, memory=memory)
    assert (found.choices[-1].what, found.choices[-1].form) == ("the whole", "as it is")
    assert str(found.model) == str(model)
    clock(monkeypatch, lambda name: {"1": 0.5, "rewritten": 0.5}.get(name, 1.0))
    assert groups_of(optimize(model, images, memory=memory.with_name("other.json")).model) == set()


def test_groups_are_chosen_for_each_convolution(monkeypatch, memory):
    model, images = alive(GROUPED)
    asked = clock(monkeypatch, lambda name: abs(int(name) - 2) + 1.0)
    found = optimize(model, images, memory=memory)
    assert groups_of(model) == {8}
    assert groups_of(found.model) == {2}
    assert found.certificate.relative < 1e-5
    assert asked == [("8", "4", "2", "1"), ("8", "4", "2", "1")]
    assert all("groups of" in choice.what for choice in found.choices)


def test_choices_are_remembered(monkeypatch, memory):
    model, images = alive(GROUPED)
    clock(monkeypatch, lambda name: float(name))
    first = optimize(model, images, memory=memory)
    asked = clock(monkeypatch, lambda name: -float(name))
    second = optimize(model, images, memory=memory)
    assert asked == []
    assert all(choice.remembered for choice in second.choices)
    assert [choice.form for choice in first.choices] == [choice.form for choice in second.choices]
    optimize(model, images[..., :32, :32], memory=memory)
    assert asked  # at another size anything may be faster


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}', "\x00"])
def test_a_damaged_memory_is_done_without(monkeypatch, memory, content):
    memory.parent.mkdir()
    memory.write_text(content)
    model, images = alive(GROUPED)
    clock(monkeypatch, lambda name: float(name))
    optimize(model, images, memory=memory)
    assert len(json.loads(memory.read_text())) >= 1


def test_a_memory_that_cannot_be_written_is_done_without(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    model, images = alive(GROUPED)
    clock(monkeypatch, lambda name: float(name))
    assert groups_of(optimize(model, images, memory=tmp_path / "file" / "forms.json").model) == set()


def test_a_runtime_of_the_callers_own(memory):
    model, images = alive(SPLIT)
    prepared = []

    def prepare(form, example):
        prepared.append(tuple(example.shape))
        return lambda: None

    optimize(model, images, prepare=prepare, runtime="mine", memory=memory, rounds=1)
    assert prepared
    assert "mine" in next(iter(json.loads(memory.read_text())))


def test_really_measured(memory):
    model, images = alive(GROUPED)
    found = optimize(model, images, memory=memory, rounds=2)
    assert found.certificate.relative < 1e-5
    assert all(second > 0 for choice in found.choices for second in choice.seconds.values())


def test_half_precision(memory):
    model, images = alive(SPLIT)
    found = optimize(model, images.bfloat16(), memory=memory, rounds=1)
    assert next(found.model.parameters()).dtype == torch.bfloat16
    assert next(model.parameters()).dtype == torch.float32


def test_a_race_takes_turns(monkeypatch):
    monkeypatch.setattr(timing, "SLOT", 0.0)
    order = []
    seconds = race({name: lambda name=name: order.append(name) for name in "ab"}, rounds=2)
    assert order == ["a", "b", "a", "b", "b", "a"]  # once each that does not count, then another first in each round
    assert set(seconds) == {"a", "b"}


def test_a_form_that_does_not_run_is_not_chosen(monkeypatch, memory):
    from resurge.optimize.passes import attention

    def broken(model):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(attention.Parallel, "forward", lambda self, x: broken(x))
    model, images = alive(SPLIT)
    clock(monkeypatch, lambda name: 1.0 if name == "separate_splits" else 2.0)
    found = optimize(model, images, memory=memory)
    assert not has(found.model, Parallel)
    assert all("separate_splits" not in choice.seconds for choice in found.choices)


def test_the_model_comes_back_in_the_layout_that_was_measured(monkeypatch, memory):
    model, images = alive(GROUPED)
    clock(monkeypatch, lambda name: abs(int(name) - 2) + 1.0)
    for _ in range(2):  # measured, then remembered
        layers = [each for each in optimize(model, images, memory=memory).model.modules() if type(each) is nn.Conv2d]
        assert all(each.weight.is_contiguous(memory_format=torch.channels_last) for each in layers)


@pytest.mark.parametrize("example", [torch.zeros(3, 8, 8), torch.zeros(0, 3, 8, 8), torch.zeros(1, 3, 8, 8).int()])
def test_an_example_that_is_none(example, memory):
    with pytest.raises(UserError, match="expected an example"):
        optimize(nn.Identity(), example, memory=memory)
