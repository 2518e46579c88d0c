"""Changes to an ONNX graph that torch's exporter has no option for. Each keeps what the graph computes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from resurge.infer.engines.engine import need

if TYPE_CHECKING:
    import onnx


def ceil_pools(graph: onnx.GraphProto) -> int:
    """A border repeated once and an average over 2x2 become one average that rounds sizes up; returns how many.

    Both average what of a window is inside: x[last] and its copy have the mean x[last]. The tracer has to be given the
    first form (`resurge.arch.shortcuts.HalvingPool`), which costs a copy of the map.
    """
    helpers = need("onnx")
    numbers = _lists(graph)
    made_by = {name: node for node in graph.node for name in node.output}
    uses = Counter(name for node in graph.node for name in node.input)
    found = []
    for pool in graph.node:
        pad = made_by.get(pool.input[0]) if pool.op_type == "AveragePool" else None
        if pad is None or pad.op_type != "Pad" or uses[pad.output[0]] > 1:
            continue
        had = {each.name: helpers.helper.get_attribute_value(each) for each in pool.attribute}
        mode = [helpers.helper.get_attribute_value(each) for each in pad.attribute if each.name == "mode"]
        square = had.get("kernel_shape") == [2, 2] and had.get("strides") == [2, 2] and not any(had.get("pads", ()))
        # the pads of the four axes (N, C, H, W) before, then after
        if mode != [b"edge"] or not square or numbers.get(pad.input[1]) != [0, 0, 0, 0, 0, 0, 1, 1]:
            continue
        pool.input[0] = pad.input[0]
        del pool.attribute[:]
        settings = {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1, "count_include_pad": 0}
        pool.attribute.extend(helpers.helper.make_attribute(name, value) for name, value in settings.items())
        found.append(pad)
    for pad in found:
        graph.node.remove(pad)
    return len(found)


def join_slices(graph: onnx.GraphProto) -> int:
    """Slices that cut a map into runs of channels, all of them and in order, become one Split; returns how many did.

    The exporter writes a slice for each run, and a runtime then goes over the map once for each.
    """
    helpers = need("onnx")
    numbers = _lists(graph)
    wide = {
        value.name: value.type.tensor_type.shape.dim[1].dim_value
        for value in (*graph.value_info, *graph.input)
        if len(value.type.tensor_type.shape.dim) > 1
    }
    cuts: dict[str, list[tuple[int, int, onnx.NodeProto]]] = {}
    for node in graph.node:
        if node.op_type == "Slice" and len(node.input) >= 4:
            given = [numbers.get(name, []) for name in node.input[1:]]
            if [len(each) for each in given] in ([1, 1, 1], [1, 1, 1, 1]) and given[2:] in ([[1]], [[1], [1]]):
                cuts.setdefault(node.input[0], []).append((given[0][0], given[1][0], node))
    joined = 0
    for name, parts in cuts.items():
        parts.sort(key=lambda part: part[0])
        edges = [0, *(end for _, end, _ in parts)]
        if len(parts) < 2 or [start for start, _, _ in parts] != edges[:-1] or edges[-1] != wide.get(name):
            continue
        sizes = helpers.numpy_helper.from_array(
            np.array([end - start for start, end, _ in parts], np.int64), f"{name}_sizes"
        )
        split = helpers.helper.make_node(
            "Split", [name, sizes.name], [node.output[0] for _, _, node in parts], f"{name}_split", axis=1
        )
        first = min(list(graph.node).index(node) for _, _, node in parts)
        for _, _, node in parts:
            graph.node.remove(node)
        graph.node.insert(first, split)
        graph.initializer.append(sizes)
        joined += len(parts)
    return joined


def _lists(graph: onnx.GraphProto) -> dict[str, list[int]]:
    """The constants that are lists of numbers."""
    helpers = need("onnx")
    return {
        each.name: helpers.numpy_helper.to_array(each).tolist() for each in graph.initializer if len(each.dims) == 1
    }
