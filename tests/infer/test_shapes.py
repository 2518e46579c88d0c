"""One compiled network a shape: which shapes are compiled, that answers do not depend on it, and what is dropped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from resurge.infer.engines import openvino as module
from resurge.infer.engines.openvino import CompiledShapes

openvino = pytest.importorskip("openvino")


def network() -> Any:
    """Twice the mean over the pixels: (N, 3, H, W) -> `logits` (N, 3)."""
    from openvino import opset13 as op

    images = op.parameter([-1, 3, -1, -1], np.float32, name="images")
    mean = op.reduce_mean(images, op.constant(np.array([2, 3])), keep_dims=False)
    twice = op.multiply(mean, op.constant(np.float32(2)))
    model = openvino.Model([twice], [images])
    model.inputs[0].get_tensor().set_names({"images"})
    model.outputs[0].get_tensor().set_names({"logits"})
    return model


class Compiler:
    """Compiles, and remembers the shapes that it was asked for."""

    def __init__(self) -> None:
        self.core, self.asked = openvino.Core(), []

    def __call__(self, model: Any) -> Any:
        self.asked.append(str(model.inputs[0].get_partial_shape()))
        return self.core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def ask(shapes: CompiledShapes, count: int, side: int) -> None:
    images = np.random.default_rng(count).standard_normal((count, 3, side, side + 1)).astype(np.float32)
    found = shapes({"images": images})["logits"]
    np.testing.assert_allclose(found, 2 * images.mean((2, 3)), atol=1e-5)


def test_a_shape_that_comes_back_is_compiled_for() -> None:
    compiler = Compiler()
    shapes = CompiledShapes(network(), compiler, always_fixed=False)
    for _ in range(3):
        ask(shapes, 1, 8)
    assert compiler.asked == ["[?,3,?,?]", "[1,3,8,9]"]


def test_what_is_expected_is_compiled_for_at_once() -> None:
    compiler = Compiler()
    shapes = CompiledShapes(network(), compiler, always_fixed=False, expected=(3, 8, 9))
    for count in (1, 8, 8):
        ask(shapes, count, 8)
    ask(shapes, 1, 6)  # not what was expected
    assert compiler.asked == ["[1,3,8,9]", "[8,3,8,9]", "[?,3,?,?]"]


def test_int8_never_runs_with_open_sides() -> None:
    compiler = Compiler()
    shapes = CompiledShapes(network(), compiler, always_fixed=True)
    ask(shapes, 1, 8)
    ask(shapes, 2, 6)
    assert compiler.asked == ["[1,3,8,9]", "[2,3,6,7]"]


def test_batches_run_in_powers_of_two() -> None:
    compiler = Compiler()
    shapes = CompiledShapes(network(), compiler, always_fixed=True, expected=(3, 8, 9))
    for count in (1, 2, 5, 7, 13, 8, 21):
        ask(shapes, count, 8)
    assert sorted(compiler.asked) == ["[1,3,8,9]", "[2,3,8,9]", "[4,3,8,9]", "[8,3,8,9]"]


def test_few_shapes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 2)
    compiler = Compiler()
    shapes = CompiledShapes(network(), compiler, always_fixed=True)
    for side in (4, 5, 6, 6, 5, 4):
        ask(shapes, 1, side)
    assert compiler.asked == [f"[1,3,{side},{side + 1}]" for side in (4, 5, 6, 4)]


def test_a_shape_that_does_not_fit() -> None:
    shapes = CompiledShapes(network(), Compiler(), always_fixed=True)
    with pytest.raises(RuntimeError):
        shapes({"images": np.zeros((1, 2, 8, 8), np.float32)})
    ask(shapes, 1, 8)
