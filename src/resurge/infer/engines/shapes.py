"""OpenVINO networks compiled for the shapes that come.

A network of fixed shape runs faster than one whose batch, height and width are open, and on processors with AMX an int8
network of open shape may end the process (openvinotoolkit/openvino#37577). A file with open sides is therefore compiled
for the shape that is expected, for any other when it comes back, and in int8 always; batches run in powers of two, so
that few shapes are enough.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

KEPT = 6
"""Compiled shapes that are kept; each holds the weights in the layout of its own."""

LARGEST = 8
"""Images in one run: with more a processor gains nothing but memory."""

Shapes = tuple[tuple[int, ...], ...]


class CompiledShapes:
    """A network with open sides, compiled for one shape after the other.

    Args:
        model: an OpenVINO model.
        compile: a model -> what runs it.
        always_fixed: never run it with open sides.
        expected: the shape (C, H, W) that images will have, where that is known.
    """

    def __init__(
        self, model: Any, compile: Callable[[Any], Any], *, always_fixed: bool,
        expected: tuple[int, int, int] | None = None,
    ) -> None:  # fmt: skip
        self._model, self._compile, self._always_fixed = model, compile, always_fixed
        self._lock = threading.Lock()  # a compiled network has one request for all who call it
        self._fixed: OrderedDict[Shapes, Any] = OrderedDict()
        self._seen: set[Shapes] = set()
        self.inputs = tuple(each.get_any_name() for each in model.inputs)
        self.outputs = tuple(each.get_any_name() for each in model.outputs)
        self._expected = expected
        self._open: Any = None
        if expected is not None and len(self.inputs) == 1:  # compiled now: what is wrong with the file is told now
            self._at(((1, *expected),))
        elif not always_fixed:
            self._open = compile(model)

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays (N, ...) by the name of the input -> arrays (N, ...) by the name of the output. Any thread may call.

        Raises:
            RuntimeError: the network cannot take these shapes.
        """
        arrays = [np.ascontiguousarray(inputs[name]) for name in self.inputs]
        with self._lock:
            parts = [self._run([each[few] for each in arrays]) for few in _runs(len(arrays[0]))]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}

    def _run(self, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
        found = self._for(tuple(each.shape for each in arrays))(arrays)
        return {name: np.array(found[index]) for index, name in enumerate(self.outputs)}

    def _for(self, shapes: Shapes) -> Any:
        awaited = len(shapes) == 1 and shapes[0][1:] == self._expected
        if awaited or shapes in self._fixed or shapes in self._seen or self._always_fixed:
            return self._at(shapes)
        if len(self._seen) > 1000:  # images of all sizes: nothing comes back
            self._seen.clear()
        self._seen.add(shapes)
        if self._open is None:
            self._open = self._compile(self._model)
        return self._open

    def _at(self, shapes: Shapes) -> Any:
        found = self._fixed.pop(shapes, None)
        if found is None:
            for each, shape in zip(self._model.inputs, shapes, strict=True):
                if not each.partial_shape.compatible(type(each.partial_shape)(list(shape))):
                    raise RuntimeError(f"it takes {each.partial_shape}, not {list(shape)}")  # reshape would not mind
            model = self._model.clone()
            model.reshape(dict(zip(self.inputs, map(list, shapes), strict=True)))
            found = self._compile(model)
            while len(self._fixed) >= KEPT:
                self._fixed.popitem(last=False)
        self._fixed[shapes] = found
        return found


def _runs(count: int) -> Iterator[slice]:
    """`count` images as runs of 8, 4, 2 and 1."""
    begin, size = 0, LARGEST
    while begin < count:
        while size > count - begin:
            size //= 2
        yield slice(begin, begin + size)
        begin += size
