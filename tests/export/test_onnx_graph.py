"""What becomes one average or one split has the same numbers; what is alike but not the same stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from resurge.export.onnx_graph import ceil_pools, join_slices

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def graph(mode: str = "edge", pads: tuple[int, ...] = (0, 0, 0, 0, 0, 0, 1, 1), kernel: int = 2) -> Any:
    node = onnx.helper.make_node
    nodes = [
        node("Pad", ["x", "pads"], ["padded"], mode=mode),
        node("AveragePool", ["padded"], ["y"], kernel_shape=[kernel, kernel], strides=[2, 2], count_include_pad=1),
    ]
    kind = onnx.TensorProto.FLOAT
    values = [onnx.helper.make_tensor_value_info(name, kind, [1, 2, "h" + name, "w" + name]) for name in "xy"]
    borders = onnx.numpy_helper.from_array(np.array(pads, np.int64), "pads")
    made = onnx.helper.make_graph(nodes, "g", values[:1], values[1:], [borders])
    return onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)


def run(model: Any, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": x})[0]
    return found


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 5), (8, 5)])
def test_the_same_averages(size: tuple[int, int]) -> None:
    x = np.random.default_rng(0).standard_normal((1, 2, *size)).astype(np.float32)
    model = graph()
    before = run(model, x)
    assert ceil_pools(model.graph) == 1
    assert [node.op_type for node in model.graph.node] == ["AveragePool"]
    after = run(model, x)
    np.testing.assert_allclose(after, before, atol=1e-6)
    assert after.shape[2:] == tuple(-(-side // 2) for side in size)
    wrong = graph()
    wrong.graph.node[0].attribute[0].s = b"constant"  # zeros are averaged too
    if any(side % 2 for side in size):
        assert np.abs(run(wrong, x) - after).max() > 1e-2


def test_other_pairs_stay() -> None:
    for model in (graph("constant"), graph(pads=(0, 0, 1, 1, 0, 0, 1, 1)), graph(kernel=3)):
        assert ceil_pools(model.graph) == 0
        assert len(model.graph.node) == 2


def sliced(*ends: int, axis: int = 1) -> Any:
    """x (1, 6, 4, 4) cut at the ends; the first cut has the others subtracted from it."""
    node, numbers = onnx.helper.make_node, onnx.numpy_helper.from_array
    starts = [0, *ends[:-1]]
    constants = {f"n{number}": numbers(np.array([number], np.int64), f"n{number}") for number in {*starts, *ends, axis}}
    nodes = [
        node("Slice", ["x", f"n{start}", f"n{end}", f"n{axis}"], [f"part{i}"])
        for i, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]
    nodes.append(node("Sub", ["part0", "part1"], ["y"]))
    kind = onnx.TensorProto.FLOAT
    values = [onnx.helper.make_tensor_value_info("x", kind, [1, 6, 4, 4])]
    out = [onnx.helper.make_tensor_value_info("y", kind, [1, ends[0], 4, 4] if axis == 1 else [1, 6, ends[0], 4])]
    made = onnx.helper.make_graph(nodes, "g", values, out, list(constants.values()))
    return onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)


def test_slices_become_a_split() -> None:
    x = np.random.default_rng(0).standard_normal((1, 6, 4, 4)).astype(np.float32)
    for ends in ((3, 6), (2, 4, 6)):
        model = sliced(*ends)
        before = run(model, x)
        assert join_slices(model.graph) == len(ends)
        assert [node.op_type for node in model.graph.node] == ["Split", "Sub"]
        onnx.checker.check_model(model, full_check=True)
        assert (run(model, x) == before).all()
        assert (before != 0).any()


def test_slices_that_leave_something_out_stay() -> None:
    for model in (sliced(2, 4), sliced(2, 4, axis=2)):
        assert join_slices(model.graph) == 0
        assert {node.op_type for node in model.graph.node} == {"Slice", "Sub"}
